/**
 * The passes over all parameters that MetaAdamW makes, each on one stretch: what goes over the whole model is put
 * together of stretches in `parameter_vectors.ts`, on workers. Sums are in float64.
 *
 * A pruned element has no part in anything: its direction is 0, and it is in no sum.
 * @module
 */
import type { FloatArray } from "../../kernels/optimizer/rule.ts";
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

function isKept(mask: Uint32Array | undefined, i: number): boolean {
  return mask === undefined || ((mask[i >> 5] >>> (i & 31)) & 1) === 1;
}

function writeDirection(
  { gradients, firstMoment, secondMoment, weights, mask, direction, scalars }: DirectionPass,
): PassSums["direction"] {
  const { clip, beta1, beta2, epsilon, step, weightDecay } = scalars;
  const correction1 = 1 - beta1 ** step;
  const rootCorrection2 = Math.sqrt(1 - beta2 ** step);
  for (let i = 0; i < direction.length; i++) {
    if (!isKept(mask, i)) {
      direction[i] = 0;
      continue;
    }
    const g = clip * gradients[i];
    const m = firstMoment[i] + (1 - beta1) * (g - firstMoment[i]);
    const v = beta2 * secondMoment[i] + (1 - beta2) * g * g;
    direction[i] = m / correction1 / (Math.sqrt(v) / rootCorrection2 + epsilon) + weightDecay * weights[i];
  }
  return {};
}

function place({ weights, origin, direction, rate, offset, amount = 0 }: PlacePass): PassSums["place"] {
  for (let i = 0; i < weights.length; i++) {
    weights[i] = origin[i] - rate * direction[i] + (offset ? amount * offset[i] : 0);
  }
  return {};
}

function project({ gradients, direction, weights, mask }: ProjectPass): Projection {
  let [alongDirection, alongWeights] = [0, 0];
  for (let i = 0; i < weights.length; i++) {
    if (!isKept(mask, i)) continue;
    alongDirection += gradients[i] * direction[i];
    alongWeights += gradients[i] * weights[i];
  }
  return { alongDirection, alongWeights };
}

function compare({ before, after, mask }: ComparePass): GradientPair {
  let [beforeSquares, afterSquares, dot] = [0, 0, 0];
  for (let i = 0; i < before.length; i++) {
    if (!isKept(mask, i)) continue;
    beforeSquares += before[i] * before[i];
    afterSquares += after[i] * after[i];
    dot += before[i] * after[i];
  }
  return { beforeSquares, afterSquares, dot };
}

function blend({ before, after, mask, ofBefore, ofAfter }: BlendPass): PassSums["blend"] {
  let squares = 0;
  for (let i = 0; i < before.length; i++) {
    before[i] = isKept(mask, i) ? ofAfter * after[i] + ofBefore * before[i] : 0;
    squares += before[i] * before[i];
  }
  return { squares };
}
