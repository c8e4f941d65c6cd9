/**
 * What a meta-update learns from: the meta-loss of one hypothetical step, and its gradient by the step's factors.
 *
 * The step is θ' = θ − lr α_g d with d = m̂ / (√v̂ + ε) + β_g · decay · θ, moments and clipping as the trainer's next step
 * on B₁ has them (without dropout). So for q, the gradient of a term by θ', over the parameters of group g
 *
 *     ∂L/∂α_g = −lr Σ q · d        ∂L/∂β_g = −lr α_g · decay · Σ q · θ
 *
 * exactly, as d depends on no factor but β. For `loss_decrease` and the gap q is one gradient more. For the gradient term
 * q = H c, where H is the Hessian of L(θ', B₂) and c the term's derivative by g'; no second differentiation is needed:
 *
 *     H c ≈ |c| (∇L(θ' + h c/|c|) − ∇L(θ' − h c/|c|)) / 2h
 * @module
 */
import type { ParameterSlot } from "../parameters.ts";
import type { Factors } from "./controller.ts";
import {
  combineProjections,
  HypotheticalStep,
  type MetaBuffers,
  type Projections,
  type StepRequest,
} from "./hypothetical_step.ts";
import { combineLosses, type GradientPair, gradientTerm, type MetaLosses } from "./objective.ts";
import { hasTerm, type MetaOptions, type MetaTerm } from "./options.ts";
import { addSums, type MetaTrainer, type ParameterVectors } from "./parameter_vectors.ts";

/** A hypothetical step, and the batches to judge it by. */
export interface MetaRequest<Example> extends StepRequest {
  /** B₁: the trainer's `gradients` are those of this batch at θ. */
  readonly batch: readonly Example[];
  /** Its loss. */
  readonly loss: number;
  /** B₂, another batch of training examples; called for the gradient term alone. */
  readonly other: () => readonly Example[];
  /** Held-out examples; called for the other terms alone. */
  readonly validation: () => readonly Example[];
  readonly factors: Factors;
  readonly uncertainties: ArrayLike<number>;
  readonly options: MetaOptions;
}

/** What came of it. */
export interface MetaGradient {
  /** The meta-loss, penalties left out. */
  readonly value: number;
  readonly losses: MetaLosses;
  readonly factors: Factors;
  readonly uncertainties: readonly number[];
}

/** One gradient of the meta-loss. The weights are at θ' meanwhile, and then bit for bit what they were. */
export async function metaGradient<Example>(
  trainer: MetaTrainer<Example>,
  vectors: ParameterVectors,
  buffers: MetaBuffers,
  request: MetaRequest<Example>,
): Promise<MetaGradient> {
  const { batch, other, options, factors, groupOf } = request;
  const needsLoss = hasTerm(options, "loss_decrease");
  const needsGap = hasTerm(options, "gen_gap");
  const gapAfter = needsGap && options.gapAfterStep;
  const held = needsLoss || needsGap ? request.validation() : [];
  const lossBefore = needsLoss || (needsGap && !gapAfter) ? (await trainer.evaluate(held)).loss : NaN;
  const step = new HypotheticalStep(trainer, vectors, buffers, request);
  const losses: Partial<Record<MetaTerm, number>> = {};
  const projections: Partial<Record<MetaTerm, Projections>> = {};
  const gradientOf = hasTerm(options, "gradient") ? await step.keepGradients() : undefined;
  let lambdas: Pick<Factors, "lambda1" | "lambda2"> | undefined;
  await step.take();
  try {
    if (needsLoss || gapAfter) {
      const lossAfter = await trainer.gradient(held);
      const ofValidation = await step.project();
      if (needsLoss) {
        losses.loss_decrease = lossAfter - lossBefore;
        projections.loss_decrease = ofValidation;
      }
      if (gapAfter) {
        const gap = await trainer.gradient(batch) - lossAfter;
        const sign = Math.sign(gap);
        losses.gen_gap = Math.abs(gap);
        projections.gen_gap = combineProjections(await step.project(), sign, ofValidation, -sign);
      }
    }
    if (needsGap && !gapAfter) losses.gen_gap = Math.abs(request.loss - lossBefore);
    if (gradientOf) {
      const after = other();
      await trainer.gradient(after);
      const pairs = byGroup(await step.compare(gradientOf), groupOf, factors.alpha.length);
      const term = gradientTerm(pairs, factors.lambda1, factors.lambda2);
      losses.gradient = term.value;
      lambdas = { lambda1: term.gradLambda1, lambda2: term.gradLambda2 };
      projections.gradient = await step.projectHessian(gradientOf, term, after);
    }
  } finally {
    await step.undo();
  }
  const combined = combineLosses(losses, request.uncertainties, options);
  const gradient = factorGradients(projections, combined.weights, request);
  const weight = combined.weights.gradient ?? 0;
  const scaled = (of: Float64Array | undefined, group: Float64Array) =>
    group.map((_, g) => of ? weight * of[g] : 0);
  return {
    value: combined.value,
    losses,
    factors: {
      ...gradient,
      lambda1: scaled(lambdas?.lambda1, factors.lambda1),
      lambda2: scaled(lambdas?.lambda2, factors.lambda2),
    },
    uncertainties: combined.gradUncertainties,
  };
}

/** Derivatives by α and β of Σ weight · term. */
function factorGradients(
  projections: Partial<Record<MetaTerm, Projections>>,
  weights: MetaLosses,
  { factors, told, groupOf }: StepRequest,
): Pick<Factors, "alpha" | "beta"> {
  const [alpha, beta] = [factors.alpha.map(() => 0), factors.beta.map(() => 0)];
  for (const [term, slots] of Object.entries(projections) as [MetaTerm, Projections][]) {
    for (const [slot, { alongDirection, alongWeights }] of slots) {
      const { learningRate, weightDecay } = told(slot);
      const group = groupOf(slot);
      const rate = weights[term]! * learningRate;
      alpha[group] -= rate * alongDirection;
      beta[group] -= rate * factors.alpha[group] * weightDecay * alongWeights;
    }
  }
  return { alpha, beta };
}

/** Adds up the products of each group's parameters. */
function byGroup(
  slots: ReadonlyMap<ParameterSlot, GradientPair>,
  groupOf: (slot: ParameterSlot) => number,
  groups: number,
): GradientPair[] {
  const sums = Array.from({ length: groups }, () => ({ beforeSquares: 0, afterSquares: 0, dot: 0 }));
  for (const [slot, pair] of slots) sums[groupOf(slot)] = addSums(sums[groupOf(slot)], pair);
  return sums;
}
