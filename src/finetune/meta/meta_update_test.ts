/** The gradient of the meta-loss by factors against central differences of the true outer loss, in float64. */
import assert from "node:assert/strict";
import type { Factors } from "./controller.ts";
import { MetaBuffers } from "./hypothetical_step.ts";
import { metaGradient, type MetaRequest } from "./meta_update.ts";
import { combineLosses, type GradientPair, gradientTerm, type MetaLosses } from "./objective.ts";
import { type MetaOptions, metaOptions } from "./options.ts";
import { ParameterVectors } from "./parameter_vectors.ts";
import { toyBatch, type ToyExample, ToyTrainer } from "./toy_trainer.ts";

const [batch, other, validation] = [toyBatch(6, 1), toyBatch(5, 2), toyBatch(7, 3)];
const [step, clip, learningRate, weightDecay] = [4, 0.7, 0.05, 0.3];
const scalars = { clip, beta1: 0.9, beta2: 0.99, epsilon: 1e-6, step };
const uncertainties = [0.3, -0.4, 0.2];
const start: Factors = {
  alpha: Float64Array.of(0.8, 1.3, 1.1),
  beta: Float64Array.of(1.4, 0.7, 1.2),
  lambda1: Float64Array.of(0.3, 0.5, 0.9),
  lambda2: Float64Array.of(0.6, 0.2, 0.4),
};
// The third group is biases, which do not decay.
const told = (group: number) => ({
  learningRate: learningRate * (1 - group / 4),
  weightDecay: group === 2 ? 0 : weightDecay,
});

/** The meta-loss by its definition: the reference's step, gradients at both ends, nothing else. */
async function trueLoss(origin: ToyTrainer, factors: Factors, options: MetaOptions): Promise<number> {
  const before = origin.clone();
  const trainBefore = await before.gradient(batch);
  const { loss: heldBefore } = await before.evaluate(validation);
  const after = before.clone();
  after.step(step, (group) => {
    const plain = told(group);
    return {
      learningRate: plain.learningRate * factors.alpha[group],
      weightDecay: plain.weightDecay * factors.beta[group],
    };
  }, clip);
  const { loss: trainAfter } = await after.evaluate(batch);
  const { loss: heldAfter } = await after.evaluate(validation);
  await after.gradient(other);
  const kept = (i: number) => i >= origin.layout.prunableLength || (origin.mask[i >> 5] >>> (i & 31)) & 1;
  const pairs = origin.layout.slots.map(({ offset, length }): GradientPair => {
    const pair = { beforeSquares: 0, afterSquares: 0, dot: 0 };
    for (let i = offset; i < offset + length; i++) {
      if (!kept(i)) continue;
      pair.beforeSquares += before.gradients[i] ** 2;
      pair.afterSquares += after.gradients[i] ** 2;
      pair.dot += before.gradients[i] * after.gradients[i];
    }
    return pair;
  });
  const losses: MetaLosses = {
    gradient: gradientTerm(pairs, factors.lambda1, factors.lambda2).value,
    loss_decrease: heldAfter - heldBefore,
    gen_gap: options.gapAfterStep ? Math.abs(trainAfter - heldAfter) : Math.abs(trainBefore - heldBefore),
  };
  return combineLosses(losses, uncertainties, options).value;
}

function pruned(): ToyTrainer {
  const trainer = new ToyTrainer();
  trainer.prune(1, 6, 7);
  return trainer;
}

async function request(trainer: ToyTrainer, options: MetaOptions): Promise<MetaRequest<ToyExample>> {
  const numberOf = new Map(trainer.layout.slots.map(({ name }, index) => [name, index]));
  return {
    batch,
    loss: await trainer.gradient(batch),
    other: () => other,
    validation: () => validation,
    scalars,
    told: ({ name }) => told(numberOf.get(name)!),
    groupOf: ({ name }) => numberOf.get(name)!,
    factors: start,
    uncertainties,
    options,
    differenceStep: 1e-4,
  };
}

const cases: readonly (readonly [string, Partial<MetaOptions>])[] = [
  ["gradient", { objective: "gradient" }],
  ["loss_decrease", { objective: "loss_decrease" }],
  ["gen_gap after the step", { objective: "gen_gap", gapAfterStep: true }],
  ["gen_gap before the step", { objective: "gen_gap", gapAfterStep: false }],
  ["combined as in the paper", { objective: "combined", gapAfterStep: false, boundedUncertainty: false }],
  ["combined and bounded", { objective: "combined", priorities: [1, 2, 3] }],
];

for (const [name, changes] of cases) {
  Deno.test(`metaGradient is central differences of the true meta-loss: ${name}`, async () => {
    const options = metaOptions("sound", changes);
    const trainer = pruned();
    const before = trainer.clone();
    const found = await metaGradient(
      trainer,
      new ParameterVectors(trainer),
      new MetaBuffers(),
      await request(trainer, options),
    );
    assert.deepEqual(trainer.weights, before.weights, "the weights are what they were");
    for (const [state, values] of before.states) assert.deepEqual(trainer.states.get(state), values);
    const value = await trueLoss(before, start, options);
    assert.ok(Math.abs(found.value - value) < 1e-9, `${found.value}, by its definition ${value}`);
    let [largest, compared] = [0, 0];
    for (const key of ["alpha", "beta", "lambda1", "lambda2"] as const) {
      for (let group = 0; group < 3; group++) {
        const at = (shift: number) => {
          const shifted = { ...start, [key]: start[key].with(group, start[key][group] + shift) };
          return trueLoss(before, shifted, options);
        };
        const wanted = (await at(1e-5) - await at(-1e-5)) / 2e-5;
        assert.ok(
          Math.abs(found.factors[key][group] - wanted) <= 1e-7 * (1 + Math.abs(wanted)),
          `${key} of group ${group}: ${found.factors[key][group]}, ${wanted} by central differences`,
        );
        largest = Math.max(largest, Math.abs(wanted));
        compared++;
      }
    }
    assert.equal(compared, 12);
    // A gap before the step depends on no factor; everything else does.
    if (name === "gen_gap before the step") assert.equal(largest, 0);
    else assert.ok(largest > 1e-3, `${largest}`);
  });
}

Deno.test("metaGradient asks for the batches that its terms need, and restores weights when one fails", async () => {
  const trainer = pruned();
  const before = trainer.weights.slice();
  const refuse = (): never => {
    throw new Error("no such batch");
  };
  const run = async (objective: MetaOptions["objective"], changes: Partial<MetaRequest<ToyExample>>) =>
    metaGradient(trainer, new ParameterVectors(trainer), new MetaBuffers(), {
      ...await request(trainer, metaOptions("sound", { objective })),
      ...changes,
    });
  await run("loss_decrease", { other: refuse });
  await run("gradient", { validation: refuse });
  await assert.rejects(run("gradient", { other: refuse }), /no such batch/);
  assert.deepEqual(trainer.weights, before);
});
