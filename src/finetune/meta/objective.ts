/**
 * The meta-loss (Zhao and Liu, arXiv 2605.04055, section 3.5): how a step with the present factors would turn out.
 *
 * Its terms are of θ' = θ after that step, batches B₁ and B₂ and a validation batch:
 *
 * - gradient: mean over groups of λ₁ ‖g'‖² − λ₂ cos(g, g'), where g = ∇L(θ, B₁) and g' = ∇L(θ', B₂)
 * - loss_decrease: L_val(θ') − L_val(θ)
 * - gen_gap: |L(B₁) − L_val|, at θ or at θ'
 *
 * One of them is the meta-loss, or all are, weighted by learnt uncertainties s = ln σ² (Kendall et al., arXiv 1705.07115)
 * whose regularisers have priorities p: Σ ½ e^(−s) L + ½ p s.
 * @module
 */
import { type MetaOptions, type MetaTerm, metaTerms } from "./options.ts";

/** Bound of |s| where uncertainties are bounded. */
export const uncertaintyBound = 3;

/** Values of the terms; those that the objective has not are absent. */
export type MetaLosses = Partial<Record<MetaTerm, number>>;

/** The meta-loss, and its derivatives. */
export interface CombinedLoss {
  readonly value: number;
  /** By each term. */
  readonly weights: MetaLosses;
  /** By s, of the three terms in order; 0 where there is one term alone. */
  readonly gradUncertainties: readonly number[];
}

/** Combines the terms. Bounded uncertainties take softplus of each, as a term below 0 would have s fall for ever. */
export function combineLosses(
  losses: MetaLosses,
  uncertainties: ArrayLike<number>,
  options: Pick<MetaOptions, "objective" | "priorities" | "boundedUncertainty">,
): CombinedLoss {
  const { objective, priorities, boundedUncertainty } = options;
  if (objective !== "combined") {
    return { value: losses[objective]!, weights: { [objective]: 1 }, gradUncertainties: [0, 0, 0] };
  }
  const weights: MetaLosses = {};
  const gradUncertainties: number[] = [];
  let value = 0;
  metaTerms.forEach((term, i) => {
    const raw = losses[term]!;
    const loss = boundedUncertainty ? softplus(raw) : raw;
    const slope = boundedUncertainty ? sigmoid(raw) : 1;
    const precision = Math.exp(-uncertainties[i]);
    value += 0.5 * (precision * loss + priorities[i] * uncertainties[i]);
    weights[term] = 0.5 * precision * slope;
    gradUncertainties.push(0.5 * (priorities[i] - precision * loss));
  });
  return { value, weights, gradUncertainties };
}

/** A group's gradients at θ (of B₁) and at θ' (of B₂). */
export interface GradientPair {
  /** ‖g‖² */
  readonly beforeSquares: number;
  /** ‖g'‖² */
  readonly afterSquares: number;
  /** g · g' */
  readonly dot: number;
}

/** The gradient term, and its derivatives by group. */
export interface GradientTerm {
  readonly value: number;
  readonly gradLambda1: Float64Array;
  readonly gradLambda2: Float64Array;
  /** Its derivative by g' is `ofAfter` · g' + `ofBefore` · g. */
  readonly ofAfter: Float64Array;
  readonly ofBefore: Float64Array;
}

/** λ₁ ‖g'‖² − λ₂ cos(g, g'), mean over the groups. The cosine with a gradient of zero is 0. */
export function gradientTerm(
  pairs: readonly GradientPair[],
  lambda1: ArrayLike<number>,
  lambda2: ArrayLike<number>,
): GradientTerm {
  const count = pairs.length;
  const zeros = () => new Float64Array(count);
  const [gradLambda1, gradLambda2, ofAfter, ofBefore] = [zeros(), zeros(), zeros(), zeros()];
  let value = 0;
  pairs.forEach(({ beforeSquares, afterSquares, dot }, g) => {
    const norms = Math.sqrt(beforeSquares) * Math.sqrt(afterSquares);
    const cosine = norms === 0 ? 0 : dot / norms;
    value += (lambda1[g] * afterSquares - lambda2[g] * cosine) / count;
    gradLambda1[g] = afterSquares / count;
    gradLambda2[g] = -cosine / count;
    ofAfter[g] = (2 * lambda1[g] + (norms === 0 ? 0 : lambda2[g] * cosine / afterSquares)) / count;
    ofBefore[g] = norms === 0 ? 0 : -lambda2[g] / (norms * count);
  });
  return { value, gradLambda1, gradLambda2, ofAfter, ofBefore };
}

/** 1 / (1 + e^(−x)) */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** ln(1 + eˣ), without overflow. */
function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}
