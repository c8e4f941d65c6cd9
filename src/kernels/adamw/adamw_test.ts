import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { indices, rows, type ValueType } from "../../graph/graph.ts";
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { runOperation } from "../conformance.ts";
import { adamwReference, type AdamwSettings } from "./reference.ts";
import { adamwScalarCount, adamwScalars, adamwSteps } from "./steps.ts";

const settings: AdamwSettings = {
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0.1,
};

Deno.test("the AdamW reference reproduces PyTorch", () => {
  // torch.optim.AdamW in float64, PyTorch 2.13: w₀ = (1, −2), learning rate 0.1, decay 0.1, after three steps.
  const golden: [beta2: number, weights: [number, number]][] = [
    [0.999, [0.7882008997, -1.9099595859]],
    [0.5, [0.7763568130, -1.9110726648]],
  ];
  const gradients = [[0.5, -1], [0.25, 2], [-0.75, 0.1]];
  for (const [beta2, wanted] of golden) {
    const state = {
      weights: Float64Array.of(1, -2),
      firstMoment: new Float64Array(2),
      secondMoment: new Float64Array(2),
    };
    gradients.forEach((gradient, i) => adamwReference(state, gradient, { ...settings, beta2 }, i + 1));
    wanted.forEach((value, i) => {
      const found = state.weights[i];
      assert(Math.abs(found - value) < 1e-9, `beta2 ${beta2}: w[${i}] is ${found}, wanted ${value}`);
    });
  }
});

interface Attributes {
  readonly masked: boolean;
}

/** Elements between weights, first and second moments in the state, which must stay what they are. */
const gap = 64;

/**
 * The step dressed as an operation, so that `runOperation` guards the memory. Its state, weights and moments with gaps
 * between them, is operand and result in one buffer; the other operands are gradients, scalars, norm and mask.
 */
const adamw: Operation<Attributes> = {
  name: "adamw",
  infer: ([state]) => [state!],
  reference: () => {
    throw new Error("The reference is adamwReference");
  },
  lower(
    { attributes: { masked }, inputs: [, gradients, scalars, norm, mask], outputs: [state], target },
  ) {
    const stride = state.type.shape[1];
    return adamwSteps({
      ranges: [{
        weights: state.address,
        firstMoment: state.address + 4 * stride,
        secondMoment: state.address + 8 * stride,
        gradients: gradients!.address,
        scalars: scalars!.address,
        mask: masked ? mask!.address : undefined,
        count: stride - gap,
      }],
      clip: norm!.address + 4,
      workers: target.workers,
    });
  },
};

interface Case {
  readonly name: string;
  readonly count: number;
  readonly step: number;
  readonly clip: number;
  readonly masked: boolean;
  readonly decay: boolean;
  /** Changes the operands before the step. */
  readonly change?: (state: Float32Array, gradients: Float32Array, stride: number) => void;
}

/** What sums that cancel may be off by: units in the last place of the operands of w and m; v only adds. */
const roundings = [2e-7, 4e-9, 0];

/** Words that keep about half of the elements; the first and last element of the range are pruned. */
function randomMask(random: RandomStream, count: number): Int32Array {
  const words = Int32Array.from({ length: Math.ceil(count / 32) }, () => random.below(2 ** 32));
  for (const index of [0, count - 1]) words[index >>> 5] &= ~(1 << (index & 31));
  return words;
}

