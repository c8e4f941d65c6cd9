/** A trainer whose activations are float16 beside one whose are float32, both on a GPU. */
import assert from "node:assert/strict";
import { initialLossScale, smallestLossScale } from "../kernels/loss_scale/reference.ts";
import { optimizerDefaults } from "../kernels/optimizer/optimizers.ts";
import { isSkipped, type StepResult } from "./step_engine.ts";
import { classifier } from "./tasks/classification.ts";
import { maskedLanguageModel } from "./tasks/masked_lm.ts";
import { gpuTrainer, halvesTest } from "./tiny_gpu.ts";
import { tinyClassifierConfig, tinyExamples } from "./tiny_trainer.ts";

const config = tinyClassifierConfig(2);
const dropping = { ...config, hiddenDropout: 0.1, attentionDropout: 0.1, classifierDropout: 0.1 };
const told = { learningRate: 1e-3, weightDecay: 0.01 };

halvesTest("fifty steps in float16 follow those in float32", async () => {
  const [half, whole] = [
    await gpuTrainer(classifier(dropping), { precision: "fp16", maximumNorm: 0.5 }),
    await gpuTrainer(classifier(dropping), { maximumNorm: 0.5 }),
  ];
  const examples = tinyExamples(20);
  const losses: number[] = [];
  let worst = { loss: 0, norm: 0 };
  for (let step = 1; step <= 50; step++) {
    const batch = examples.slice(step % 12, step % 12 + 6);
    const found = await half.step([batch], step, told);
    const wanted = await whole.step([batch], step, told);
    losses.push(found.loss);
    worst = {
      loss: Math.max(worst.loss, Math.abs(found.loss - wanted.loss)),
      norm: Math.max(worst.norm, Math.abs(found.gradientNorm / wanted.gradientNorm - 1)),
    };
    assert.equal(found.lossScale, initialLossScale.scale);
    assert.equal(wanted.lossScale, undefined);
  }
  // A rounding is 5e-4 of a number; sums of many average out.
  assert.ok(worst.loss > 0 && worst.loss < 3e-3, `losses differ by ${worst.loss}`);
  assert.ok(worst.norm < 5e-3, `norms differ by ${worst.norm} of them`);
  for (const trainer of [half, whole]) await trainer.settle();
  assert.deepEqual(half.lossScale, { scale: initialLossScale.scale, goodSteps: 50 });
  const seen = half.layout.slots.filter(({ name }) => !name.endsWith(".key.bias"));
  const apart = seen.flatMap((slot) => {
    const wanted = whole.parameter(slot);
    return Array.from(half.parameter(slot), (value, i) => Math.abs(value - wanted[i]));
  });
  const mean = apart.reduce((sum, difference) => sum + difference, 0) / apart.length;
  // AdamW makes a whole step, 1e-3, of a gradient that is rounding alone.
  assert.ok(
    mean < 1e-4 && Math.max(...apart) < 0.01,
    `weights differ by ${mean}, up to ${Math.max(...apart)}`,
  );
  assert.ok(losses.at(-1)! < losses[0] - 0.2);
  assert.ok((await half.evaluate(examples.slice(0, 8))).loss > 0);
  for (const trainer of [half, whole]) await trainer.dispose();
});

halvesTest(
  "a scale that is too large falls until gradients fit, at the price of steps that change nothing",
  async () => {
    const trainer = await gpuTrainer(classifier(config), { precision: "fp16" });
    const batch = tinyExamples(8);
    const before = trainer.weights.slice();
    trainer.restoreLossScale({ scale: 2 ** 24, goodSteps: 1999 });
    const results: StepResult[] = [];
    for (let step = 1; step <= 12; step++) {
      results.push(await trainer.step([batch], step, told));
      if (!isSkipped(results.at(-1)!)) continue;
      await trainer.settle();
      assert.deepEqual(trainer.weights, before);
    }
    const skipped = results.findIndex((result) => !isSkipped(result));
    assert.ok(skipped > 2 && skipped < 10, `${skipped} steps were skipped`);
    assert.ok(results.slice(skipped).every(({ gradientNorm }) => Number.isFinite(gradientNorm)));
    await trainer.settle();
    const { scale, goodSteps } = trainer.lossScale!;
    assert.deepEqual([scale, goodSteps], [2 ** (24 - skipped), 12 - skipped]);
    assert.ok(results.at(-1)!.loss < results[0].loss);
    await trainer.dispose();
  },
);

