/** Features by hand. */
import assert from "node:assert/strict";
import {
  featureCount,
  type FeatureOptions,
  featureVersions,
  groupFeatures,
  type GroupTensor,
} from "./features.ts";
import { measure } from "./statistics.ts";

/** g, m, v and w of a tensor. */
function tensor(
  [g, m, v, w]: readonly (readonly number[])[],
  { isBias = false, depth = 0 } = {},
): GroupTensor {
  const statistics = measure({
    gradients: Float64Array.from(g),
    firstMoment: Float64Array.from(m),
    secondMoment: Float64Array.from(v),
    weights: Float64Array.from(w),
  });
  return { statistics, isBias, depth };
}

// Norms of g 5 and 2, of m 13 and 0, of v 1 and 3, of w 2 and 4; cosines 63/65 and 0.
const first = [
  tensor([[3, 4], [5, 12], [0, 1], [2, 0]], { depth: 0.5 }),
  tensor([[2, 0, 0], [0, 0, 0], [3, 0, 0], [0, 0, 4]], { isBias: true, depth: 1 }),
];
const second = [tensor([[6], [-1], [2], [8]])];

const rowOf = (options: FeatureOptions, groups = [first], time = 0.25) => [
  ...groupFeatures(groups, options, time).values,
];

function assertClose(found: readonly number[], wanted: readonly number[]): void {
  assert.equal(found.length, wanted.length);
  found.forEach((value, i) =>
    assert.ok(
      Math.abs(value - wanted[i]) <= 1e-12 * (1 + Math.abs(wanted[i])),
      `${i}: ${value}, ${wanted[i]}`,
    )
  );
}

Deno.test("groupFeatures gives basic: mean norms of g, m, w, the mean cosine, v and time", () => {
  const basic = { features: "basic", secondMomentNorms: true, time: true } as const;
  assertClose(rowOf(basic), [3.5, 6.5, 3, 63 / 130, 2, 0.25]);
  assertClose(rowOf({ ...basic, secondMomentNorms: false, time: false }), [3.5, 6.5, 3, 63 / 130]);
});

Deno.test("groupFeatures gives basic_plus: deviations of the population behind the means", () => {
  const plus = { features: "basic_plus", secondMomentNorms: true, time: true } as const;
  assertClose(rowOf(plus), [3.5, 6.5, 3, 63 / 130, 2, 1.5, 6.5, 1, 63 / 130, 1, 0.25]);
  assertClose(rowOf(plus, [second]), [6, 1, 8, -1, 2, 0, 0, 0, 0, 0, 0.25]);
});

Deno.test("groupFeatures gives enhanced: means, variances, zeros, sizes, biases and depth", () => {
  const enhanced = { features: "enhanced", secondMomentNorms: true, time: true } as const;
  const sizes = (Math.log(3) + Math.log(4)) / 2;
  assertClose(rowOf(enhanced), [3.5, 2.25, 6.5, 42.25, 1 / 3, 0.5, sizes, 0.5, 0.75, 0.25]);
});

Deno.test("groupFeatures standardises norm_ versions by the sample, and leaves time and a single group alone", () => {
  const options = { features: "norm_basic", secondMomentNorms: false, time: true } as const;
  const found = rowOf(options, [first, second]);
  // Two values a distance d apart lie ±d/2 off their mean, their sample deviation is d/√2.
  const z = (d: number) => d / 2 / (Math.abs(d) / Math.SQRT2 + 1e-8);
  const row = [z(2.5), z(-5.5), z(5), z(-1 - 63 / 130)];
  assertClose(found, [...row.map((value) => -value), 0.25, ...row, 0.25]);
  assertClose(rowOf(options), [3.5, 6.5, 3, 63 / 130, 0.25]);
});

Deno.test("groupFeatures gives log: levels over all tensors as one, standardised by the population", () => {
  const options = { features: "log", secondMomentNorms: true, time: true } as const;
  const level = (squares: number, count = 5) => Math.log(1e-12 + Math.sqrt(squares / count));
  const row = [level(29), level(169), level(20), 63 / (Math.sqrt(29) * 13), level(10)];
  assertClose(rowOf(options), [...row, 0.25]);
  const other = [level(36, 1), level(1, 1), level(64, 1), -1, level(4, 1)];
  const z = row.map((value, i) => (value - other[i]) / 2 / Math.max(1e-3, Math.abs(value - other[i]) / 2));
  assertClose(rowOf(options, [first, second]), [...z, 0.25, ...z.map((value) => -value), 0.25]);
  // Columns that do not differ stay 0, and nothing is infinite at the first step, when moments are zero.
  const zero = tensor([[0], [0], [0], [0]]);
  assertClose(rowOf(options, [[zero], [zero]]), [0, 0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0, 0.25]);
});

Deno.test("featureCount is the number of columns, of every version", () => {
  for (const features of featureVersions) {
    for (const secondMomentNorms of [false, true]) {
      for (const time of [false, true]) {
        const options = { features, secondMomentNorms, time };
        assert.equal(groupFeatures([first, second], options, 0).columns, featureCount(options), features);
      }
    }
  }
});

Deno.test("measure leaves pruned elements out", () => {
  const array = (...values: number[]) => Float32Array.from(values);
  const found = measure({
    gradients: array(7, 0, 2),
    firstMoment: array(0, 0, 3),
    secondMoment: array(0, 1, 2),
    weights: array(0, 5, 1),
    mask: Uint32Array.of(0b110),
  });
  assert.deepEqual(found, {
    count: 2,
    gradientSquares: 4,
    firstMomentSquares: 9,
    secondMomentSquares: 5,
    weightSquares: 26,
    dot: 6,
    zeroGradients: 1,
    zeroMoments: 1,
  });
});
