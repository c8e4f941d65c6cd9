/** Hundreds of training steps against PyTorch: the same losses on every instruction set. */
import assert from "node:assert/strict";
import { parseBertConfig } from "../../models/config.ts";
import type { EncodedExample } from "../data/batches.ts";
import { goldenParameters } from "../graph/golden/mod.ts";
import { availableMachines, type Machine } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { batchChecksum, goldenBatch, goldenMask, type GoldenRun, trainingGolden } from "./golden/mod.ts";
import { learningRateSchedule } from "./schedules/mod.ts";
import { classifier } from "./tasks/classification.ts";
import { Trainer } from "./trainer.ts";

const golden = trainingGolden();
const { training } = golden;
const batches = Array.from({ length: training.steps }, (_, step) => goldenBatch(golden, step));

/**
 * Bounds on what rounding may do over a whole run: a few times what it does to PyTorch's own float32 runs, which drift
 * from float64 by 1.1e-6 in the loss and by 1.7e-5 of the gradient's norm. Whatever is wrong and not just rounded (a
 * decayed bias, a schedule one step late, a moment not corrected) is beyond them within a few steps.
 */
const tolerance = { loss: 5e-6, norm: 8e-5 };

async function goldenTrainer(machine: Machine): Promise<Trainer<EncodedExample>> {
  const trainer = await Trainer.create({
    model: classifier({
      ...parseBertConfig({ ...golden.config, model_type: "bert" }, "golden"),
      labels: ["a", "b", "c"],
      hiddenDropout: 0,
      attentionDropout: 0,
      classifierDropout: 0,
    }),
    machine,
    workers: 2,
    createExecutor: ({ machine, threads, arena }) =>
      Promise.resolve(new InlineExecutor(machine, threads, arena)),
    maximumSequences: training.sequences,
    maximumTokens: training.sequences * training.maximumLength,
    seed: 1,
    optimizer: { name: "adamw", ...training, amsgrad: false },
    maximumNorm: training.maxGradientNorm,
  });
  const initial = goldenParameters(golden.config);
  for (const slot of trainer.layout.slots) trainer.parameter(slot).set(initial.get(slot.name)!.data);
  return trainer;
}

/** Masks that share of every prunable matrix. */
async function mask(trainer: Trainer<EncodedExample>, sparsity: number): Promise<void> {
  await trainer.settle();
  for (const { name, length, offset } of trainer.layout.slots) {
    if (isPrunable(name)) trainer.mask.set(goldenMask(sparsity, name, length), offset / 32);
  }
  trainer.applyMask();
}

/** Takes all steps. Gives the largest difference of the losses, and of the norms as a share. */
async function driftOf(
  trainer: Trainer<EncodedExample>,
  run: GoldenRun,
): Promise<{ loss: number; norm: number }> {
  const rates = learningRateSchedule("linear", {
    warmupSteps: training.warmupSteps,
    totalSteps: training.steps,
  });
  const drift = { loss: 0, norm: 0 };
  for (const [step, batch] of batches.entries()) {
    if (run.sparsity > 0 && step === golden.maskedFromStep) await mask(trainer, run.sparsity);
    const found = await trainer.step([batch], step + 1, {
      learningRate: training.learningRate * rates.factor(step),
      weightDecay: training.weightDecay,
    });
    const norm = run.gradientNorms[step];
    // Math.max, unlike a comparison, lets NaN through.
    drift.loss = Math.max(drift.loss, Math.abs(found.loss - run.losses[step]));
    drift.norm = Math.max(drift.norm, Math.abs(found.gradientNorm - norm) / norm);
  }
  return drift;
}

Deno.test("the golden batches are those PyTorch was trained on, and it learned from them", () => {
  assert.equal(batchChecksum(batches), golden.checksum);
  for (const { losses, gradientNorms, float32Drift } of golden.runs) {
    assert.ok(losses[0] > 1 && losses[training.steps - 1] < 0.1);
    assert.ok(
      gradientNorms.some((norm) => norm > 1) && gradientNorms.some((norm) => norm < 1),
      "some clipped",
    );
    assert.ok(float32Drift.loss < tolerance.loss / 2 && float32Drift.norm < tolerance.norm / 2);
  }
});

for (const machine of availableMachines()) {
  for (const run of golden.runs) {
    const zeros = run.sparsity === 0 ? "" : `, the last 200 with ${run.sparsity * 100} % masked,`;
    Deno.test(`Trainer has PyTorch's losses over ${training.steps} steps${zeros} on ${machine.isa}`, async () => {
      const trainer = await goldenTrainer(machine);
      const { loss, norm } = await driftOf(trainer, run);
      await trainer.dispose();
      assert.ok(loss <= tolerance.loss, `losses differ by ${loss}, wanted at most ${tolerance.loss}`);
      assert.ok(norm <= tolerance.norm, `gradient norms differ by ${norm}, wanted at most ${tolerance.norm}`);
    });
  }
}
