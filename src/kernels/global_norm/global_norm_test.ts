import assert from "node:assert/strict";
import { indices, rows } from "../../graph/graph.ts";
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

/** The same of one range and its mask; what is masked out is NaN. */
const maskedNorm: Operation<Attributes> = {
  ...globalNorm,
  name: "maskedNorm",
  infer: ([range]) => globalNorm.infer([range], { maximumNorm: 0 }),
  reference([gradients, mask], node) {
    const kept = Float64Array.from(gradients!, (value, i) => (mask![i >> 5] >>> (i & 31)) & 1 ? value : 0);
    return globalNorm.reference([kept], node);
  },
  lower: ({ attributes: { maximumNorm }, inputs, outputs: [result, partials], target: { workers } }) =>
    globalNormSteps({
      gradients: [{
        address: inputs[0]!.address,
        count: inputs[0]!.type.shape[0],
        mask: inputs[1]!.address,
      }],
      partials: partials.address,
      result: result.address,
      maximumNorm,
      workers,
    }),
};

Deno.test("the norm of masked gradients conforms: what is pruned does not count, even NaN", (t) =>
  conform(
    t,
    maskedNorm,
    [32, 64, 480, chunkElements, chunkElements + 32, 3 * chunkElements + 96].map((count) => ({
      name: `${count} elements`,
      seed: count,
      tolerance: { relative: 3e-6, absolute: 0 },
      build({ random }) {
        const inputTypes = [rows(count), indices(count / 32)];
        const gradients = normals(random, inputTypes[0], 1e-3);
        const mask = Int32Array.from(
          { length: count / 32 },
          () => Math.floor(random.uniform() * 2 ** 32) | 0,
        );
        mask[0] = -1;
        for (let i = 32; i < count; i++) {
          if (!((mask[i >> 5] >>> (i & 31)) & 1) && random.uniform() < 0.1) gradients[i] = NaN;
        }
        return { attributes: { maximumNorm: 0.01 }, inputTypes, inputs: [gradients, mask] };
      },
    })),
  ));

Deno.test("the clip factor is PyTorch's", () => {
  const { norm, clip } = globalNormReference([[3], [4]], 1);
  assert.equal(norm, 5);
  assert.equal((3 * clip).toFixed(7), "0.5999999");
  assert.equal((4 * clip).toFixed(7), "0.7999998");
  assert.equal(globalNormReference([[3, 4]], 6).clip, 1);
});
