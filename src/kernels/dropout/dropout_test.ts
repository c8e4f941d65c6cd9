import assert from "node:assert/strict";
import { indices, rows, tiled } from "../../graph/graph.ts";
import { centralDifferences, conform, type ConformanceCase, normals } from "../conformance.ts";
import { dropout, type DropoutAttributes } from "./operation.ts";
import { dropoutReference } from "./reference.ts";

function shapeCase(
  name: string,
  rate: number,
  features: number,
  columnsOf: (tile: number) => number,
): ConformanceCase<DropoutAttributes> {
  return {
    name,
    seed: 3,
    // The scale is rounded once, the product once.
    tolerance: { relative: 1.3e-7, absolute: 0 },
    build({ tile, random }) {
      const type = tiled(features, columnsOf(tile));
      const seed = Int32Array.of(random.below(2 ** 32) | 0, random.below(2 ** 32) | 0);
      return {
        attributes: { rate, stream: 1 + random.below(100) },
        inputTypes: [type, indices(2)],
        inputs: [normals(random, type), seed],
      };
    },
  };
}

Deno.test("dropout conforms", (t) =>
  conform(t, dropout, [
    shapeCase("one feature", 0.1, 1, (tile) => tile),
    shapeCase("rows that end in the middle of a tile", 0.1, 37, (tile) => 3 * tile),
    shapeCase("half dropped", 0.5, 8, (tile) => 2 * tile),
    shapeCase("nothing dropped", 0, 5, (tile) => tile),
    shapeCase("nearly all dropped", 0.99, 5, (tile) => 4 * tile),
    {
      name: "NaN and infinities stay where they are",
      seed: 4,
      tolerance: { relative: 1.3e-7, absolute: 0 },
      build({ tile, random }) {
        const type = tiled(9, tile);
        const x = normals(random, type).map((value, i) =>
          i % 5 === 0 ? [NaN, Infinity, -Infinity][i % 3] : value
        );
        return {
          attributes: { rate: 0.3, stream: 0 },
          inputTypes: [type, indices(2)],
          inputs: [x, Int32Array.of(-1, 7)],
        };
      },
    },
  ]));

Deno.test("dropout has the gradient of its reference", () => {
  const type = tiled(4, 6);
  centralDifferences(dropout, {
    seed: 1,
    attributes: { rate: 0.4, stream: 5 },
    inputTypes: [type, indices(2)],
    inputs: [Float64Array.from({ length: 24 }, (_, i) => Math.sin(i)), Int32Array.of(1, 2)],
  });
});

Deno.test("dropout drops the wanted share, differently in each stream and seed, and keeps the mean", () => {
  const [features, columns, rate] = [64, 512, 0.1];
  const ones = new Float64Array(features * columns).fill(1);
  const draw = (stream: number, low: number, high: number) =>
    dropoutReference(ones, Int32Array.of(low, high), { rate, stream }, features, columns);
  const base = draw(0, 1, 2);
  const dropped = base.filter((value) => value === 0).length / ones.length;
  const deviation = Math.sqrt(rate * (1 - rate) / ones.length);
  assert(Math.abs(dropped - rate) < 5 * deviation, `dropped ${dropped}, wanted ${rate} ± ${5 * deviation}`);
  for (const other of [draw(1, 1, 2), draw(0, 2, 2), draw(0, 1, 3)]) {
    const both = base.filter((value, i) => value === 0 && other[i] === 0).length / ones.length;
    assert(Math.abs(both - rate ** 2) < 5 * rate / Math.sqrt(ones.length), `dropped in both: ${both}`);
  }
});

Deno.test("dropout rejects bad rates and shapes", () => {
  const types = [tiled(4, 8), indices(2)];
  for (const rate of [-0.1, 1, NaN]) {
    assert.throws(() => dropout.infer(types, { rate, stream: 0 }), /rate is .*, wanted 0 ≤ rate < 1/);
  }
  assert.throws(
    () => dropout.infer([rows(4, 8), indices(2)], { rate: 0.1, stream: 0 }),
    /Cannot apply dropout/,
  );
  assert.throws(
    () => dropout.infer([tiled(4, 8), indices(3)], { rate: 0.1, stream: 0 }),
    /Cannot apply dropout/,
  );
});
