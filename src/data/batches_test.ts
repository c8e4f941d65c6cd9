import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { exists, readBytes } from "../core/files.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import {
  type BatchLimit,
  type EncodedExample,
  evaluationBatches,
  largestBatch,
  makeBatchViews,
  packBatch,
  planEpoch,
} from "./batches.ts";
import { readExamples } from "./table.ts";
import { loadTokenizer } from "./tokenizer.ts";

const example = (ids: number[], typeIds: number[], label: number): EncodedExample => ({
  ids: Int32Array.from(ids),
  typeIds: Uint8Array.from(typeIds),
  label,
});

Deno.test("packBatch packs sequences end to end and pads the rest, as its picture says", () => {
  const views = makeBatchViews({ columns: 8, sequences: 3 });
  for (const view of Object.values(views) as Int32Array[]) view.fill(77); // what the last batch left there
  const tokens = packBatch([example([11, 12, 13], [0, 0, 1], 1), example([14, 15], [0, 0], 0)], views);
  assert.equal(tokens, 5);
  assert.deepEqual(views, {
    tokenIds: Int32Array.of(11, 12, 13, 14, 15, -1, -1, -1),
    positionIds: Int32Array.of(0, 1, 2, 0, 1, -1, -1, -1),
    typeIds: Int32Array.of(0, 0, 1, 0, 0, -1, -1, -1),
    offsets: Int32Array.of(0, 3, 5, 5),
    firstTokens: Int32Array.of(0, 3, -1),
    labels: Int32Array.of(1, 0, -1),
  });
});

Deno.test("packBatch fills its views to the brim, takes an empty batch, and refuses too much untouched", () => {
  const views = makeBatchViews({ columns: 3, sequences: 2 });
  assert.equal(packBatch([example([1], [0], 0), example([2, 3], [0, 1], 1)], views), 3);
  assert.deepEqual(views.offsets, Int32Array.of(0, 1, 3));
  assert.throws(() => packBatch([example([1, 2, 3, 4], [0, 0, 0, 0], 0)], views), /1 sequences of 4 tokens/);
  assert.throws(
    () => packBatch(Array(3).fill(example([1], [0], 0)), views),
    /3 sequences of 3 tokens into 2 of 3/,
  );
  assert.deepEqual(views.tokenIds, Int32Array.of(1, 2, 3));
  assert.equal(packBatch([], views), 0);
  assert.deepEqual(views.offsets, Int32Array.of(0, 0, 0));
  assert.deepEqual(views.labels, Int32Array.of(-1, -1));
});

Deno.test("packBatch writes into views of a shared arena", () => {
  const arena = new SharedArrayBuffer(256);
  const at = (index: number, length: number) => new Int32Array(arena, index * 4, length);
  const views = {
    tokenIds: at(0, 4),
    positionIds: at(4, 4),
    typeIds: at(8, 4),
    offsets: at(12, 3),
    firstTokens: at(15, 2),
    labels: at(17, 2),
  };
  new Int32Array(arena).fill(77);
  packBatch([example([5, 6], [0, 0], 1)], views);
  assert.deepEqual([...at(0, 4)], [5, 6, -1, -1]);
  assert.deepEqual([...at(17, 4)], [1, -1, 77, 77]);
});

/** Lengths, a limit of either kind, and everything else an epoch follows from. */
const requests = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 300 }),
  limit: fc.oneof(
    fc.record({ sequences: fc.integer({ min: 1, max: 40 }), tokens: fc.constant(Infinity) }),
    fc.record({ sequences: fc.constant(Infinity), tokens: fc.integer({ min: 1, max: 200 }) }),
    fc.record({ sequences: fc.integer({ min: 1, max: 9 }), tokens: fc.integer({ min: 1, max: 200 }) }),
  ),
  groupByLength: fc.boolean(),
  seed: fc.nat(),
  epoch: fc.nat(5),
});

