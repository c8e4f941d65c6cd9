/**
 * AdamW (Loshchilov and Hutter, arXiv 1711.05101) in the order of operations of PyTorch's `torch.optim.AdamW`.
 * @module
 */

/** What an optimiser step is told, for one group of parameters. */
export interface AdamwSettings {
  /** Step size, before bias correction. */
  readonly learningRate: number;
  /** Share of the first moment that is kept each step. */
  readonly beta1: number;
  /** Share of the second moment that is kept each step. */
  readonly beta2: number;
  /** Added to the root of the corrected second moment. */
  readonly epsilon: number;
  /** Multiplied by the learning rate: the share of a weight that decays each step. */
  readonly weightDecay: number;
}

/** The state of a range of parameters, updated in place. */
export interface AdamwState {
  /** The parameters. */
  readonly weights: Float64Array | Float32Array;
  /** Running mean of the gradients. */
  readonly firstMoment: Float64Array | Float32Array;
  /** Running mean of their squares. */
  readonly secondMoment: Float64Array | Float32Array;
}

/** Moments smaller than this become zero: arithmetic on denormal numbers is slow on many processors. */
export const smallestMoment = 1e-38;

/** Whether bit i of a bitset is set: bit i mod 32 of word ⌊i / 32⌋. */
export function isKept(mask: Uint32Array, index: number): boolean {
  return (mask[index >>> 5] >>> (index & 31) & 1) === 1;
}

/**
 * One step, counted from 1, over a range of parameters:
 *
 *     g = clip · gradient
 *     m = m + (1 − β₁)(g − m)
 *     v = β₂ v + (1 − β₂) g²
 *     w = w (1 − lr · decay) − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
 *
 * Where the mask has a zero bit, w, m and v become 0. A clip factor that is not finite leaves everything unchanged.
 */
export function adamwReference(
  { weights, firstMoment, secondMoment }: AdamwState,
  gradients: ArrayLike<number>,
  settings: AdamwSettings,
  step: number,
  clip = 1,
  mask?: Uint32Array,
): void {
  if (!Number.isFinite(clip)) return;
  const { learningRate, beta1, beta2, epsilon, weightDecay } = settings;
  const correction1 = 1 - beta1 ** step;
  const correction2 = 1 - beta2 ** step;
  for (let i = 0; i < weights.length; i++) {
    if (mask && !isKept(mask, i)) {
      weights[i] = firstMoment[i] = secondMoment[i] = 0;
      continue;
    }
    const gradient = gradients[i] * clip;
    const m = firstMoment[i] + (1 - beta1) * (gradient - firstMoment[i]);
    const v = beta2 * secondMoment[i] + (1 - beta2) * gradient * gradient;
    firstMoment[i] = Math.abs(m) < smallestMoment ? 0 : m;
    secondMoment[i] = v < smallestMoment ? 0 : v;
    const denominator = Math.sqrt(secondMoment[i]) / Math.sqrt(correction2) + epsilon;
    weights[i] = weights[i] * (1 - learningRate * weightDecay) -
      (learningRate / correction1) * firstMoment[i] / denominator;
  }
}
