import assert from "node:assert/strict";
import fc from "fast-check";
import { BatchQueue } from "./batch_queue.ts";

/** A queue whose batches end when told to. Items are costs; the answer to an item is its double. */
function manual({ runners = 1, maximumCost = 100, maximumItems = 100 } = {}) {
  const batches: { runner: number; items: readonly number[]; end(error?: Error): void }[] = [];
  const queue = new BatchQueue<number, number>({
    runners,
    maximumCost,
    maximumItems,
    cost: (item) => item,
    run: (runner, items) =>
      new Promise((resolve, reject) =>
        batches.push({
          runner,
          items,
          end: (error) => error ? reject(error) : resolve(items.map((item) => 2 * item)),
        })
      ),
  });
  const settled = () => new Promise((resolve) => setTimeout(resolve));
  return { queue, batches, settled };
}

Deno.test("BatchQueue with one runner puts together what waits, in order of arrival", async () => {
  const { queue, batches, settled } = manual();
  const first = queue.submit([5]);
  await settled();
  const others = [queue.submit([1, 2]), queue.submit([3]), queue.submit([4])];
  await settled();
  assert.deepEqual(batches.map(({ items }) => items), [[5]], "one batch at a time");
  batches[0].end();
  assert.deepEqual(await first, [10]);
  assert.deepEqual(batches[1].items, [1, 2, 3, 4]);
  batches[1].end();
  assert.deepEqual(await Promise.all(others), [[2, 4], [6], [8]]);
});

Deno.test("BatchQueue cuts at the largest cost and the most items; a larger item goes alone", async () => {
  const { queue, batches, settled } = manual({ maximumCost: 10, maximumItems: 3 });
  const call = queue.submit([4, 4, 4, 30, 1, 1, 1, 1]);
  for (const expected of [[4, 4], [4], [30], [1, 1, 1], [1]]) {
    await settled();
    assert.deepEqual(batches.at(-1)!.items, expected);
    batches.at(-1)!.end();
  }
  assert.deepEqual(await call, [8, 8, 8, 60, 2, 2, 2, 2]);
});

Deno.test("BatchQueue spreads a call over its runners, and gives each of several calls a runner", async () => {
  const one = manual({ runners: 2 });
  one.queue.submit([10, 10, 10, 10]);
  await one.settled();
  assert.deepEqual(one.batches.map(({ runner, items }) => [runner, items]), [[0, [10, 10]], [1, [10]]]);

  const many = manual({ runners: 3 });
  const calls = [7, 7, 7].map((item) => many.queue.submit([item]));
  await many.settled();
  assert.deepEqual(many.batches.map(({ runner }) => runner), [0, 1, 2]);
  many.batches.toReversed().forEach(({ end }) => end());
  assert.deepEqual(await Promise.all(calls), [[14], [14], [14]]);
});

Deno.test("BatchQueue answers every item once, to its caller, for any runners, sizes and order of ends", async () => {
  await fc.assert(fc.asyncProperty(
    fc.array(fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 8 }), { maxLength: 12 }),
    fc.integer({ min: 1, max: 4 }),
    fc.integer({ min: 1, max: 60 }),
    fc.scheduler(),
    async (calls, runners, maximumCost, scheduler) => {
      let running = 0;
      const queue = new BatchQueue<number, number>({
        runners,
        maximumCost,
        maximumItems: 5,
        cost: (item) => item,
        run: async (runner, items) => {
          assert.ok(runner >= 0 && runner < runners && ++running <= runners, "more batches than runners");
          const cost = items.reduce((sum, item) => sum + item, 0);
          assert.ok(items.length === 1 || (items.length <= 5 && cost <= maximumCost), `${items}`);
          await scheduler.schedule(Promise.resolve());
          running--;
          return items.map((item) => 2 * item);
        },
      });
      const answers = Promise.all(calls.map((items) => queue.submit(items)));
      const closed = queue.close();
      await scheduler.waitFor(closed);
      assert.deepEqual(await answers, calls.map((items) => items.map((item) => 2 * item)));
    },
  ));
});

Deno.test("BatchQueue fails whoever is in a failed batch, waits or comes later, with the reason", async () => {
  const { queue, batches, settled } = manual({ runners: 2 });
  const running = queue.submit([1]);
  const other = queue.submit([1]);
  await settled();
  const waiting = queue.submit([2]);
  await settled();
  batches[0].end(new Error("worker 0 died"));
  for (const call of [running, waiting, queue.submit([3])]) await assert.rejects(call, /worker 0 died/);
  batches[1].end();
  assert.deepEqual(await other, [2], "a batch on another runner ends as it would");
  assert.equal(batches.length, 2);
  await queue.close();
  await assert.rejects(queue.submit([4]), /worker 0 died/, "the cause is kept");
});

Deno.test("BatchQueue.close waits for the calls before it and refuses those after", async () => {
  const { queue, batches, settled } = manual();
  const call = queue.submit([1]);
  let closed = false;
  const closing = queue.close().then(() => closed = true);
  await assert.rejects(queue.submit([2]), /disposed/);
  await settled();
  assert.equal(closed, false);
  batches[0].end();
  assert.deepEqual(await call, [2]);
  await closing;
  await queue.close();
});
