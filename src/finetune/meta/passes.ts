/**
 * The passes over all parameters that MetaAdamW makes, each on one stretch: what goes over the whole model is put
 * together of stretches in `parameter_vectors.ts`, on workers. Sums are in float64.
 *
 * A pruned element has no part in anything: its direction is 0, and it is in no sum.
 * @module
 */
import type { FloatArray } from "../../kernels/optimizer/rule.ts";
import { forEachRun } from "../../pruning/bitset.ts";
import type { GradientPair } from "./objective.ts";
import { measure, type MeasuredStretch, type TensorStatistics } from "./statistics.ts";

/** What AdamW's step needs besides the arrays. */
export interface DirectionScalars {
  /** What gradients are multiplied by first. */
  readonly clip: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Number of the step, from 1. */
  readonly step: number;
  /** Of the group, its factor β included. */
  readonly weightDecay: number;
}

/** Writes d = m̂ / (√v̂ + ε) + β · decay · w, where the moments have this gradient in them; the step is w − lr · α · d. */
export interface DirectionPass extends MeasuredStretch {
  readonly direction: FloatArray;
  readonly scalars: DirectionScalars;
}

/** Writes weights = origin − rate · direction + amount · offset. */
export interface PlacePass {
  readonly weights: FloatArray;
  readonly origin: FloatArray;
  readonly direction: FloatArray;
  readonly rate: number;
  readonly offset?: FloatArray;
  readonly amount?: number;
}

/** Sums up q · d and q · w for a gradient q. */
export interface ProjectPass {
  readonly gradients: FloatArray;
  readonly direction: FloatArray;
  readonly weights: FloatArray;
  readonly mask?: Uint32Array;
}

/** Inner products of a gradient with what a step's factors scale. */
export interface Projection {
  readonly alongDirection: number;
  readonly alongWeights: number;
}

/** Sums up the products of two gradients. */
export interface ComparePass {
  readonly before: FloatArray;
  readonly after: FloatArray;
  readonly mask?: Uint32Array;
}

/** Replaces `before` by ofAfter · after + ofBefore · before, and sums up its squares. */
export interface BlendPass extends ComparePass {
  readonly ofBefore: number;
  readonly ofAfter: number;
}

/** What each pass is given. */
export interface PassArguments {
  readonly measure: MeasuredStretch;
  readonly direction: DirectionPass;
  readonly place: PlacePass;
  readonly project: ProjectPass;
  readonly compare: ComparePass;
  readonly blend: BlendPass;
}

/** What each pass sums up, by name; the sums of several stretches are added. */
export interface PassSums {
  readonly measure: TensorStatistics;
  readonly direction: Readonly<Record<never, number>>;
  readonly place: Readonly<Record<never, number>>;
  readonly project: Projection;
  readonly compare: GradientPair;
  /** Squares of what was written. */
  readonly blend: { readonly squares: number };
}

/** The passes. */
export const passes: { readonly [P in keyof PassArguments]: (stretch: PassArguments[P]) => PassSums[P] } = {
  measure,
  direction: writeDirection,
  place,
  project,
  compare,
  blend,
};

function writeDirection(
  { gradients, firstMoment, secondMoment, weights, mask, direction, scalars }: DirectionPass,
): PassSums["direction"] {
  const { clip, beta1, beta2, epsilon, step, weightDecay } = scalars;
  const correction1 = 1 - beta1 ** step;
  const rootCorrection2 = Math.sqrt(1 - beta2 ** step);
  const kept = (begin: number, end: number) => {
    for (let i = begin; i < end; i++) {
      const g = clip * gradients[i];
      const m = firstMoment[i] + (1 - beta1) * (g - firstMoment[i]);
      const v = beta2 * secondMoment[i] + (1 - beta2) * g * g;
      direction[i] = m / correction1 / (Math.sqrt(v) / rootCorrection2 + epsilon) + weightDecay * weights[i];
    }
  };
  forEachRun(mask, direction.length, kept, (begin, end) => direction.fill(0, begin, end));
  return {};
}

function place({ weights, origin, direction, rate, offset, amount = 0 }: PlacePass): PassSums["place"] {
  for (let i = 0; i < weights.length; i++) {
    weights[i] = origin[i] - rate * direction[i] + (offset ? amount * offset[i] : 0);
  }
  return {};
}

function project({ gradients, direction, weights, mask }: ProjectPass): Projection {
  const sums = { alongDirection: 0, alongWeights: 0 };
  forEachRun(mask, weights.length, (begin, end) => {
    let { alongDirection, alongWeights } = sums;
    for (let i = begin; i < end; i++) {
      alongDirection += gradients[i] * direction[i];
      alongWeights += gradients[i] * weights[i];
    }
    sums.alongDirection = alongDirection;
    sums.alongWeights = alongWeights;
  });
  return sums;
}

function compare({ before, after, mask }: ComparePass): GradientPair {
  const sums = { beforeSquares: 0, afterSquares: 0, dot: 0 };
  forEachRun(mask, before.length, (begin, end) => {
    let { beforeSquares, afterSquares, dot } = sums;
    for (let i = begin; i < end; i++) {
      beforeSquares += before[i] * before[i];
      afterSquares += after[i] * after[i];
      dot += before[i] * after[i];
    }
    sums.beforeSquares = beforeSquares;
    sums.afterSquares = afterSquares;
    sums.dot = dot;
  });
  return sums;
}

function blend({ before, after, mask, ofBefore, ofAfter }: BlendPass): PassSums["blend"] {
  const sums = { squares: 0 };
  const kept = (begin: number, end: number) => {
    let { squares } = sums;
    for (let i = begin; i < end; i++) {
      before[i] = ofAfter * after[i] + ofBefore * before[i];
      squares += before[i] * before[i];
    }
    sums.squares = squares;
  };
  forEachRun(mask, before.length, kept, (begin, end) => before.fill(0, begin, end));
  return sums;
}
