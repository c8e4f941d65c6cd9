import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type EncodedExample,
  evaluationBatches,
  makeBatchViews,
  packBatch,
  planEpoch,
  tokenCapacity,
} from "./batches.ts";

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

Deno.test("planEpoch visits every example once, differently each epoch and seed, and the same when asked again", () => {
  fc.assert(
    fc.property(fc.nat(300), fc.integer({ min: 1, max: 40 }), fc.nat(), (examples, batchSize, seed) => {
      const batches = planEpoch({ examples, batchSize, seed, epoch: 0 });
      assert.equal(batches.length, Math.ceil(examples / batchSize));
      assert.ok(batches.slice(0, -1).every((batch) => batch.length === batchSize));
      const visited = batches.flatMap((batch) => [...batch]);
      assert.deepEqual(
        visited.toSorted((a, b) => a - b),
        Array.from({ length: examples }, (_, index) => index),
      );
      assert.deepEqual(planEpoch({ examples, batchSize, seed, epoch: 0 }), batches);
    }),
  );
  const first = planEpoch({ examples: 100, batchSize: 8, seed: 1, epoch: 0 });
  assert.notDeepEqual(planEpoch({ examples: 100, batchSize: 8, seed: 1, epoch: 1 }), first);
  assert.notDeepEqual(planEpoch({ examples: 100, batchSize: 8, seed: 2, epoch: 0 }), first);
});

Deno.test("tokenCapacity is enough for every batch of every epoch, and no more than the worst one needs", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 128 })),
      fc.integer({ min: 1, max: 20 }),
      (lengths, batchSize) => {
        const capacity = tokenCapacity(lengths, batchSize);
        const tokens = (batch: Int32Array) => batch.reduce((sum, index) => sum + lengths[index], 0);
        for (let epoch = 0; epoch < 3; epoch++) {
          for (const batch of planEpoch({ examples: lengths.length, batchSize, seed: 7, epoch })) {
            assert.ok(tokens(batch) <= capacity);
          }
        }
        const longest = lengths.toSorted((a, b) => b - a).slice(0, batchSize);
        assert.equal(capacity, longest.reduce((sum, length) => sum + length, 0));
      },
    ),
  );
});

Deno.test("evaluationBatches go from short to long, keep ties in order, and lead home", () => {
  const lengths = [5, 2, 9, 2, 7];
  const batches = evaluationBatches(lengths, 2);
  assert.deepEqual(batches.map((batch) => [...batch]), [[1, 3], [0, 4], [2]]);
  const home: number[] = [];
  for (const batch of batches) batch.forEach((index) => home[index] = lengths[index]);
  assert.deepEqual(home, lengths);
  assert.deepEqual(evaluationBatches([], 4), []);
});

Deno.test("batches of no or half an example are refused", () => {
  for (const batchSize of [0, -1, 1.5, NaN]) {
    assert.throws(() => planEpoch({ examples: 4, batchSize, seed: 1, epoch: 0 }), /Cannot make batches of/);
    assert.throws(() => evaluationBatches([1, 2], batchSize), /Cannot make batches of/);
  }
});
