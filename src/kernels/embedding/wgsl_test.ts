/** What only the GPU has to do with tables: those larger than a binding, and rows that thousands of columns name. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { indices, rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { NumberArray } from "../../graph/operation.ts";
import { normals, paddedIndices } from "../conformance.ts";
import { runLowering, testGpu } from "../shader_conformance.ts";
import { embeddingGradientReference } from "./reference.ts";
import { embeddingGradientShaders, embeddingShaders } from "./wgsl.ts";

const columns = 96;

Deno.test("a word table in parts gives the bits of a whole one", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  for (const [features, vocabulary] of [[8, 23], [5, 40]]) {
    const random = new RandomStream(randomKey(features));
    const list = (count: number) =>
      paddedIndices(Array.from({ length: 90 }, () => random.below(count)), columns);
    const sizes = [vocabulary, 11, 2];
    const tables = sizes.map((count) => normals(random, rows(count, features)));
    const types: ValueType[] = [
      ...sizes.map((count) => rows(count, features)),
      ...sizes.map(() => indices(columns)),
    ];
    const inputs: NumberArray[] = [...tables, ...sizes.map(list)];
    const run = (parts?: number): Promise<NumberArray[]> =>
      runLowering(gpu, embeddingShaders, {}, inputs, types, new Map(parts ? [[0, parts]] : []));
    const [whole] = await run();
    for (const rowsPerPart of [7, 16, vocabulary - 1]) assert.deepEqual(await run(rowsPerPart), [whole]);
  }
});

Deno.test("in float16 a word table in parts rounds its sums once more than a whole one", async () => {
  const gpu = await testGpu();
  if (!gpu?.target.f16) return;
  const half = { ...gpu, target: { ...gpu.target, activations: "f16" as const } };
  const random = new RandomStream(randomKey(7));
  const sizes = [23, 11, 2];
  const types = [...sizes.map((count) => rows(count, 8)), ...sizes.map(() => indices(columns))];
  const lists = sizes.map((count) =>
    paddedIndices(Array.from({ length: 90 }, () => random.below(count)), columns)
  );
  const inputs = [...types.slice(0, 3).map((type) => normals(random, type)), ...lists];
  const [whole] = await runLowering(half, embeddingShaders, {}, inputs, types);
  const [found] = await runLowering(half, embeddingShaders, {}, inputs, types, new Map([[0, 7]]));
  // Of a sum of two numbers that are mostly below 4, and of what the third makes of it.
  found.forEach((value, i) =>
    assert.ok(
      Math.abs(value - whole[i]) <= 2 ** -9 + 2 ** -10 * Math.abs(whole[i]),
      `${value}, wanted ${whole[i]}`,
    )
  );
});

Deno.test("the gradient of a table in parts has the bits of a whole one", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  for (const [features, vocabulary] of [[8, 23], [5, 40]]) {
    const random = new RandomStream(randomKey(features));
    const ids = paddedIndices(Array.from({ length: 90 }, () => random.below(vocabulary)), columns);
    const types = [tiled(features, columns), indices(columns)];
    const inputs = [normals(random, types[0]), ids];
    const run = (parts?: number): Promise<NumberArray[]> =>
      runLowering(
        gpu,
        embeddingGradientShaders,
        { rows: vocabulary },
        inputs,
        types,
        new Map(parts ? [[2, parts]] : []),
      );
    const [whole] = await run();
    for (const rowsPerPart of [7, 16, vocabulary - 1]) assert.deepEqual(await run(rowsPerPart), [whole]);
  }
});

Deno.test("rows that thousands of columns name get the sum of all of them", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const [features, tokens, width] = [4, 3000, 3072];
  const random = new RandomStream(randomKey(3));
  const lists: [rows: number, rowOf: (column: number) => number][] = [
    [2, (column) => column % 128 < 50 ? 0 : 1],
    [128, (column) => column % 128],
    [5, (column) => column < 40 ? 3 : 4],
  ];
  for (const [rowCount, rowOf] of lists) {
    const type = tiled(features, width);
    const gradX = normals(random, type);
    const ids = paddedIndices(Array.from({ length: tokens }, (_, column) => rowOf(column)), width);
    const [found] = await runLowering(
      gpu,
      embeddingGradientShaders,
      { rows: rowCount },
      [gradX, ids],
      [type, indices(width)],
    );
    const wanted = embeddingGradientReference(Float64Array.from(gradX), ids, rowCount, features);
    // 3000 terms near 1, of which no more than 200 follow each other in one sum.
    wanted.forEach((value, i) =>
      assert.ok(Math.abs(found[i] - value) < 1e-4, `${i}: ${found[i]}, wanted ${value}`)
    );
  }
});
