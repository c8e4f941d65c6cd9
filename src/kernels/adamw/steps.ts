/**
 * AdamW as steps of a plan. Not a graph operation: it updates parameters and their moments where they lie.
 *
 * A plan is made once and replayed every step, so everything that changes from step to step is read from the arena:
 * the scalars block (`adamwScalars`), and the clip factor that `globalNormSteps` leaves.
 * @module
 */
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { scalarWords } from "./emit.ts";
import { adamwKernel, adamwMaskedKernel } from "./kernel.ts";
import type { AdamwSettings } from "./reference.ts";

export type { AdamwSettings } from "./reference.ts";

/** Elements a worker's share is a multiple of: whole cache lines, and whole words of the mask. */
const grain = 64;

/** f32 elements of a scalars block. */
export const adamwScalarCount: number = scalarWords.length;

/** The content of a scalars block for a step, counted from 1. Powers and quotients are formed in float64. */
export function adamwScalars(settings: AdamwSettings, step: number): Float32Array {
  const { learningRate, beta1, beta2, epsilon, weightDecay } = settings;
  const values: Record<(typeof scalarWords)[number], number> = {
    decay: 1 - learningRate * weightDecay,
    stepSize: learningRate / (1 - beta1 ** step),
    inverseRootCorrection2: 1 / Math.sqrt(1 - beta2 ** step),
    oneMinusBeta1: 1 - beta1,
    beta2,
    oneMinusBeta2: 1 - beta2,
    epsilon,
  };
  return Float32Array.from(scalarWords, (word) => values[word]);
}

/** A range of parameters that share a scalars block. Addresses are bytes from the arena's start. */
export interface AdamwRange {
  /** Updated in place, as both moments are. */
  readonly weights: number;
  /** Only read. */
  readonly gradients: number;
  /** Running mean of the gradients. */
  readonly firstMoment: number;
  /** Running mean of their squares. */
  readonly secondMoment: number;
  /** Bitset of 32-bit words: element i is kept when bit i mod 32 of word ⌊i / 32⌋ is set. Absent: all are kept. */
  readonly mask?: number;
  /** A block of `adamwScalarCount` elements, filled with `adamwScalars` before the step runs. */
  readonly scalars: number;
  /** Elements of the range. */
  readonly count: number;
}

/** What to update. */
export interface AdamwRequest {
  /** Disjoint ranges, each with its own decay and mask. */
  readonly ranges: readonly AdamwRange[];
  /** Address of the f32 that gradients are multiplied by: the second element of `globalNormSteps`' result. */
  readonly clip: number;
  /** Workers that share the step. */
  readonly workers: number;
}

/**
 * One step that updates all ranges as `adamwReference` says. Pruned elements leave with w = m = v = 0, whatever their
 * gradient. When the clip factor is NaN or infinite (the global norm was not finite) nothing is changed at all.
 *
 * The ranges are laid end to end and split between the workers at multiples of 64 elements of a range.
 */
export function adamwSteps({ ranges, clip, workers }: AdamwRequest): Step[] {
  const unitsOf = (range: AdamwRange) => Math.ceil(range.count / grain);
  const units = ranges.reduce((sum, range) => sum + unitsOf(range), 0);
  const calls = splitRange(units, workers).map(({ begin, end }) => {
    const share: KernelCall[] = [];
    let firstUnit = 0;
    for (const range of ranges) {
      const from = grain * (Math.max(begin, firstUnit) - firstUnit);
      const to = Math.min(range.count, grain * (end - firstUnit));
      if (from < to) share.push(callRange(range, from, to, clip));
      firstUnit += unitsOf(range);
    }
    return share;
  });
  return [{ name: "adamw", calls }];
}

/** The call for elements [from, to) of a range. */
function callRange(range: AdamwRange, from: number, to: number, clip: number): KernelCall {
  const { mask } = range;
  return callKernel(mask === undefined ? adamwKernel : adamwMaskedKernel, {
    weights: range.weights + 4 * from,
    gradients: range.gradients + 4 * from,
    firstMoment: range.firstMoment + 4 * from,
    secondMoment: range.secondMoment + 4 * from,
    mask: mask === undefined ? 0 : mask + from / 8,
    scalars: range.scalars,
    clip,
    count: to - from,
  });
}
