/**
 * AdamW as steps of a plan. Not a graph operation: it updates parameters and their moments where they lie.
 *
 * A plan is made once and replayed every step, so everything that changes from step to step is read from the arena:
 * the scalars block (`adamwScalars`), and the clip factor that `globalNormSteps` leaves.
 * @module
 */
import { splitRange, type Step, type Target } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { adamwKernel, adamwMaskedKernel, scalarWords } from "./kernel.ts";
import type { AdamwSettings } from "./reference.ts";

export type { AdamwSettings } from "./reference.ts";

/** Elements a worker's share is a multiple of: whole cache lines, and whole words of the mask. */
const grain = 64;

/** f32 elements of a scalars block. */
export const adamwScalars: number = scalarWords.length;

/** Fills a scalars block for a step, counted from 1. Powers and quotients are formed in float64. */
export function writeAdamwScalars(
  block: Float32Array,
  settings: AdamwSettings & { readonly step: number },
): void {
  const { learningRate, beta1, beta2, epsilon, weightDecay, step } = settings;
  const values: Record<(typeof scalarWords)[number], number> = {
    decay: 1 - learningRate * weightDecay,
    noDecay: 1,
    stepSize: learningRate / (1 - beta1 ** step),
    inverseRootCorrection2: 1 / Math.sqrt(1 - beta2 ** step),
    oneMinusBeta1: 1 - beta1,
    beta2,
    oneMinusBeta2: 1 - beta2,
    epsilon,
  };
  block.set(scalarWords.map((word) => values[word]));
}

/** A range of parameters to update. Addresses are bytes from the arena's start. */
export interface AdamwRequest {
  readonly weights: number;
  readonly gradients: number;
  readonly firstMoment: number;
  readonly secondMoment: number;
  /** Bitset of 32-bit words: element i is kept when bit i mod 32 of word ⌊i / 32⌋ is set. Absent: all are kept. */
  readonly mask?: number;
  /** Elements of the range. */
  readonly count: number;
  /** Whether the weights decay. */
  readonly decay: boolean;
  /** A block of `adamwScalars` elements, filled by `writeAdamwScalars` before the step runs. */
  readonly scalars: number;
  /** The result of `globalNormSteps`: gradients are multiplied by its clip factor. */
  readonly norm: number;
  readonly target: Pick<Target, "workers">;
}

/**
 * One step that updates a range as `adamwReference` says. Pruned elements leave with w = m = v = 0, whatever their
 * gradient. When the clip factor is NaN or infinite (the global norm was not finite) nothing is changed at all.
 */
export function adamwSteps(request: AdamwRequest): Step[] {
  const { weights, gradients, firstMoment, secondMoment, mask, count, decay, scalars, norm, target } =
    request;
  const kernel = mask === undefined ? adamwKernel : adamwMaskedKernel;
  const calls = splitRange(count, target.workers, grain).map(({ begin, end }) =>
    begin === end ? [] : [callKernel(kernel, {
      weights: weights + 4 * begin,
      gradients: gradients + 4 * begin,
      firstMoment: firstMoment + 4 * begin,
      secondMoment: secondMoment + 4 * begin,
      mask: (mask ?? 0) + begin / 8,
      scalars,
      decay: scalars + 4 * scalarWords.indexOf(decay ? "decay" : "noDecay"),
      clip: norm + 4,
      count: end - begin,
    })]
  );
  return [{ name: "adamw", calls }];
}
