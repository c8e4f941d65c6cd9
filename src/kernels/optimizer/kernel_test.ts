/** The kernels of all rules against their references: awkward sizes, masks, NaN and ∞, one or several workers. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import { indices, rows, type ValueType } from "../../graph/graph.ts";
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { runOperation } from "../conformance.ts";
import { firstBitDifference } from "../run_operation.ts";
import { optimizerDefaults, updateRule } from "./optimizers.ts";
import type { GroupStep, OptimizerSettings, UpdateRule } from "./rule.ts";
import { updateSteps } from "./steps.ts";

/** Every kernel there is: all rules with different keys. */
const rules = [
  ...(["adamw", "adam"] as const).flatMap((name) =>
    [false, true].map((amsgrad) => ({ ...optimizerDefaults(name), amsgrad }))
  ),
  ...[[0, false], [0.9, false], [0.9, true]].map(([momentum, nesterov]) => (
    { ...optimizerDefaults("sgd"), momentum, nesterov, dampening: momentum && !nesterov ? 0.25 : 0 }
  )),
  ...[[false, 0], [true, 0], [false, 0.9], [true, 0.9]].map(([centered, momentum]) => (
    { ...optimizerDefaults("rmsprop"), centered, momentum }
  )),
].map((settings) => updateRule(settings as OptimizerSettings));

/** Elements between weights and states, which must stay what they are. */
const gap = 64;

interface Attributes {
  readonly rule: UpdateRule;
  readonly masked: boolean;
}

/**
 * The step dressed as an operation, so that `runOperation` guards the memory. Its state, weights and the rule's states
 * with gaps between them, is operand and result in one buffer; the other operands are gradients, the scalars of two
 * groups, norm and mask. The first 64 elements are a range of their own: the first group.
 */
const update: Operation<Attributes> = {
  name: "update",
  infer: ([state]) => [state!],
  reference: () => {
    throw new Error("The reference is UpdateRule.reference");
  },
  lower(
    { attributes: { rule, masked }, inputs: [, gradients, scalars, norm, mask], outputs: [state], target },
  ) {
    const stride = state.type.shape[1];
    const count = stride - gap;
    const first = Math.min(64, count);
    const range = (group: number, from: number, to: number) => ({
      weights: state.address + 4 * from,
      states: rule.states.map((_, index) => state.address + 4 * (stride * (index + 1) + from)),
      gradients: gradients!.address + 4 * from,
      scalars: scalars!.address + 4 * group * rule.scalars.length,
      mask: masked ? mask!.address + from / 8 : undefined,
      count: to - from,
    });
    return updateSteps({
      rule,
      ranges: count > 64 ? [range(0, 0, first), range(1, 64, count)] : [range(0, 0, first)],
      clip: norm!.address + 4,
      workers: target.workers,
    });
  },
};

const groups: readonly [GroupStep, GroupStep] = [
  { learningRate: 0.1, weightDecay: 0 },
  { learningRate: 0.1, weightDecay: 0.01 },
];

interface Case {
  readonly count: number;
  readonly step?: number;
  readonly clip?: number;
  readonly masked?: boolean;
  /** Whether all states are zero before the step. */
  readonly fresh?: boolean;
  /** Changes the operands before the step; `parts` are views of weights and states. */
  readonly change?: (parts: readonly Float32Array[], gradients: Float32Array) => void;
}

/** Words that keep about half of the elements; the first and last element of the range are pruned. */
function randomMask(random: RandomStream, count: number): Int32Array {
  const words = Int32Array.from({ length: Math.ceil(count / 32) }, () => random.below(2 ** 32));
  for (const index of [0, count - 1]) words[index >>> 5] &= ~(1 << (index & 31));
  return words;
}

/** States as training leaves them: averages of squares are not negative, and not below the square of the average. */
function randomState(random: RandomStream, name: string): number {
  if (/second|square/i.test(name)) return 1e-4 * (1 + random.normal() ** 2);
  return 5e-3 * random.uniform() * (random.below(2) ? 1 : -1);
}

