/** What kernels and shaders of all rules are tested on: awkward sizes, masks, tiny states, NaN and ∞. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { optimizerDefaults, updateRule } from "./optimizers.ts";
import type { GroupStep, OptimizerSettings, UpdateRule } from "./rule.ts";

/** Every kernel there is: all rules with different keys. */
export const rules = [
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

/** Elements of the first range; the second has the rest. */
export const firstRange = 64;

/** The groups of the two ranges. */
const groups: readonly [GroupStep, GroupStep] = [
  { learningRate: 0.1, weightDecay: 0 },
  { learningRate: 0.1, weightDecay: 0.01 },
];

/** One step on two ranges. */
export interface UpdateCase {
  readonly name: string;
  readonly count: number;
  readonly step?: number;
  readonly clip?: number;
  readonly masked?: boolean;
  /** Whether all states are zero before the step. */
  readonly fresh?: boolean;
  /** Changes weights and states, and the gradients, before the step. */
  readonly change?: (parts: readonly Float32Array[], gradients: Float32Array) => void;
}

/** A case with its operands and what they become. */
export interface BuiltUpdate {
  readonly rule: UpdateRule;
  readonly masked: boolean;
  /** Weights, then the rule's states. */
  readonly parts: readonly Float32Array[];
  readonly gradients: Float32Array;
  /** The scalars blocks of the two ranges. */
  readonly scalars: readonly [Float32Array, Float32Array];
  /** The norm and the clip factor. */
  readonly norm: Float32Array;
  readonly mask: Uint32Array<ArrayBuffer>;
  readonly wanted: readonly Float64Array[];
  /** For messages. */
  readonly where: string;
}

/** What is true of every rule, and the cases that show it. */
const claims: Readonly<Record<string, readonly UpdateCase[]>> = {
  "agrees with its reference": [
    ...[1, 3, 31, 64, 65, 130, 517].map((count) => ({ name: "plain", count })),
    { name: "first step", count: 130, step: 1, fresh: true },
    { name: "late step", count: 130, step: 20_000 },
    { name: "clipped", count: 130, clip: 0.37 },
    { name: "whole vectors", count: 1344 },
  ],
  "zeroes what the mask prunes": [
    ...[1, 31, 32, 33, 65, 96, 517, 1344].map((count) => ({ name: "masked", count, masked: true })),
    ...[517, 516].map((count) => ({
      name: "NaN under the mask",
      count,
      masked: true,
      change(parts: readonly Float32Array[], gradients: Float32Array) {
        // The first and the last element are pruned in every mask of these cases.
        gradients[0] = NaN;
        for (const part of parts) part[count - 1] = Infinity;
      },
    })),
  ],
  "flushes tiny states and keeps elements apart": [130, 132].map((count) => ({
    name: "tiny states and one NaN",
    count,
    change([weights, ...states], gradients) {
      gradients.fill(0, 10, 20);
      weights.fill(0, 10, 20);
      // What is negative is no average of squares.
      states.forEach((state) => {
        const isSquare = state.every((value) => value >= 0);
        state.fill(9e-39, 10, 20);
        if (!isSquare) state.fill(-9e-39, 15, 20);
      });
      gradients[40] = NaN;
    },
  })),
  "changes nothing when the clip factor is not finite": [NaN, Infinity].flatMap((clip) =>
    [false, true].flatMap((masked) =>
      [97, 96].map((count) => ({ name: `clip ${clip}`, count, clip, masked }))
    )
  ),
};

/** What is true of rules whose root is of a variance. */
const varianceClaims: typeof claims = {
  "takes a variance that rounding took below zero for zero": [33, 36].map((count) => ({
    name: "variance below zero",
    count,
    change: ([, , average]) => average.fill(0.05),
  })),
};

/** What is true of a rule, and the cases that show it. */
export function claimsOf({ states }: UpdateRule): [claim: string, cases: readonly UpdateCase[]][] {
  return Object.entries({ ...claims, ...(states.includes("gradientAverage") ? varianceClaims : {}) });
}

/** Words that keep about half of the elements; the first and last element of the range are pruned. */
function randomMask(random: RandomStream, count: number): Uint32Array<ArrayBuffer> {
  const words = Uint32Array.from({ length: Math.ceil(count / 32) }, () => random.below(2 ** 32));
  for (const index of [0, count - 1]) words[index >>> 5] &= ~(1 << (index & 31));
  return words;
}

/** States as training leaves them: averages of squares are not negative, and not below the square of the average. */
function randomState(random: RandomStream, name: string): number {
  if (/second|square/i.test(name)) return 1e-4 * (1 + random.normal() ** 2);
  return 5e-3 * random.uniform() * (random.below(2) ? 1 : -1);
}

/** Makes the operands of a case, and takes the step in plain numbers. */
export function buildUpdate(
  rule: UpdateRule,
  { name, count, step = 10, clip = 1, ...rest }: UpdateCase,
): BuiltUpdate {
  const { masked = false, fresh = false, change } = rest;
  const seed = 7;
  const random = new RandomStream(randomKey(seed, name));
  const parts = ["weights", ...rule.states].map((part, index) =>
    Float32Array.from(
      { length: count },
      () => index === 0 ? random.normal() : fresh ? 0 : randomState(random, part),
    )
  );
  const gradients = Float32Array.from({ length: count }, () => 0.01 * random.normal());
  change?.(parts, gradients);
  const mask = randomMask(random, count);

  const wanted = parts.map((part) => Float64Array.from(part));
  rangesOf(count).forEach(({ from, to, group }) => {
    const [weights, ...states] = wanted.map((part) => part.subarray(from, to));
    const words = masked ? mask.subarray(from / 32) : undefined;
    const given = gradients.subarray(from, to);
    rule.reference({ weights, states }, given, groups[group], step, Math.fround(clip), words);
  });
  return {
    ...{ rule, masked, parts, gradients, mask, wanted },
    scalars: [rule.scalarsOf(groups[0], step), rule.scalarsOf(groups[1], step)],
    norm: Float32Array.of(1, clip),
    where: `${rule.key} "${name}", ${count} elements, seed ${seed}`,
  };
}

/** The ranges of so many elements: the second may be missing. */
export function rangesOf(
  count: number,
): { readonly from: number; readonly to: number; readonly group: 0 | 1 }[] {
  const first = { from: 0, to: Math.min(firstRange, count), group: 0 as const };
  return count > firstRange ? [first, { from: firstRange, to: count, group: 1 }] : [first];
}

/** Fails where weights or states after the step are not those of the reference. */
export function checkUpdate(
  { rule, parts, wanted, where }: BuiltUpdate,
  found: readonly Float32Array[],
  machine: string,
): void {
  // What sums that cancel may be off by: units in the last place of their operands. RMSprop's buffer has gradients
  // over a root of about 0.01.
  const stateRounding = /^rmsprop.*momentum/.test(rule.key) ? 2e-7 : 4e-9;
  wanted.forEach((values, part) => {
    values.forEach((value, i) => {
      const result = found[part][i];
      const rounding = part === 0 ? 2e-7 * Math.abs(parts[0][i]) : stateRounding;
      const close = Object.is(result, Math.fround(value)) ||
        value !== 0 && Math.abs(result - value) <= 1e-6 * Math.abs(value) + rounding;
      const name = ["weights", ...rule.states][part];
      assert.ok(close, `${where}, on ${machine}: ${name}[${i}] is ${result}, wanted ${value}`);
    });
  });
}
