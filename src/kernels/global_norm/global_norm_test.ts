import assert from "node:assert/strict";
import { rows } from "../../graph/graph.ts";
import type { Operation } from "../../graph/operation.ts";
import { conform, type ConformanceCase, normals } from "../conformance.ts";
import { chunkElements } from "./kernel.ts";
import { globalNormReference } from "./reference.ts";
import { globalNormPartials, globalNormSteps } from "./steps.ts";

interface Attributes {
  readonly maximumNorm: number;
}

/** The steps dressed as an operation for the conformance suite: each operand is a range of gradients. */
const globalNorm: Operation<Attributes> = {
  name: "globalNorm",
  infer: (ranges) => [
    rows(2),
    rows(globalNormPartials(ranges.map((range) => ({ address: 0, count: range!.shape[0] })))),
  ],
  reference(inputs, { attributes: { maximumNorm } }) {
    const ranges = inputs.map((input) => input!);
    const { norm, clip } = globalNormReference(ranges, maximumNorm);
    const partials: number[] = [];
    for (const range of ranges) {
      for (let begin = 0; begin < range.length; begin += chunkElements) {
        let sum = 0;
        for (const value of range.subarray(begin, begin + chunkElements)) sum += value ** 2;
        partials.push(sum);
      }
    }
    return [Float64Array.of(norm, clip), Float64Array.from(partials)];
  },
  lower: ({ attributes: { maximumNorm }, inputs, outputs: [result, partials], target: { workers } }) =>
    globalNormSteps({
      gradients: inputs.map((range) => ({ address: range!.address, count: range!.type.shape[0] })),
      partials: partials.address,
      result: result.address,
      maximumNorm,
      workers,
    }),
};

function makeCase(
  name: string,
  counts: readonly number[],
  maximumNorm: number,
  change: (gradients: readonly Float32Array[]) => void = () => {},
): ConformanceCase<Attributes> {
  return {
    name: `${name}, ${counts} elements`,
    seed: counts[0],
    // 16 sums of 1024 squares in a chunk: a relative error of about √1024 · 2⁻²⁴, seen below 2e-6.
    tolerance: { relative: 3e-6, absolute: 0 },
    build({ random }) {
      const inputTypes = counts.map((count) => rows(count));
      const inputs = inputTypes.map((type) => normals(random, type, 1e-3));
      change(inputs);
      return { attributes: { maximumNorm }, inputTypes, inputs };
    },
  };
}

Deno.test("the global norm and its clip factor conform", (t) =>
  conform(t, globalNorm, [
    makeCase("one element", [1], 1),
    makeCase("less than a vector", [3], 1e-3),
    makeCase("a whole chunk", [chunkElements], 1),
    makeCase("chunks and a bit", [3 * chunkElements + 37], 0.01),
    makeCase("one element in the last chunk", [2 * chunkElements + 1], 0.01),
    makeCase("several ranges", [5, 2 * chunkElements + 9, 1, 64], 0.01),
    makeCase("no clipping", [1000], 0),
    makeCase("all zero", [100], 1, ([range]) => range.fill(0)),
    makeCase("NaN in one element", [20, chunkElements + 5], 1, ([, range]) => range[7] = NaN),
    makeCase("NaN without clipping", [77], 0, ([range]) => range[76] = NaN),
    makeCase(
      "infinity in the tail",
      [chunkElements + 5],
      1,
      ([range]) => range[chunkElements + 4] = -Infinity,
    ),
  ]));

Deno.test("the clip factor is PyTorch's", () => {
  const { norm, clip } = globalNormReference([[3], [4]], 1);
  assert.equal(norm, 5);
  assert.equal((3 * clip).toFixed(7), "0.5999999");
  assert.equal((4 * clip).toFixed(7), "0.7999998");
  assert.equal(globalNormReference([[3, 4]], 6).clip, 1);
});
