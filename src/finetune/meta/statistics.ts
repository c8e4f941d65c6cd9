/**
 * What is measured of a tensor in training: sums over its elements, in float64.
 *
 * Pruned weights are not there: they are neither counted nor summed, whatever their gradient.
 * @module
 */
import type { FloatArray } from "../../kernels/optimizer/rule.ts";
import { forEachRun } from "../../pruning/bitset.ts";

/** Sums over a tensor. */
export interface TensorStatistics {
  /** Elements; without those that are pruned. */
  readonly count: number;
  /** Σ g² */
  readonly gradientSquares: number;
  /** Σ m² */
  readonly firstMomentSquares: number;
  /** Σ v² */
  readonly secondMomentSquares: number;
  /** Σ w² */
  readonly weightSquares: number;
  /** Σ g·m */
  readonly dot: number;
  /** Elements of g that are exactly 0. */
  readonly zeroGradients: number;
  /** Elements of m that are exactly 0. */
  readonly zeroMoments: number;
}

/** A stretch of a tensor: all arrays are equally long. */
export interface MeasuredStretch {
  readonly gradients: FloatArray;
  readonly firstMoment: FloatArray;
  readonly secondMoment: FloatArray;
  readonly weights: FloatArray;
  /** Bit i mod 32 of word ⌊i / 32⌋ is set where element i is kept; absent: all are. */
  readonly mask?: Uint32Array;
}

/** Measures a stretch. */
export function measure(
  { gradients, firstMoment, secondMoment, weights, mask }: MeasuredStretch,
): TensorStatistics {
  const sums = {
    count: 0,
    gradientSquares: 0,
    firstMomentSquares: 0,
    secondMomentSquares: 0,
    weightSquares: 0,
    dot: 0,
    zeroGradients: 0,
    zeroMoments: 0,
  };
  forEachRun(mask, weights.length, (begin, end) => {
    // Sums in variables of the loop's own function stay in registers.
    let { gradientSquares: gg, firstMomentSquares: mm, secondMomentSquares: vv, weightSquares: ww, dot } =
      sums;
    let [zeroGradients, zeroMoments] = [0, 0];
    for (let i = begin; i < end; i++) {
      const g = gradients[i];
      const m = firstMoment[i];
      const v = secondMoment[i];
      const w = weights[i];
      gg += g * g;
      mm += m * m;
      vv += v * v;
      ww += w * w;
      dot += g * m;
      if (g === 0) zeroGradients++;
      if (m === 0) zeroMoments++;
    }
    sums.count += end - begin;
    sums.gradientSquares = gg;
    sums.firstMomentSquares = mm;
    sums.secondMomentSquares = vv;
    sums.weightSquares = ww;
    sums.dot = dot;
    sums.zeroGradients += zeroGradients;
    sums.zeroMoments += zeroMoments;
  });
  return sums;
}
