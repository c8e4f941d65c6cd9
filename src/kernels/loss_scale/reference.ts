/**
 * The scale of the loss in training with float16 activations (Micikevicius et al., arXiv 1710.03740, §3.2).
 *
 * Gradients smaller than 2⁻²⁴ vanish in float16, and most are; so the backward pass starts from a larger number, and the update
 * divides by it. It is as large as goes: it falls when gradients overflow, which costs a step, and rises when they have not for
 * long. The constants are those of PyTorch's `GradScaler`, the bounds those of Apex.
 * @module
 */

/** The scale of the next step, and how many steps in a row had finite gradients since it changed. */
export interface LossScale {
  readonly scale: number;
  readonly goodSteps: number;
}

/** Steps without an overflow after which the scale doubles. */
export const stepsToGrow = 2000;

/** Where a run begins. Powers of two change no bit of a gradient that neither overflows nor vanishes. */
export const initialLossScale: LossScale = { scale: 2 ** 16, goodSteps: 0 };

/** The scale does not fall below: gradients that overflow then are the model's own. */
export const smallestLossScale = 1;

/** Nor does it rise above. */
export const largestLossScale = 2 ** 24;

/** What follows from a step whose gradients were finite, or not. */
export function nextLossScale({ scale, goodSteps }: LossScale, isFinite: boolean): LossScale {
  if (!isFinite) return { scale: Math.max(scale / 2, smallestLossScale), goodSteps: 0 };
  if (goodSteps + 1 < stepsToGrow) return { scale, goodSteps: goodSteps + 1 };
  return { scale: Math.min(2 * scale, largestLossScale), goodSteps: 0 };
}
