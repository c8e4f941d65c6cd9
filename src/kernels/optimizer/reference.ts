/**
 * The loop that the references of all rules share: clipping, skipped steps, masks.
 * @module
 */
import type { ReferenceState } from "./rule.ts";

/** Moments smaller than this become zero: arithmetic on denormal numbers is slow on many processors. */
export const smallestMoment = 1e-38;

/** A moment, or zero where it is too small to keep. */
export function flushTiny(moment: number): number {
  return Math.abs(moment) < smallestMoment ? 0 : moment;
}

/** Whether bit i of a bitset is set: bit i mod 32 of word ⌊i / 32⌋. */
export function isKept(mask: Uint32Array, index: number): boolean {
  return (mask[index >>> 5] >>> (index & 31) & 1) === 1;
}

/**
 * Runs `update` with every parameter that the mask keeps and its clipped gradient, and sets the others and their states
 * to zero. Does nothing when the clip factor is not finite.
 */
export function forEachKept(
  { weights, states }: ReferenceState,
  gradients: ArrayLike<number>,
  clip: number,
  mask: Uint32Array | undefined,
  update: (index: number, gradient: number) => void,
): void {
  if (!Number.isFinite(clip)) return;
  for (let i = 0; i < weights.length; i++) {
    if (mask && !isKept(mask, i)) {
      for (const values of [weights, ...states]) values[i] = 0;
    } else update(i, gradients[i] * clip);
  }
}
