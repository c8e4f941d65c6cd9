import assert from "node:assert/strict";
import { rows, type ValueType } from "../../graph/graph.ts";
import type { Operation } from "../../graph/operation.ts";
import { conform, type ConformanceCase, normals } from "../conformance.ts";
import { movementReference } from "./reference.ts";
import { movementSteps } from "./steps.ts";

interface Attributes {
  readonly isPenalized: boolean;
}

/** The step dressed as an operation: operands are gradients, weights, dormant weights, scores and the penalty. */
const movement: Operation<Attributes> = {
  name: "movement",
  infer: ([gradients]) => [gradients!],
  reference([gradients, weights, dormant, scores, penalty], { attributes: { isPenalized } }) {
    const operands = { gradients: gradients!, weights: weights!, dormant: dormant!, scores: scores! };
    return [
      isPenalized
        ? movementReference(operands, penalty![0], Math.fround(1 / gradients!.length))
        : movementReference(operands),
    ];
  },
  lower: ({ attributes: { isPenalized }, inputs, outputs: [target], target: { workers } }) => {
    const [gradients, weights, dormant, scores, penalty] = inputs.map((input) => input!.address);
    const count = target.type.shape[0];
    return movementSteps({
      ranges: [{ gradients, weights, dormant, scores, target: target.address, count }],
      penalty: isPenalized ? penalty : undefined,
      workers,
    });
  },
};

function makeCase(
  name: string,
  count: number,
  isPenalized: boolean,
  change: (gradients: Float32Array, weights: Float32Array, scores: Float32Array) => void = () => {},
): ConformanceCase<Attributes> {
  return {
    name: `${name}, ${count} elements${isPenalized ? ", penalized" : ""}`,
    seed: count,
    tolerance: { relative: 1e-6, absolute: isPenalized ? 2e-5 / count : 0 },
    build({ random }) {
      const type = rows(count);
      const inputTypes: ValueType[] = [type, type, type, type, rows(1)];
      const [gradients, weights, dormant] = [0.01, 1, 1].map((scale) => normals(random, type, scale));
      const scores = normals(random, type, 3);
      for (let index = 0; index < count; index++) (index % 3 ? dormant : weights)[index] = 0;
      change(gradients, weights, scores);
      const inputs = [gradients, weights, dormant, scores, Float32Array.of(40)];
      return { attributes: { isPenalized }, inputTypes, inputs };
    },
  };
}

Deno.test("the gradient of scores conforms", (t) =>
  conform(
    t,
    movement,
    [false, true].flatMap((isPenalized) => [
      ...[1, 3, 16, 63, 64, 65, 517].map((count) => makeCase("plain", count, isPenalized)),
      makeCase("far scores", 200, isPenalized, (_gradients, _weights, scores) => {
        scores.set([100, -100, 30, -30, Infinity, -Infinity, 0]);
      }),
      makeCase("NaN and infinity stay where they are", 90, isPenalized, (gradients, weights, scores) => {
        gradients[0] = NaN;
        gradients[89] = Infinity;
        weights[64] = -Infinity;
        if (isPenalized) scores[33] = NaN;
      }),
    ]),
  ));

/** A loss of masked weights in f64, and its gradient by them. */
const target = Float64Array.of(0.5, -1, 2, 0.25, -0.75, 1.5);
const lossOf = (masked: ArrayLike<number>) =>
  target.reduce((sum, value, index) => sum + (masked[index] - value) ** 2 * (1 + index), 0);
const gradientOf = (masked: Float64Array) =>
  masked.map((value, index) => 2 * (value - target[index]) * (1 + index));

Deno.test("the gradient of scores is that of the loss by a mask of numbers, and of the penalty, by central differences", () => {
  const all = Float64Array.of(1, -0.5, 0.3, 2, -1, 0.1);
  const mask = Float64Array.of(1, 0, 1, 0, 0, 1);
  const scores = Float64Array.of(0, 1, -2, 0.5, 3, -0.25);
  const [penalty, share] = [0.7, 1 / 6];
  const found = movementReference(
    {
      gradients: gradientOf(all.map((value, index) => value * mask[index])),
      weights: all.map((value, index) => value * mask[index]),
      dormant: all.map((value, index) => value * (1 - mask[index])),
      scores,
    },
    penalty,
    share,
  );
  // Straight through: the mask counts as a number that the score is added to.
  const valueAt = (index: number, change: number) => {
    const masked = all.map((value, at) => value * (mask[at] + (at === index ? change : 0)));
    const sigmoids = scores.map((score, at) => 1 / (1 + Math.exp(-score - (at === index ? change : 0))));
    return lossOf(masked) + penalty * share * sigmoids.reduce((sum, value) => sum + value, 0);
  };
  found.forEach((value, index) => {
    const wanted = (valueAt(index, 1e-5) - valueAt(index, -1e-5)) / 2e-5;
    assert.ok(Math.abs(value - wanted) < 1e-8, `dS[${index}] is ${value}, wanted ${wanted}`);
  });
});

Deno.test("matrices share the penalty alike, whatever their sizes, and workers share each", () => {
  const range = { gradients: 0, weights: 0, dormant: 0, scores: 0, target: 0 };
  const [{ calls }] = movementSteps({
    ranges: [{ ...range, count: 100 }, { ...range, count: 300 }],
    penalty: 4,
    workers: 2,
  });
  const shares = calls.flat().map(({ kernel, words }) => {
    const word = (name: string) => words[Object.keys(kernel.arguments).indexOf(name)];
    return [word("target") / 4, word("count"), new Float32Array(Int32Array.of(word("share")).buffer)[0]];
  });
  const [small, large] = [1 / 200, 1 / 600].map(Math.fround);
  assert.deepEqual(shares, [[0, 64, small], [0, 128, large], [64, 36, small], [128, 172, large]]);
});
