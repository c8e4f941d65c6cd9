/**
 * What is measured of a tensor in training: sums over its elements, in float64.
 *
 * Pruned weights are not there: they are neither counted nor summed, whatever their gradient.
 * @module
 */
import type { FloatArray } from "../../kernels/optimizer/rule.ts";

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
  let [count, gg, mm, vv, ww, gm, zeroGradients, zeroMoments] = [0, 0, 0, 0, 0, 0, 0, 0];
  for (let i = 0; i < weights.length; i++) {
    if (mask && ((mask[i >> 5] >>> (i & 31)) & 1) === 0) continue;
    const g = gradients[i];
    const m = firstMoment[i];
    const v = secondMoment[i];
    const w = weights[i];
    count++;
    gg += g * g;
    mm += m * m;
    vv += v * v;
    ww += w * w;
    gm += g * m;
    if (g === 0) zeroGradients++;
    if (m === 0) zeroMoments++;
  }
  return {
    count,
    gradientSquares: gg,
    firstMomentSquares: mm,
    secondMomentSquares: vv,
    weightSquares: ww,
    dot: gm,
    zeroGradients,
    zeroMoments,
  };
}