function checkCase(rule: UpdateRule, name: string, { count, step = 10, clip = 1, ...rest }: Case): void {
  const { masked = false, fresh = false, change } = rest;
  const seed = 7;
  const random = new RandomStream(randomKey(seed, name));
  const stride = count + gap;
  const partNames = ["weights", ...rule.states];
  const state = new Float32Array(stride * partNames.length).fill(-77);
  const partOf = (array: NumberArray, index: number) =>
    array.subarray(index * stride, index * stride + count);
  const parts = partNames.map((_, index) => partOf(state, index) as Float32Array);
  partNames.forEach((partName, index) => {
    const value = () => index === 0 ? random.normal() : fresh ? 0 : randomState(random, partName);
    parts[index].forEach((_, i) => parts[index][i] = value());
  });
  const gradients = Float32Array.from({ length: count }, () => 0.01 * random.normal());
  change?.(parts, gradients);
  const mask = randomMask(random, count);
  const words = new Uint32Array(mask.buffer);

  const before = parts.map((part) => Float64Array.from(part));
  const wanted = parts.map((part) => Float64Array.from(part));
  [[0, Math.min(64, count)], [64, count]].forEach(([from, to], group) => {
    if (from >= to) return;
    const [weights, ...states] = wanted.map((part) => part.subarray(from, to));
    const range = masked ? words.subarray(from / 32) : undefined;
    const given = gradients.subarray(from, to);
    rule.reference({ weights, states }, given, groups[group], step, Math.fround(clip), range);
  });

  const scalars = Float32Array.from(groups.flatMap((group) => [...rule.scalarsOf(group, step)]));
  const inputs: NumberArray[] = [state, gradients, scalars, Float32Array.of(1, clip), mask];
  const inputTypes: ValueType[] = [
    rows(partNames.length, stride),
    rows(count),
    rows(scalars.length),
    rows(2),
    indices(mask.length),
  ];
  for (const machine of availableMachines()) {
    const run = (workers: number) => {
      const options = { machine, tile: machine.lanes, workers, shared: [0, 0] as const };
      return runOperation(update, { rule, masked }, inputs, inputTypes, options)[0];
    };
    const where = `${rule.key} "${name}", ${count} elements, on ${machine.isa}, seed ${seed}`;
    const found = run(1);
    for (const workers of [2, 3]) {
      assert.equal(
        firstBitDifference(run(workers), found),
        -1,
        `${where}: ${workers} workers differ from one`,
      );
    }
    // What sums that cancel may be off by: units in the last place of their operands. RMSprop's buffer has gradients
    // over a root of about 0.01.
    const stateRounding = /^rmsprop.*momentum/.test(rule.key) ? 2e-7 : 4e-9;
    wanted.forEach((values, part) => {
      const results = partOf(found, part);
      values.forEach((value, i) => {
        const rounding = part === 0 ? 2e-7 * Math.abs(before[0][i]) : stateRounding;
        const close = Object.is(results[i], Math.fround(value)) ||
          value !== 0 && Math.abs(results[i] - value) <= 1e-6 * Math.abs(value) + rounding;
        assert.ok(close, `${where}: ${partNames[part]}[${i}] is ${results[i]}, wanted ${value}`);
      });
      const after = found.subarray(part * stride + count, (part + 1) * stride);
      assert.ok(after.every((value) => value === -77), `${where}: the gap after ${partNames[part]} changed`);
    });
  }
}

for (const rule of rules) {
  Deno.test(`the kernel of ${rule.key} agrees with its reference`, () => {
    for (const count of [1, 3, 31, 64, 65, 130, 517]) checkCase(rule, "plain", { count });
    checkCase(rule, "first step", { count: 130, step: 1, fresh: true });
    checkCase(rule, "late step", { count: 130, step: 20_000 });
    checkCase(rule, "clipped", { count: 130, clip: 0.37 });
  });

  Deno.test(`the kernel of ${rule.key} zeroes what the mask prunes`, () => {
    for (const count of [1, 31, 32, 33, 65, 96, 517]) checkCase(rule, "masked", { count, masked: true });
    checkCase(rule, "NaN under the mask", {
      count: 517,
      masked: true,
      change(parts, gradients) {
        // The first and the last element are pruned in every mask of this test.
        gradients[0] = NaN;
        for (const part of parts) part[516] = Infinity;
      },
    });
  });

  Deno.test(`the kernel of ${rule.key} flushes tiny states and keeps elements apart`, () => {
    checkCase(rule, "tiny states and one NaN", {
      count: 130,
      change([weights, ...states], gradients) {
        gradients.fill(0, 10, 20);
        weights.fill(0, 10, 20);
        rule.states.forEach((name, index) => {
          states[index].fill(9e-39, 10, 20);
          if (!/second|square/i.test(name)) states[index].fill(-9e-39, 15, 20);
        });
        gradients[40] = NaN;
      },
    });
  });

  Deno.test(`the kernel of ${rule.key} changes nothing when the clip factor is not finite`, () => {
    for (const clip of [NaN, Infinity]) {
      for (const masked of [false, true]) checkCase(rule, `clip ${clip}`, { count: 97, clip, masked });
    }
  });
}

Deno.test("a variance that rounding took below zero is zero in the kernels too", () => {
  for (const rule of rules.filter(({ states }) => states.includes("gradientAverage"))) {
    checkCase(rule, "variance below zero", { count: 33, change: ([, , average]) => average.fill(0.05) });
  }
});

Deno.test("a step is split between workers at whole words of the mask, and no element is left out or done twice", () => {
  const rule = updateRule(optimizerDefaults("adamw"));
  const counts = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 8 });
  fc.assert(fc.property(counts, fc.integer({ min: 1, max: 9 }), (counts, workers) => {
    const place = (index: number) => (index + 1) << 20;
    const ranges = counts.map((count, index) => ({
      weights: place(index),
      states: [0, 0],
      gradients: 0,
      mask: place(index) + 2 ** 16,
      scalars: 64,
      count,
    }));
    const [{ calls }] = updateSteps({ rule, ranges, clip: 4, workers });
    assert.equal(calls.length, workers);
    const next = counts.map(() => 0);
    for (const { kernel, words } of calls.flat()) {
      const value = (name: string) => words[Object.keys(kernel.arguments).indexOf(name)];
      const index = (value("weights") >> 20) - 1;
      const from = (value("weights") - place(index)) / 4;
      assert.equal(from, next[index]);
      assert.equal(from % 64, 0);
      assert.equal(value("mask"), place(index) + 2 ** 16 + from / 8);
      next[index] += value("count");
    }
    assert.deepEqual(next, counts);
  }));
});

Deno.test("a range without the states of the rule is refused", () => {
  const rule = updateRule(optimizerDefaults("adamw"));
  const range = { weights: 0, gradients: 0, states: [0], scalars: 0, count: 1 };
  assert.throws(
    () => updateSteps({ rule, ranges: [range], clip: 0, workers: 1 }),
    new RangeError("Cannot update with adamw: a range has 1 states, wanted 2 firstMoment secondMoment"),
  );
});
