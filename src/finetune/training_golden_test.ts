/** Hundreds of training steps against PyTorch: the same losses on every instruction set. */
import assert from "node:assert/strict";
import { parseBertConfig } from "../../models/config.ts";
import { goldenParameters } from "../graph/golden/mod.ts";
import { availableMachines, type Machine } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import {
  batchChecksum,
  goldenBatch,
  goldenMask,
  type GoldenRun,
  type GoldenSteps,
  trainingGolden,
} from "./golden/mod.ts";
import { linear } from "./schedule.ts";
import { Trainer } from "./trainer.ts";

const golden = trainingGolden();
const { training } = golden;
const batches = Array.from({ length: training.steps }, (_, step) => goldenBatch(golden, step));

/**
 * Bounds on what rounding may do over the whole run: a few times what it does to PyTorch's own float32 run, which
 * drifts from float64 by 1.1e-6 in the loss and by 1.7e-5 of the gradient's norm. Whatever is wrong and not just
 * rounded (a decayed bias, a schedule one step late, a moment not corrected) is beyond them within a few steps.
 */
const lossTolerance = 5e-6;
const normTolerance = 8e-5;

/** Largest difference of the losses, and of the norms as a share. NaN where either has one. */
function drift(found: GoldenSteps, { float64 }: GoldenRun): { loss: number; norm: number } {
  let [loss, norm] = [0, 0];
  float64.losses.forEach((wanted, step) => {
    const wantedNorm = float64.gradientNorms[step];
    loss = Math.max(loss, Math.abs(found.losses[step] - wanted));
    norm = Math.max(norm, Math.abs(found.gradientNorms[step] - wantedNorm) / wantedNorm);
  });
  return { loss, norm };
}

async function goldenTrainer(machine: Machine, maximumNorm: number): Promise<Trainer> {
  const trainer = await Trainer.create({
    config: {
      ...parseBertConfig({ ...golden.config, model_type: "bert" }, "golden"),
      labels: ["a", "b", "c"],
      hiddenDropout: 0,
      attentionDropout: 0,
      classifierDropout: 0,
    },
    machine,
    workers: 2,
    createExecutor: ({ machine, threads, arena }) =>
      Promise.resolve(new InlineExecutor(machine, threads, arena)),
    maximumSequences: training.sequences,
    maximumTokens: training.sequences * training.maximumLength,
    seed: 1,
    optimizer: { ...training, maximumNorm },
  });
  const initial = goldenParameters(golden.config);
  for (const slot of trainer.layout.slots) trainer.parameter(slot).set(initial.get(slot.name)!.data);
  return trainer;
}

/** All steps; `beforeStep` may change the trainer. */
async function trainSteps(trainer: Trainer, beforeStep?: (step: number) => void): Promise<GoldenSteps> {
  const rates = linear({ warmupSteps: training.warmupSteps, totalSteps: training.steps });
  const [losses, gradientNorms] = [new Float64Array(training.steps), new Float64Array(training.steps)];
  for (const [step, batch] of batches.entries()) {
    beforeStep?.(step);
    const result = await trainer.step(batch, step + 1, training.learningRate * rates.factor(step));
    [losses[step], gradientNorms[step]] = [result.loss, result.gradientNorm];
  }
  return { losses, gradientNorms };
}

Deno.test("the golden batches are those PyTorch was trained on, and it learned from them", () => {
  assert.equal(batchChecksum(batches), golden.checksum);
  const { losses, gradientNorms } = golden.dense.float64;
  assert.ok(losses[0] > 1 && losses[training.steps - 1] < 0.05);
  assert.ok(
    gradientNorms.some((norm) => norm > 1) && gradientNorms.some((norm) => norm < 1),
    "some are clipped",
  );
  for (const run of [golden.dense, golden.masked]) {
    const { loss, norm } = drift(run.float32, run);
    assert.ok(loss < lossTolerance / 2 && norm < normTolerance / 2, `PyTorch drifts by ${loss} and ${norm}`);
  }
});

for (const machine of availableMachines()) {
  Deno.test(`Trainer has PyTorch's losses over ${training.steps} steps on ${machine.isa}`, async () => {
    const trainer = await goldenTrainer(machine, training.maxGradientNorm);
    const { loss, norm } = drift(await trainSteps(trainer), golden.dense);
    await trainer.dispose();
    assert.ok(loss <= lossTolerance, `losses differ by ${loss}, wanted at most ${lossTolerance}`);
    assert.ok(norm <= normTolerance, `gradient norms differ by ${norm}, wanted at most ${normTolerance}`);
  });

  Deno.test(`Trainer has PyTorch's losses when most weights are masked half-way on ${machine.isa}`, async () => {
    const trainer = await goldenTrainer(machine, 0);
    const steps = await trainSteps(trainer, (step) => {
      if (step !== golden.mask.fromStep) return;
      for (const slot of trainer.layout.slots) {
        if (!isPrunable(slot.name)) continue;
        trainer.mask.set(goldenMask(golden, slot.name, slot.length), slot.offset / 32);
      }
      trainer.applyMask();
    });
    await trainer.dispose();
    // Losses only: whether a norm counts gradients of masked weights is left open.
    const { loss } = drift(steps, golden.masked);
    assert.ok(loss <= lossTolerance, `losses differ by ${loss}, wanted at most ${lossTolerance}`);
  });
}