halvesTest("gradients that are not finite at any scale are no skipped steps in the end", async () => {
  const trainer = await gpuTrainer(classifier(config), { precision: "fp16" });
  trainer.weights.fill(NaN);
  trainer.restoreLossScale({ scale: 4 * smallestLossScale, goodSteps: 0 });
  const skipped: boolean[] = [];
  for (let step = 1; step <= 4; step++) {
    skipped.push(isSkipped(await trainer.step([tinyExamples(4)], step, told)));
  }
  assert.deepEqual(skipped, [true, false, false, false]);
  await trainer.dispose();
});

halvesTest("several batches make a step in float16, and layers may run again", async () => {
  const parts = [tinyExamples(8).slice(0, 5), tinyExamples(8).slice(5)];
  const run = async (precision: "fp32" | "fp16", checkpoints: boolean) => {
    const trainer = await gpuTrainer(classifier(dropping), { precision, accumulates: true, checkpoints });
    const results: StepResult[] = [];
    for (let step = 1; step <= 3; step++) results.push(await trainer.step(parts, step, told));
    await trainer.dispose();
    return results;
  };
  const half = await run("fp16", false);
  assert.deepEqual(await run("fp16", true), half);
  const whole = await run("fp32", false);
  half.forEach(({ loss, gradientNorm }, index) => {
    assert.ok(Math.abs(loss - whole[index].loss) < 5e-3, `loss ${loss}, wanted ${whole[index].loss}`);
    assert.ok(Math.abs(gradientNorm / whole[index].gradientNorm - 1) < 1e-2);
  });
});

halvesTest("activations in float16 take half of the room, and gradients for masks are exact", async () => {
  const [half, whole] = [
    await gpuTrainer(classifier(config), { precision: "fp16" }),
    await gpuTrainer(classifier(config)),
  ];
  assert.ok(half.needs.activationBytes < 0.75 * whole.needs.activationBytes);
  const batch = tinyExamples(8);
  assert.equal(await half.gradient(batch), await whole.gradient(batch));
  assert.deepEqual(half.gradients, whole.gradients);
  for (const trainer of [half, whole]) await trainer.dispose();
});

halvesTest(
  "gradients of a language model survive float16, the small ones of a wide softmax too",
  async () => {
    const wide = { ...config, vocabularySize: 1000 };
    const model = maskedLanguageModel(wide, { maskId: 1, vocabularySize: 1000, before: 1, after: 1 });
    const batch = tinyExamples(8).map((example, index) => ({
      ...example,
      index,
      ids: example.ids.map((id) => (id * 37 + 211 * index) % 1000),
    }));
    // A step of SGD with a rate of 1 takes the gradient off the weights.
    const optimizer = { ...optimizerDefaults("sgd"), momentum: 0 } as const;
    const gradientIn = async (precision: "fp32" | "fp16", scale: number) => {
      const trainer = await gpuTrainer(model, { precision, optimizer, maximumNorm: 0 });
      trainer.restoreLossScale({ scale, goodSteps: 0 });
      const before = trainer.weights.slice();
      await trainer.step([batch], 1, { learningRate: 1, weightDecay: 0 });
      await trainer.settle();
      const gradient = before.map((weight, index) => weight - trainer.weights[index]);
      const { slots } = trainer.layout;
      await trainer.dispose();
      return { gradient, slots };
    };
    const { gradient: wanted, slots } = await gradientIn("fp32", 1);
    const largestErrorAt = async (scale: number) => {
      const { gradient } = await gradientIn("fp16", scale);
      // Softmax does not see the keys' biases: their gradient is rounding alone.
      const seen = slots.filter(({ name }) => !name.endsWith(".key.bias"));
      return Math.max(...seen.map(({ offset, length }) => {
        const norm = (values: Float32Array) => Math.hypot(...values.subarray(offset, offset + length));
        return norm(gradient.map((value, index) => value - wanted[index])) / norm(wanted);
      }));
    };
    const scaled = await largestErrorAt(initialLossScale.scale);
    assert.ok(scaled < 5e-3, `gradients are off by ${scaled} of them`);
    const small = await largestErrorAt(2 ** -12);
    assert.ok(small > 0.1, `gradients are off by ${small} of them, however small they are`);
  },
);
