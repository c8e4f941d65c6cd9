import assert from "node:assert/strict";
import { pruneZeros } from "./constant.ts";
import { pruneMasks } from "./method.ts";
import { blockMeans, gatheredScores } from "./scores.ts";

const matrix = { name: "w", rows: 2, columns: 3, values: Float32Array.of(1, -2, 3, -4, 5, 7) };

Deno.test("blockMeans is the mean over each block, of values or magnitudes, short last blocks too", () => {
  const means = (absolute: boolean) => [...blockMeans(matrix.values, "[2,2]", matrix, { absolute })];
  assert.deepEqual(means(false), [0, 5]);
  assert.deepEqual(means(true), [3, 5]);
});

Deno.test("gatheredScores ranks weights by their scores, and blocks by the mean or as they are", () => {
  const scores = new Map([["w", Float32Array.of(-1, 1, 1, -1, -9, -8)]]);
  const mask = (unit: "weight" | "block", pattern: "unstructured" | "[2,1]", values = scores) =>
    pruneMasks([matrix], {
      method: gatheredScores((name) => values.get(name)!, unit),
      pattern,
      scope: "layer",
      sparsity: 1 / 3,
    }).get("w")![0];
  assert.equal(mask("weight", "unstructured"), 0b001111);
  assert.equal(mask("weight", "[2,1]"), 0b101101);
  assert.equal(mask("block", "[2,1]", new Map([["w", Float32Array.of(-2, -1, -3)]])), 0b011011);
  assert.throws(() => mask("block", "[2,1]"), RangeError);
});

Deno.test("pruneZeros prunes zeros of either sign, and counts those that were kept so far", () => {
  const values = new Float32Array(40).fill(1);
  for (const index of [0, 5, 33]) values[index] = 0;
  values[34] = -0;
  values[35] = 2 ** -149;
  const mask = Uint32Array.of(0xffffffff & ~(1 << 5), 0xff);
  assert.equal(pruneZeros(values, mask), 3);
  assert.deepEqual([...mask], [(0xffffffff & ~0b100001) >>> 0, 0xff & ~0b110]);
});
