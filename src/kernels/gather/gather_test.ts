/**
 * Gathering against a plain loop on every machine of this host.
 * @module
 */
import assert from "node:assert/strict";
import { indices, rows, tiled } from "../../graph/graph.ts";
import { conform, normals } from "../conformance.ts";
import { gatherValues } from "./operation.ts";

Deno.test("gatherValues agrees with its reference, NaN and infinity included", async (t) => {
  const sizes = [[1, 1], [5, 3], [3, 17], [40, 40], [100, 203], [1, 0]];
  await conform(
    t,
    gatherValues,
    sizes.map(([count, length]) => ({
      name: `${length} of ${count}`,
      seed: length,
      tolerance: { relative: 0, absolute: 0 },
      build({ random }) {
        const values = normals(random, rows(count));
        values[count - 1] = NaN;
        values[0] = -Infinity;
        const permutation = Int32Array.from({ length }, () => Math.floor(random.uniform() * count));
        return {
          attributes: {},
          inputTypes: [rows(count), indices(length)],
          inputs: [values, permutation],
        };
      },
    })),
  );
});

Deno.test("gatherValues names the operands it cannot take", () => {
  for (const inputs of [[rows(2), rows(2)], [rows(2, 2), indices(2)], [tiled(2, 2), indices(2)], [rows(2)]]) {
    assert.throws(() => gatherValues.infer(inputs, {}), /Cannot apply gatherValues: wanted f32 rows \[n\]/);
  }
});
