import assert from "node:assert/strict";
import type { RandomStream } from "../../core/random.ts";
import { indices, rows, tiled } from "../../graph/graph.ts";
import {
  centralDifferences,
  conform,
  type ConformanceCase,
  normals,
  padColumns,
  paddedIndices,
} from "../conformance.ts";
import { embedding, embeddingGradient, type EmbeddingGradientAttributes } from "./operation.ts";

const tableRows = [23, 11, 2];

/** Ids of a table, padded with −1 to whole tiles. */
function randomIds(random: RandomStream, tokens: number, columns: number, rowCount: number): Int32Array {
  return paddedIndices(Array.from({ length: tokens }, () => random.below(rowCount)), columns);
}

const shapes: [name: string, features: number, tokens: (tile: number) => number][] = [
  ["one feature", 1, () => 1],
  ["less than a vector of features", 3, (tile) => tile - 1],
  ["a block of features and a bit", 77, (tile) => 2 * tile + 3],
  ["two blocks of features", 128, (tile) => tile],
  ["padding only", 8, () => 0],
];

function forwardCase(
  name: string,
  features: number,
  tokensOf: (tile: number) => number,
  change: (tables: Float32Array[], ids: Int32Array[]) => void = () => {},
): ConformanceCase<Record<string, never>> {
  return {
    name,
    seed: features,
    // Two additions of three terms.
    tolerance: { relative: 1e-7, absolute: 1e-6 },
    build({ tile, random }) {
      const tokens = tokensOf(tile);
      const columns = padColumns(Math.max(1, tokens), tile);
      const tables = tableRows.map((count) => normals(random, rows(count, features)));
      const ids = tableRows.map((count) => randomIds(random, tokens, columns, count));
      change(tables, ids);
      return {
        attributes: {},
        inputTypes: [...tableRows.map((count) => rows(count, features)), ...ids.map(() => indices(columns))],
        inputs: [...tables, ...ids],
      };
    },
  };
}

Deno.test("embedding conforms", (t) =>
  conform(t, embedding, [
    ...shapes.map((shape) => forwardCase(...shape)),
    forwardCase("NaN and infinity in rows of some tokens only", 9, (tile) => tile, (tables, ids) => {
      tables[0].fill(NaN, 0, 9);
      tables[0][9 + 4] = Infinity;
      ids[0].set([0, 1]);
    }),
    forwardCase("−1 in one list only", 6, (tile) => tile, (_, ids) => ids.forEach((list, i) => list[i] = -1)),
  ]));

function gradientCase(
  name: string,
  features: number,
  tokensOf: (tile: number) => number,
  rowCount: number,
  change: (gradX: Float32Array, columns: number) => void = () => {},
): ConformanceCase<EmbeddingGradientAttributes> {
  return {
    name: `${name}, ${rowCount} rows`,
    seed: features,
    tolerance: { relative: 1e-6, absolute: 2e-6 },
    build({ tile, random }) {
      const tokens = tokensOf(tile);
      const columns = padColumns(Math.max(1, tokens), tile);
      const gradX = normals(random, tiled(features, columns));
      change(gradX, columns);
      return {
        attributes: { rows: rowCount },
        inputTypes: [tiled(features, columns), indices(columns)],
        inputs: [gradX, randomIds(random, tokens, columns, rowCount)],
      };
    },
  };
}

Deno.test("embeddingGradient conforms", (t) =>
  conform(t, embeddingGradient, [
    ...shapes.flatMap(([name, features, tokens]) =>
      [1, 2, 19].map((rowCount) => gradientCase(name, features, tokens, rowCount))
    ),
    gradientCase("NaN in the first token only", 20, (tile) => tile, 50, (gradX, columns) => {
      for (let feature = 0; feature < 20; feature++) gradX[feature * columns] = NaN;
    }),
  ]));

Deno.test("embedding has the gradient of its reference", () => {
  const features = 3;
  centralDifferences(embedding, {
    seed: 1,
    attributes: {},
    inputTypes: [rows(4, features), rows(3, features), rows(2, features), indices(5), indices(5), indices(5)],
    inputs: [
      ...[4, 3, 2].map((count) =>
        Float64Array.from({ length: count * features }, (_, i) => Math.sin(i + count))
      ),
      Int32Array.of(0, 3, 3, 1, -1),
      Int32Array.of(0, 1, 2, 0, -1),
      Int32Array.of(0, 0, 1, 1, -1),
    ],
  });
});

Deno.test("embedding rejects operands that do not fit", () => {
  const [table, ids] = [rows(4, 8), indices(16)];
  assert.throws(
    () => embedding.infer([table, rows(4, 9), table, ids, ids, ids], {}),
    /Cannot apply embedding/,
  );
  assert.throws(
    () => embedding.infer([table, table, table, ids, indices(8), ids], {}),
    /Cannot apply embedding/,
  );
  assert.throws(() => embedding.infer([table, table, table, ids, ids], {}), /Cannot apply embedding/);
  assert.throws(
    () => embeddingGradient.infer([tiled(8, 16), indices(8)], { rows: 4 }),
    /Cannot apply embeddingGradient/,
  );
});