const tokensOf = (lengths: readonly number[], batch: Iterable<number>) =>
  Array.from(batch, (index) => lengths[index]).reduce((sum, length) => sum + length, 0);

Deno.test("planEpoch visits every example once, keeps to the limit, and gives the same when asked again", () => {
  fc.assert(
    fc.property(requests, (request) => {
      const { lengths, limit } = request;
      const batches = planEpoch(request);
      assert.deepEqual(
        batches.flatMap((batch) => [...batch]).sort((a, b) => a - b),
        Array.from(lengths.keys()),
      );
      for (const batch of batches) {
        const tokens = tokensOf(lengths, batch);
        assert.ok(batch.length === 1 || (batch.length <= limit.sequences && tokens <= limit.tokens));
      }
      assert.deepEqual(planEpoch(request), batches);
    }),
  );
});

Deno.test("planEpoch ends a batch only where the next sequence does not fit", () => {
  fc.assert(
    fc.property(requests, (request) => {
      const { lengths, limit } = request;
      const batches = planEpoch({ ...request, groupByLength: false });
      for (const [index, next] of batches.slice(1).entries()) {
        const batch = [...batches[index], next[0]];
        assert.ok(batch.length > limit.sequences || tokensOf(lengths, batch) > limit.tokens);
      }
    }),
  );
});

Deno.test("planEpoch limited to sequences makes the batches it always made: a shuffle, cut evenly", () => {
  const lengths = Array.from({ length: 20 }, (_, index) => 1 + index % 7);
  const limit = { sequences: 8, tokens: Infinity };
  const batches = planEpoch({ lengths, limit, groupByLength: false, seed: 42, epoch: 1 });
  const order = new RandomStream(randomKey(42, "shuffle", 1)).shuffle([...lengths.keys()]);
  assert.deepEqual(batches.map((batch) => [...batch]), [
    order.slice(0, 8),
    order.slice(8, 16),
    order.slice(16),
  ]);
});

Deno.test("planEpoch has another order for another epoch and for another seed, grouped or not", () => {
  const lengths = Array.from({ length: 200 }, (_, index) => 3 + index % 30);
  const limit = { sequences: 8, tokens: Infinity };
  for (const groupByLength of [false, true]) {
    const first = planEpoch({ lengths, limit, groupByLength, seed: 1, epoch: 0 });
    for (const other of [{ seed: 1, epoch: 1 }, { seed: 2, epoch: 0 }]) {
      const batches = planEpoch({ lengths, limit, groupByLength, ...other });
      assert.notDeepEqual(batches, first);
      const members = (list: Int32Array[]) => list.map((batch) => batch.toSorted().join()).sort();
      assert.notDeepEqual(members(batches), members(first), "other batches, not only their order");
    }
  }
});

Deno.test("planEpoch grouped by length makes batches of like length, in an order that says nothing of it", () => {
  const stream = new RandomStream(randomKey(3, "lengths"));
  const lengths = Array.from({ length: 4000 }, () => 3 + stream.below(60));
  for (const limit of [{ sequences: 16, tokens: Infinity }, { sequences: Infinity, tokens: 512 }]) {
    const spread = (groupByLength: boolean) => {
      const batches = planEpoch({ lengths, limit, groupByLength, seed: 5, epoch: 0 });
      const ranges = batches.map((batch) => {
        const own = Array.from(batch, (index) => lengths[index]);
        return Math.max(...own) - Math.min(...own);
      });
      return { batches, mean: ranges.reduce((sum, range) => sum + range) / ranges.length };
    };
    const grouped = spread(true);
    assert.ok(grouped.mean < spread(false).mean / 8, `${grouped.mean}`);
    const means = grouped.batches.map((batch) => tokensOf(lengths, batch) / batch.length);
    const rises = means.slice(1).filter((mean, index) => mean > means[index]).length / (means.length - 1);
    assert.ok(rises > 0.4 && rises < 0.6, `the next batch is longer ${rises} of the time`);
  }
});

