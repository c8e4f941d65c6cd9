import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { hasBit, popcount } from "./bitset.ts";
import { exchangeWeights, thresholdMask } from "./movement.ts";

const matrixOf = (rows: number, columns: number) => ({
  name: "query",
  rows,
  columns,
  values: new Float32Array(rows * columns),
});

Deno.test("a threshold keeps what has a sigmoid above it", () => {
  // σ: 0.5, 0.7311, 0.2689, 0.1192
  const scores = Float32Array.of(0, 1, -1, -2);
  const keptAt = (threshold: number) => thresholdMask(matrixOf(1, 4), scores, "unstructured", threshold)[0];
  assert.equal(keptAt(0), 0b1111);
  assert.equal(keptAt(0.119), 0b1111);
  assert.equal(keptAt(0.12), 0b0111);
  assert.equal(keptAt(0.3), 0b0011);
  assert.equal(keptAt(0.5), 0b0010);
  // Not one is above: the largest stays.
  assert.equal(keptAt(0.9), 0b0010);
  assert.equal(keptAt(1), 0b0010);
});

Deno.test("a threshold leaves half a percent and one", () => {
  const scores = Float32Array.from({ length: 1000 }, (_, index) => index - 2000);
  const mask = thresholdMask(matrixOf(10, 100), scores, "unstructured", 0.5);
  assert.equal(popcount(mask), 6);
  for (let index = 994; index < 1000; index++) assert.ok(hasBit(mask, index));
});

Deno.test("a threshold is on the mean score of a block", () => {
  const scores = Float32Array.of(1, -3, 0, 0, -3, 2, 1, -4);
  // Means of the 1 × 4 blocks: −0.5, −1.
  assert.equal(thresholdMask(matrixOf(2, 4), scores, "1x4", 0.3)[0], 0b00001111);
});

Deno.test("a threshold refuses N:M, and scores that are no numbers", () => {
  assert.throws(
    () => thresholdMask(matrixOf(1, 4), new Float32Array(4), "2:4", 0.1),
    new InputError("Cannot prune by soft-movement in the pattern 2:4: wanted single weights or blocks"),
  );
  assert.throws(
    () => thresholdMask(matrixOf(1, 2), Float32Array.of(0, NaN), "unstructured", 0.1),
    new InputError("Cannot prune query: score 1 is NaN, wanted a number"),
  );
});

Deno.test("weights sleep as they were and wake as they were, and their states begin at zero", () => {
  const weights = Float32Array.of(1, 2, 3, 0);
  const dormant = Float32Array.of(0, 0, 0, 4);
  const state = Float32Array.of(5, 6, 7, 0);
  const exchange = (mask: number) => exchangeWeights(Uint32Array.of(mask), weights, dormant, [state]);
  exchange(0b0101);
  assert.deepEqual([[...weights], [...dormant], [...state]], [[1, 0, 3, 0], [0, 2, 0, 4], [5, 0, 7, 0]]);
  weights[0] = -1;
  exchange(0b1010);
  assert.deepEqual([[...weights], [...dormant], [...state]], [[0, 2, 0, 4], [-1, 0, 3, 0], [0, 0, 0, 0]]);
  exchange(0b1111);
  assert.deepEqual([[...weights], [...dormant]], [[-1, 2, 3, 4], [0, 0, 0, 0]]);
});