function checkCase({ name, count, step, clip, masked, decay, change }: Case): void {
  const seed = 7;
  const random = new RandomStream(randomKey(seed, name));
  const stride = count + gap;
  const fill = (
    value: () => number,
  ) => [...Array.from({ length: count }, value), ...new Array(gap).fill(-77)];
  const state = Float32Array.from([
    ...fill(() => random.normal()),
    ...fill(() => 1e-2 * random.normal()),
    ...fill(() => 1e-4 * random.normal() ** 2),
  ]);
  const gradients = Float32Array.from({ length: count }, () => 0.01 * random.normal());
  change?.(state, gradients, stride);
  const mask = randomMask(random, count);
  const group = decay ? settings : { ...settings, weightDecay: 0 };

  const row = (array: ArrayLike<number>, index: number) =>
    Float64Array.from({ length: count }, (_, i) => array[index * stride + i]);
  const wanted = [0, 1, 2].map((index) => row(state, index));
  const [weights, firstMoment, secondMoment] = wanted;
  adamwReference(
    { weights, firstMoment, secondMoment },
    gradients,
    group,
    step,
    Math.fround(clip),
    masked ? new Uint32Array(mask.buffer) : undefined,
  );

  const inputTypes: ValueType[] = [
    rows(3, stride),
    rows(count),
    rows(adamwScalarCount),
    rows(2),
    indices(mask.length),
  ];
  const inputs: NumberArray[] = [state, gradients, adamwScalars(group, step), Float32Array.of(1, clip), mask];
  for (const machine of availableMachines()) {
    for (const workers of [1, 2, 3]) {
      const where = `adamw "${name}", ${count} elements, ${workers} workers on ${machine.isa}, seed ${seed}`;
      const options = { machine, tile: machine.lanes, workers, shared: [0, 0] as const };
      const [found] = runOperation(adamw, { masked }, inputs, inputTypes, options);
      wanted.forEach((values, part) => {
        values.forEach((value, i) => {
          const result = found[part * stride + i];
          const close = Object.is(result, Math.fround(value)) ||
            value !== 0 && Math.abs(result - value) <= 1e-6 * Math.abs(value) + roundings[part];
          assert(close, `${where}: ${["w", "m", "v"][part]}[${i}] is ${result}, wanted ${value}`);
        });
        assert(
          found.subarray(part * stride + count, (part + 1) * stride).every((value) => value === -77),
          `${where}: the gap after ${["w", "m", "v"][part]} changed`,
        );
      });
    }
  }
}

const plain: Case = { name: "plain", count: 517, step: 10, clip: 1, masked: false, decay: true };

Deno.test("the AdamW kernel agrees with its reference", () => {
  checkCase(plain);
  checkCase({
    ...plain,
    name: "first step from zero",
    step: 1,
    change: (state, _, stride) => {
      for (const part of [1, 2]) state.fill(0, part * stride, part * stride + 517);
    },
  });
  checkCase({ ...plain, name: "late step", step: 20_000 });
  checkCase({ ...plain, name: "clipped, no decay", clip: 0.37, decay: false });
  for (const count of [1, 3, 4, 31, 64, 65, 130]) checkCase({ ...plain, count });
});

Deno.test("the AdamW kernel zeroes what the mask prunes", () => {
  for (const count of [1, 31, 32, 33, 63, 64, 65, 96, 517]) checkCase({ ...plain, count, masked: true });
  checkCase({
    ...plain,
    name: "NaN under the mask",
    masked: true,
    change(state, gradients) {
      // The first and the last element are pruned in every mask of this test.
      gradients[0] = NaN;
      state[516] = Infinity;
    },
  });
});

Deno.test("the AdamW kernel flushes tiny moments and keeps elements apart", () => {
  checkCase({
    ...plain,
    name: "tiny moments and one NaN",
    change(state, gradients, stride) {
      gradients.fill(0, 10, 20);
      state.fill(9e-39, stride + 10, stride + 15);
      state.fill(-9e-39, stride + 15, stride + 20);
      state.fill(9e-39, 2 * stride + 10, 2 * stride + 20);
      gradients[40] = NaN;
    },
  });
});

Deno.test("the AdamW kernel changes nothing when the clip factor is not finite", () => {
  for (const clip of [NaN, Infinity]) {
    for (const masked of [false, true]) checkCase({ ...plain, name: `clip ${clip}`, clip, masked });
  }
});

Deno.test("AdamW is split between workers at whole words of the mask, across ranges", () => {
  const ranges = [1000, 5, 64, 333].map((count, index) => ({
    weights: (index + 1) << 20,
    gradients: 0,
    firstMoment: 0,
    secondMoment: 0,
    mask: (index + 9) << 20,
    scalars: 64,
    count,
  }));
  const [step] = adamwSteps({ ranges, clip: 4, workers: 3 });
  const found = step.calls.flat().map(({ kernel, words }) => {
    const value = (name: string) => words[Object.keys(kernel.arguments).indexOf(name)];
    const range = value("weights") >> 20;
    const from = (value("weights") - (range << 20)) / 4;
    assert.equal(from % 64, 0);
    assert.equal((value("mask") - ((range + 8) << 20)) * 8, from);
    return { range, from, count: value("count") };
  });
  assert.equal(step.calls.length, 3);
  ranges.forEach(({ count }, index) => {
    let next = 0;
    for (const call of found.filter(({ range }) => range === index + 1)) {
      assert.equal(call.from, next);
      next += call.count;
    }
    assert.equal(next, count);
  });
});
