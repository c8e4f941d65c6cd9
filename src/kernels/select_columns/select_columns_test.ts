import assert from "node:assert/strict";
import { indices, rows, tiled } from "../../graph/graph.ts";
import { centralDifferences, conform, type ConformanceCase, normals, paddedIndices } from "../conformance.ts";
import { selectColumns, selectColumnsGradient, type SelectColumnsGradientAttributes } from "./operation.ts";

interface Selection {
  readonly name: string;
  readonly features: number;
  /** Tiles of the whole matrix. */
  readonly tiles: number;
  readonly columns: (tile: number) => readonly number[];
}

const selections: readonly Selection[] = [
  { name: "one feature, one column", features: 1, tiles: 1, columns: () => [2] },
  { name: "nothing selected", features: 3, tiles: 2, columns: () => [] },
  {
    name: "first and last columns of tiles",
    features: 5,
    tiles: 4,
    columns: (tile) => [0, tile - 1, tile, 2 * tile - 1, 4 * tile - 1],
  },
  {
    name: "more columns than a tile, out of order, with gaps",
    features: 37,
    tiles: 3,
    columns: (tile) => Array.from({ length: tile + 3 }, (_, i) => i % 4 === 1 ? -1 : 3 * tile - 1 - i),
  },
  { name: "columns selected twice", features: 4, tiles: 2, columns: () => [3, 1, 3, -1, 3, 0, 1] },
];

function listOf({ columns }: Selection, tile: number): Int32Array {
  const list = columns(tile);
  return paddedIndices(list, Math.max(1, Math.ceil(list.length / tile)) * tile);
}

function forwardCase(selection: Selection): ConformanceCase<Record<never, never>> {
  return {
    name: selection.name,
    seed: 31,
    tolerance: { relative: 0, absolute: 0 },
    build({ tile, random }) {
      const list = listOf(selection, tile);
      const type = tiled(selection.features, selection.tiles * tile);
      const x = normals(random, type);
      x.set([NaN, Infinity]);
      return { attributes: {}, inputTypes: [type, indices(list.length)], inputs: [x, list] };
    },
  };
}

function backwardCase(selection: Selection): ConformanceCase<SelectColumnsGradientAttributes> {
  return {
    name: selection.name,
    seed: 32,
    // Up to three terms: two roundings.
    tolerance: { relative: 0, absolute: 1e-6 },
    build({ tile, random }) {
      const list = listOf(selection, tile);
      const type = tiled(selection.features, list.length);
      return {
        attributes: { columns: selection.tiles * tile },
        inputTypes: [type, indices(list.length)],
        inputs: [normals(random, type), list],
      };
    },
  };
}

Deno.test("selectColumns conforms", (t) => conform(t, selectColumns, selections.map(forwardCase)));

Deno.test("selectColumnsGradient conforms", (t) =>
  conform(t, selectColumnsGradient, selections.map(backwardCase)));

Deno.test("selectColumns has the gradient of its reference", () => {
  centralDifferences(selectColumns, {
    seed: 3,
    attributes: {},
    inputTypes: [tiled(3, 5), indices(6)],
    inputs: [Float64Array.from({ length: 15 }, (_, i) => i), Int32Array.of(4, -1, 0, 4, 2, -1)],
  });
});

Deno.test("selectColumns and its gradient reject bad shapes", () => {
  assert.throws(
    () => selectColumns.infer([rows(3, 8), indices(8)], {}),
    /Cannot apply selectColumns: wanted/,
  );
  assert.throws(() => selectColumns.infer([tiled(3, 8), undefined], {}), /found f32 tiled \[3, 8\], nothing/);
  assert.throws(
    () => selectColumnsGradient.infer([tiled(3, 8), indices(4)], { columns: 16 }),
    /Cannot apply selectColumnsGradient/,
  );
});