Deno.test("planEpoch of SST-2: the figures in its documentation", async () => {
  const glue = new URL("../../../shared/data/", import.meta.url);
  const train = fileURLToPath(new URL("glue/SST-2/train.tsv.gz", glue));
  const json = fileURLToPath(new URL("bert-base-uncased/tokenizer.json", glue));
  if (!await exists(train) || !await exists(json)) {
    console.log("skipped: ../shared/data holds no SST-2 or no tokenizer");
    return;
  }
  const tokenizer = loadTokenizer(new Map([["tokenizer.json", await readBytes(json)]]));
  const { examples } = await readExamples(train);
  const lengths = examples.map(({ text }) => tokenizer.encode(text, undefined, 128).ids.length);
  const figures = (limit: BatchLimit, groupByLength: boolean) => {
    const batches = planEpoch({ lengths, limit, groupByLength, seed: 42, epoch: 0 });
    const tokens = batches.map((batch) => tokensOf(lengths, batch));
    const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
    const mean = sum(tokens) / tokens.length;
    const tiles = tokens.map((count) => Math.ceil(count / 64));
    return [
      batches.length,
      Math.min(...tokens),
      Math.max(...tokens),
      Math.round(Math.sqrt(sum(tokens.map((count) => (count - mean) ** 2)) / tokens.length)),
      new Set(tiles).size,
      Math.round(100 * sum(tokens) / (64 * sum(tiles))),
    ];
  };
  const sequences = { sequences: 32, tokens: Infinity };
  const tokens = { sequences: Infinity, tokens: 1024 };
  assert.deepEqual([Math.min(...lengths), Math.max(...lengths)], [3, 66]);
  assert.deepEqual(figures(sequences, false), [2105, 231, 615, 53, 7, 93]);
  assert.deepEqual(figures(sequences, true), [2105, 96, 1538, 304, 23, 95]);
  assert.deepEqual(figures(tokens, false), [885, 811, 1024, 12, 2, 99]);
  assert.deepEqual(figures(tokens, true), [885, 297, 1024, 26, 3, 99]);
});

Deno.test("largestBatch gives the most sequences and the most tokens, not always of the same batch", () => {
  const lengths = [1, 1, 1, 9, 2];
  const batches = [[0, 1, 2], [3], [4]].map((batch) => Int32Array.from(batch));
  assert.deepEqual(largestBatch(batches, lengths), { sequences: 3, tokens: 9 });
  assert.deepEqual(largestBatch([], lengths), { sequences: 0, tokens: 0 });
});

Deno.test("evaluationBatches go from short to long, keep ties in order, and lead home", () => {
  const lengths = [5, 2, 9, 2, 7];
  const batches = evaluationBatches(lengths, { sequences: 2, tokens: Infinity });
  assert.deepEqual(batches.map((batch) => [...batch]), [[1, 3], [0, 4], [2]]);
  const home: number[] = [];
  for (const batch of batches) batch.forEach((index) => home[index] = lengths[index]);
  assert.deepEqual(home, lengths);
  assert.deepEqual(evaluationBatches([], { sequences: 4, tokens: Infinity }), []);
  const byTokens = evaluationBatches(lengths, { sequences: Infinity, tokens: 10 });
  assert.deepEqual(byTokens.map((batch) => [...batch]), [[1, 3, 0], [4], [2]]);
});

Deno.test("batches of no or half an example or token are refused", () => {
  for (const value of [0, -1, 1.5, NaN]) {
    for (const limit of [{ sequences: value, tokens: 8 }, { sequences: 8, tokens: value }]) {
      const request = { lengths: [1, 2], limit, groupByLength: false, seed: 1, epoch: 0 };
      assert.throws(
        () => planEpoch(request),
        /^RangeError: Cannot make batches of .* (sequences|tokens): wanted/,
      );
      assert.throws(() => evaluationBatches([1, 2], limit), RangeError);
    }
  }
});
