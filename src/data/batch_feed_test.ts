import assert from "node:assert/strict";
import { BatchFeed } from "./batch_feed.ts";
import { BatchPlan } from "./batch_plan.ts";
import { encodedSetOf, exampleAt, lengthsOf } from "./encoded_set.ts";

const set = encodedSetOf(Array.from({ length: 10 }, (_, index) => ({
  ids: Int32Array.from({ length: 1 + index % 4 }, (_, token) => 10 * index + token),
  typeIds: new Uint8Array(1 + index % 4),
  label: index % 2,
})));

const example = (index: number) => exampleAt(set, index);

const planOf = () =>
  new BatchPlan({
    lengths: lengthsOf(set),
    limit: { sequences: 3, tokens: Infinity },
    groupByLength: false,
    seed: 9,
    epochs: 2,
  });

Deno.test("BatchFeed gives the examples of each step, prepared or not, in any order", async () => {
  const plan = planOf();
  const expected = Array.from(
    { length: plan.totalSteps },
    (_, step) => plan.batches(step).map((batch) => Array.from(batch, example)),
  );
  const feed = new BatchFeed(plan, example);
  for (const step of expected.keys()) {
    assert.deepEqual(feed.take(step), expected[step]);
    await feed.prepare(step + 1, 1);
  }
  for (const step of [5, 0, 7]) {
    await feed.prepare(3, 1);
    assert.deepEqual(feed.take(step), expected[step]);
  }
});

Deno.test("BatchFeed prepares a batch on the next turn of the event loop, and then take has nothing left to do", async () => {
  const plan = planOf();
  const asked: number[] = [];
  const batches = plan.batches.bind(plan);
  plan.batches = (step) => {
    asked.push(step);
    return batches(step);
  };
  const feed = new BatchFeed(plan, example);
  const prepared = feed.prepare(0, 1);
  await Promise.resolve();
  assert.deepEqual(asked, [], "whoever was called before it goes first");
  await prepared;
  assert.deepEqual(asked, [0]);
  feed.take(0);
  assert.deepEqual(asked, [0], "it was ready");
  feed.take(1);
  assert.deepEqual(asked, [0, 1], "it was not");
  await feed.prepare(plan.totalSteps, 1);
  assert.deepEqual(asked, [0, 1], "there is no step after the last");
});

Deno.test("BatchFeed counts the time in which its caller waits, and that only", async () => {
  const plan = planOf();
  const batches = plan.batches.bind(plan);
  plan.batches = (step) => {
    for (const begin = performance.now(); performance.now() < begin + 2;);
    return batches(step);
  };
  const feed = new BatchFeed(plan, example);
  await feed.prepare(0, 1);
  assert.equal(feed.waitSeconds, 0, "nobody waits for what is prepared ahead");
  feed.take(1);
  assert.ok(feed.waitSeconds >= 0.002, `${feed.waitSeconds}`);
  const before = feed.waitSeconds;
  await feed.prepare(2, 0.001);
  assert.ok(feed.waitSeconds >= before + 0.001, "a batch that takes longer than the step is waited for");
});
