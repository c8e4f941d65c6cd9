/**
 * The sum over columns against plain loops, on every machine of this host.
 * @module
 */
import assert from "node:assert/strict";
import { rows, tiled } from "../../graph/graph.ts";
import { conform, type ConformanceCase, normals, padColumns } from "../conformance.ts";
import { sumColumns } from "./operation.ts";

function sumCase(features: number, special: boolean): ConformanceCase<Record<never, never>> {
  return {
    name: `${features} rows${special ? " with NaN and infinities" : ""}`,
    seed: features,
    tolerance: { relative: 1e-6, absolute: 1e-5 },
    build({ tile, random }) {
      const columns = padColumns(3 * tile - 1, tile);
      const type = tiled(features, columns);
      const gradY = normals(random, type);
      if (special) {
        gradY[1] = NaN;
        gradY[2 * columns + 5] = Infinity;
        gradY[3 * columns - 1] = -Infinity;
        gradY[4 * columns - 1] = -Infinity;
      }
      return { attributes: {}, inputTypes: [type], inputs: [gradY] };
    },
  };
}

Deno.test("sumColumns agrees with its reference at awkward sizes", async (t) => {
  await conform(t, sumColumns, [1, 2, 3, 5, 8, 17, 33, 64, 100].map((features) => sumCase(features, false)));
});

Deno.test("sumColumns keeps NaN and infinity in their own rows", async (t) => {
  await conform(t, sumColumns, [sumCase(9, true)]);
});

Deno.test("sumColumns names the operand it cannot take", () => {
  assert.throws(() => sumColumns.infer([rows(3, 4)], {}), /Cannot apply sumColumns: wanted f32 tiled/);
});
