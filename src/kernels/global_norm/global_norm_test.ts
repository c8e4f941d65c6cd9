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

/** The steps dressed as an operation of operand gradients [count], for the conformance suite. */
const globalNorm: Operation<Attributes> = {
  name: "globalNorm",
  infer: ([gradients]) => [rows(2), rows(globalNormPartials(gradients!.shape[0]))],
  reference([gradients], { attributes: { maximumNorm }, outputTypes }) {
    const { norm, clip } = globalNormReference(gradients!, maximumNorm);
    const partials = Float64Array.from(
      { length: outputTypes[1].shape[0] },
      (_, chunk) =>
        globalNormReference(gradients!.subarray(chunk * chunkElements, (chunk + 1) * chunkElements), 0)
          .norm ** 2,
    );
    return [Float64Array.of(norm, clip), partials];
  },
  lower: ({ attributes: { maximumNorm }, inputs: [gradients], outputs: [result, partials], target }) =>
    globalNormSteps({
      gradients: gradients!.address,
      count: gradients!.type.shape[0],
      partials: partials.address,
      result: result.address,
      maximumNorm,
      target,
    }),
};

function makeCase(
  name: string,
  count: number,
  maximumNorm: number,
  change: (gradients: Float32Array) => void = () => {},
): ConformanceCase<Attributes> {
  return {
    name: `${name}, ${count} elements`,
    seed: count,
    // 16 sums of 1024 squares in a chunk: a relative error of about √1024 · 2⁻²⁴, seen below 2e-6.
    tolerance: { relative: 3e-6, absolute: 0 },
    build({ random }) {
      const gradients = normals(random, rows(count), 1e-3);
      change(gradients);
      return { attributes: { maximumNorm }, inputTypes: [rows(count)], inputs: [gradients] };
    },
  };
}

Deno.test("the global norm and its clip factor conform", (t) =>
  conform(t, globalNorm, [
    makeCase("one element", 1, 1),
    makeCase("less than a vector", 3, 1e-3),
    makeCase("a whole chunk", chunkElements, 1),
    makeCase("chunks and a bit", 3 * chunkElements + 37, 0.01),
    makeCase("one element in the last chunk", 2 * chunkElements + 1, 0.01),
    makeCase("no clipping", 1000, 0),
    makeCase("all zero", 100, 1, (gradients) => gradients.fill(0)),
    makeCase("NaN in one element", chunkElements + 5, 1, (gradients) => gradients[7] = NaN),
    makeCase("NaN without clipping", 77, 0, (gradients) => gradients[76] = NaN),
    makeCase("infinity in the tail", chunkElements + 5, 1, (gradients) =>
      gradients[chunkElements + 4] = -Infinity),
  ]));

Deno.test("the clip factor is PyTorch's", () => {
  const { norm, clip } = globalNormReference([3, 4], 1);
  assert.equal(norm, 5);
  assert.equal((3 * clip).toFixed(7), "0.5999999");
  assert.equal((4 * clip).toFixed(7), "0.7999998");
  assert.equal(globalNormReference([3, 4], 6).clip, 1);
});
