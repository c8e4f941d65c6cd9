/**
 * Movement pruning (Sanh et al., arXiv 2005.07683): a weight matters as much as training moves it away from zero.
 *
 * Its score gathers −dL/dW' · W over the steps. `movement` keeps the weights of largest score, so many as the schedule says;
 * `soft-movement` those whose sigmoid is above a threshold, under a penalty that pulls all scores down, so that how many
 * are left is an outcome. Weights that were pruned return when their scores do.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { bitsetWords, popcount, setBit } from "./bitset.ts";
import type { PrunableMatrix } from "./method.ts";
import { expandBlockMask, type Pattern, weightGroup } from "./pattern.ts";
import { gatheredScores } from "./scores.ts";
import { selectMasks } from "./select.ts";

/** The paper's settings for SQuAD; the soft threshold rises from 0 to the phase's final value, 0.1 there. */
export const movementDefaults = { scoreLearningRate: 1e-2, penalty: 400, threshold: 0.1 } as const;

/** Share of a matrix's blocks that a threshold leaves at least. */
const leastKept = 0.005;

/**
 * The mask of a matrix at a threshold on σ(score): blocks of weights by their mean score. At least 0.5 % of the blocks and one
 * are kept, those of largest score. Throws `InputError` for N:M, which is about ranks, and for scores that are no numbers.
 */
export function thresholdMask(
  matrix: PrunableMatrix,
  scores: Float32Array,
  pattern: Pattern,
  threshold: number,
): Uint32Array {
  if (weightGroup(pattern)) {
    throw new InputError(
      `Cannot prune by soft-movement in the pattern ${pattern}: wanted single weights or blocks`,
    );
  }
  const { values } = gatheredScores(() => scores, "weight").score(matrix, pattern);
  // σ(s) > τ as s > ln(τ / (1 − τ)): −∞ keeps all, and ∞ nothing.
  const least = Math.log(threshold) - Math.log1p(-threshold);
  const kept = new Uint32Array(bitsetWords(values.length));
  values.forEach((value, index) => {
    if (Number.isNaN(value)) {
      throw new InputError(`Cannot prune ${matrix.name}: score ${index} is NaN, wanted a number`);
    }
    if (value > least || threshold === 0) setBit(kept, index);
  });
  const most = values.length - Math.min(values.length, Math.floor(leastKept * values.length) + 1);
  const blocks = values.length - popcount(kept) > most
    ? selectMasks([{ name: matrix.name, values }], most)[0]
    : kept;
  return expandBlockMask(blocks, pattern, matrix);
}

/**
 * Brings weights into line with their mask, in place: what is pruned sleeps in `dormant` as it was, what is kept again
 * wakes as it was, and `states` (the optimiser's) are 0 where weights sleep. Each weight is in one of the two arrays, and
 * the other has 0.
 */
export function exchangeWeights(
  mask: Uint32Array,
  weights: Float32Array,
  dormant: Float32Array,
  states: readonly Float32Array[],
): void {
  for (let index = 0; index < weights.length; index++) {
    if (mask[index >>> 5] >>> (index & 31) & 1) {
      if (dormant[index] === 0) continue;
      weights[index] = dormant[index];
      dormant[index] = 0;
    } else {
      if (weights[index] !== 0) dormant[index] = weights[index];
      weights[index] = 0;
      for (const state of states) state[index] = 0;
    }
  }
}
