/** What the trainer can do besides AdamW on one batch: other optimisers, groups, sums of gradients, gradients alone. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../core/random.ts";
import type { EncodedExample } from "../data/batches.ts";
import { optimizerDefaults, optimizerNames } from "../kernels/optimizer/optimizers.ts";
import { classifier } from "./tasks/classification.ts";
import { tinyClassifierConfig, tinyExamples, type TinyOptions, tinyTrainer } from "./tiny_trainer.ts";

const config = tinyClassifierConfig(2);

const told = { learningRate: 1e-2, weightDecay: 0.01 };

const makeTrainer = (options: TinyOptions<EncodedExample> = {}) => tinyTrainer(classifier(config), options);

const largestDifference = (a: Float32Array, b: Float32Array) =>
  a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);

for (const name of optimizerNames) {
  Deno.test(`Trainer learns with ${name}, and takes the step of its reference`, async () => {
    const trainer = await makeTrainer({ optimizer: optimizerDefaults(name), maximumNorm: 0 });
    const batch = tinyExamples(8);
    const group = { learningRate: name === "sgd" ? 0.5 : 5e-3, weightDecay: 0 };
    const losses: number[] = [];
    for (let step = 1; step <= 30; step++) {
      const weights = Float64Array.from(trainer.weights);
      const states = Array.from(trainer.states.values(), (state) => Float64Array.from(state));
      losses.push((await trainer.step([batch], step, group)).loss);
      await trainer.settle();
      if (step > 3) continue;
      trainer.rule.reference({ weights, states }, trainer.gradients, group, step);
      const difference = largestDifference(trainer.weights, Float32Array.from(weights));
      assert.ok(difference < 1e-5, `${name}, step ${step}: weights differ by ${difference}`);
    }
    assert.ok(losses.at(-1)! < 0.3 * losses[0], `${name}: loss from ${losses[0]} to ${losses.at(-1)}`);
    await trainer.dispose();
  });
}

Deno.test("Trainer makes one step of several batches, as of all their sequences together", async () => {
  const all = tinyExamples(8);
  // Not AdamW: it makes steps of one size of gradients that are zero but for rounding.
  const optimizer = { ...optimizerDefaults("sgd"), momentum: 0.9 } as const;
  const whole = await makeTrainer({ optimizer });
  const parts = await makeTrainer({ optimizer, accumulates: true });
  for (let step = 1; step <= 4; step++) {
    const wanted = await whole.step([all], step, told);
    const found = await parts.step([all.slice(0, 5), all.slice(5, 7), all.slice(7)], step, told);
    assert.ok(Math.abs(found.loss - wanted.loss) < 1e-5, `loss ${found.loss}, wanted ${wanted.loss}`);
    assert.ok(Math.abs(found.gradientNorm - wanted.gradientNorm) < 1e-4 * wanted.gradientNorm);
  }
  await parts.settle();
  await whole.settle();
  assert.ok(largestDifference(parts.weights, whole.weights) < 1e-6);
  await whole.dispose();
  await parts.dispose();
});

Deno.test("Trainer.gradient leaves the gradients of all weights and changes none", async () => {
  const trainer = await makeTrainer({ maximumNorm: 0, optimizer: optimizerDefaults("sgd") });
  const batch = tinyExamples(8);
  // Half of the prunable weights are masked: their gradient is wanted all the same.
  trainer.mask.fill(0x0f0f0f0f);
  trainer.applyMask();
  const before = trainer.weights.slice();
  const loss = await trainer.gradient(batch);
  const { gradients } = trainer;
  assert.deepEqual(trainer.weights, before);
  assert.ok(Math.abs(loss - (await trainer.evaluate(batch)).loss) < 1e-6);
  await trainer.settle();
  const random = new RandomStream(randomKey(1, "probe"));
  const found = gradients.slice();
  for (let probe = 0; probe < 12; probe++) {
    const slot = trainer.layout.slots[random.below(trainer.layout.slots.length)];
    const index = slot.offset + random.below(slot.length);
    const h = 1e-2;
    const lossAt = async (value: number) => {
      await trainer.settle();
      trainer.weights[index] = value;
      const { loss } = await trainer.evaluate(batch);
      await trainer.settle();
      trainer.weights[index] = before[index];
      return loss;
    };
    const wanted = (await lossAt(before[index] + h) - await lossAt(before[index] - h)) / (2 * h);
    assert.ok(
      Math.abs(found[index] - wanted) < 2e-3 + 0.02 * Math.abs(wanted),
      `gradient of ${slot.name}[${index - slot.offset}] is ${found[index]}, wanted about ${wanted}`,
    );
  }
  await trainer.dispose();
});

Deno.test("Trainer leaves frozen parameters alone, and gives lower layers a lower rate", async () => {
  const names = (await makeTrainer()).layout.slots.map(({ name }) => name);
  const frozen = new Set(names.filter((name) => name.includes("embeddings") || name.includes("layer.0.")));
  const trainer = await makeTrainer({
    optimizer: { name: "sgd", momentum: 0, dampening: 0, nesterov: false },
    maximumNorm: 0,
    groups: { frozen, layerDecay: 0.5 },
  });
  const before = trainer.weights.slice();
  await trainer.step([tinyExamples(8)], 1, { learningRate: 0.1, weightDecay: 0 });
  const { gradients, weights, layout } = trainer;
  for (const { name, offset, length } of layout.slots) {
    const factor = frozen.has(name) ? 0 : name.includes("layer.1.") ? 0.5 : 1;
    for (let i = offset; i < offset + length; i++) {
      const wanted = factor === 0 ? before[i] : before[i] - 0.1 * factor * gradients[i];
      assert.ok(Math.abs(weights[i] - wanted) < 1e-6, `${name}[${i - offset}]`);
    }
  }
  await assert.rejects(
    makeTrainer({ groups: { frozen: new Set(names) } }),
    /--freeze leaves nothing to train/,
  );
  await trainer.dispose();
});

Deno.test("Trainer takes factors for each group", async () => {
  const [plain, halved] = [await makeTrainer(), await makeTrainer()];
  const batch = tinyExamples(8);
  const factors = halved.groups.map(() => ({ learningRate: 0.5, weightDecay: 2 }));
  await plain.step([batch], 1, { learningRate: 0.5 * told.learningRate, weightDecay: 2 * told.weightDecay });
  await halved.step([batch], 1, { ...told, factors });
  await plain.settle();
  await halved.settle();
  assert.deepEqual(halved.weights, plain.weights);
  await plain.dispose();
  await halved.dispose();
});
