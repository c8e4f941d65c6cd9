/** A trainer on a GPU against the same trainer on the CPU. */
import assert from "node:assert/strict";
import type { EncodedExample } from "../data/batches.ts";
import { optimizerDefaults, optimizerNames } from "../kernels/optimizer/optimizers.ts";
import { pruningSchedule } from "../pruning/schedule.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { refreshMasks } from "./prune.ts";
import { gpuTest, gpuTrainer } from "./tiny_gpu.ts";
import { classifier } from "./tasks/classification.ts";
import { tinyClassifierConfig, tinyExamples, type TinyOptions, tinyTrainer } from "./tiny_trainer.ts";
import type { Trainer } from "./trainer.ts";

const config = tinyClassifierConfig(2);
const dropping = { ...config, hiddenDropout: 0.1, attentionDropout: 0.1, classifierDropout: 0.1 };
const told = { learningRate: 1e-3, weightDecay: 0.01 };

/** The same trainer on both devices; `use` both. */
async function onBoth(
  options: TinyOptions<EncodedExample>,
  use: (gpu: Trainer<EncodedExample>, cpu: Trainer<EncodedExample>) => Promise<void>,
  model = classifier(config),
): Promise<void> {
  const gpu = await gpuTrainer(model, options);
  const cpu = await tinyTrainer(model, options);
  try {
    await use(gpu, cpu);
  } finally {
    await gpu.dispose();
    await cpu.dispose();
  }
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  assert.equal(a.length, b.length);
  return a.reduce((largest, value, i) => {
    const difference = Math.abs(value - b[i]);
    return difference <= largest ? largest : Number.isNaN(difference) ? Infinity : difference;
  }, 0);
}

/**
 * Largest difference of the weights, but for the keys' biases: softmax does not see them, so that their gradient is rounding
 * alone, which Adam and RMSprop make whole steps of.
 */
function weightDifference(a: Trainer<EncodedExample>, b: Trainer<EncodedExample>): number {
  const seen = a.layout.slots.filter(({ name }) => !name.endsWith(".key.bias"));
  return Math.max(...seen.map((slot) => largestDifference(a.parameter(slot), b.parameter(slot))));
}

/** Masks every other weight of each prunable matrix. */
async function maskHalf(trainer: Trainer<EncodedExample>): Promise<void> {
  await trainer.settle();
  for (const { name, offset, length } of trainer.layout.slots) {
    if (isPrunable(name)) trainer.mask.fill(0x5a5a5a5a, offset / 32, (offset + length) / 32);
  }
  trainer.applyMask();
}

gpuTest("a GPU takes fifty steps as the CPU does: dropout, clipping, masks", async () => {
  await onBoth({ maximumNorm: 0.5 }, async (gpu, cpu) => {
    const examples = tinyExamples(20);
    const losses: number[] = [];
    for (let step = 1; step <= 50; step++) {
      if (step === 20) { for (const trainer of [gpu, cpu]) await maskHalf(trainer); }
      const batch = examples.slice(step % 12, step % 12 + 4 + step % 5);
      const found = await gpu.step([batch], step, told);
      const wanted = await cpu.step([batch], step, told);
      losses.push(wanted.loss);
      assert.ok(
        Math.abs(found.loss - wanted.loss) < 1e-4,
        `step ${step}: loss ${found.loss}, wanted ${wanted.loss}`,
      );
      const drift = Math.abs(found.gradientNorm / wanted.gradientNorm - 1);
      assert.ok(drift < 1e-3, `step ${step}: norm ${found.gradientNorm}, wanted ${wanted.gradientNorm}`);
    }
    for (const trainer of [gpu, cpu]) await trainer.settle();
    const difference = weightDifference(gpu, cpu);
    assert.ok(difference < 2e-4, `weights differ by ${difference}`);
    assert.deepEqual(gpu.mask, cpu.mask);
    for (const { name, offset, length } of gpu.layout.slots) {
      if (!isPrunable(name)) continue;
      const zeros = gpu.weights.subarray(offset, offset + length).filter((value) => value === 0);
      assert.equal(zeros.length, length / 2, `zeros of ${name}`);
    }
  }, classifier(dropping));
});

for (const name of optimizerNames) {
  gpuTest(`a GPU updates with ${name} as the CPU does`, async () => {
    await onBoth({ optimizer: optimizerDefaults(name), groups: { layerDecay: 0.5 } }, async (gpu, cpu) => {
      const factors = gpu.groups.map((_, index) => ({ learningRate: 1 + index, weightDecay: 2 }));
      for (let step = 1; step <= 3; step++) {
        for (const trainer of [gpu, cpu]) await trainer.step([tinyExamples(8)], step, { ...told, factors });
      }
      for (const trainer of [gpu, cpu]) await trainer.settle();
      const difference = weightDifference(gpu, cpu);
      assert.ok(difference < 2e-5, `weights differ by ${difference}`);
      for (const [state, values] of gpu.states) {
        const difference = largestDifference(values, cpu.states.get(state)!);
        assert.ok(difference < 1e-5, `${state} differs by ${difference}`);
      }
    });
  });
}

gpuTest("a GPU makes one step of several batches as the CPU does", async () => {
  const optimizer = { ...optimizerDefaults("sgd"), momentum: 0.9 } as const;
  await onBoth({ optimizer, accumulates: true }, async (gpu, cpu) => {
    const all = tinyExamples(8);
    const parts = [all.slice(0, 5), all.slice(5, 7), all.slice(7)];
    for (let step = 1; step <= 3; step++) {
      const found = await gpu.step(parts, step, told);
      const wanted = await cpu.step(parts, step, told);
      assert.ok(Math.abs(found.loss - wanted.loss) < 1e-5, `loss ${found.loss}, wanted ${wanted.loss}`);
      assert.ok(Math.abs(found.gradientNorm / wanted.gradientNorm - 1) < 1e-4);
    }
    for (const trainer of [gpu, cpu]) await trainer.settle();
    const difference = weightDifference(gpu, cpu);
    assert.ok(difference < 1e-6, `weights differ by ${difference}`);
  }, classifier(dropping));
});

for (
  const [pattern, scope] of [
    ["unstructured", "layer"],
    ["unstructured", "global"],
    ["2:4", "layer"],
    ["4x1", "layer"],
  ] as const
) {
  gpuTest(
    `masks of ${pattern} by ${scope} are the CPU's bit by bit, and prune weights and moments`,
    async () => {
      await onBoth({ pattern: "unstructured" }, async (gpu, cpu) => {
        const refresh = async (trainer: Trainer<EncodedExample>, final: number) => {
          const schedule = pruningSchedule("one-shot", {
            ...{ initialSparsity: 0, finalSparsity: final, begin: 0, end: 0, every: 1 },
          });
          const targets = [String.raw`re:.*layer\.\d+\..*\.dense\.weight`];
          const phase = { method: { name: "magnitude" }, pattern, scope, targets, schedule } as const;
          return await refreshMasks(trainer as unknown as Trainer<never>, phase, 0);
        };
        for (const [step, sparsity] of [[1, 0.2], [2, 0.5]]) {
          await gpu.step([tinyExamples(8)], step, told);
          await gpu.settle();
          cpu.weights.set(gpu.weights);
          for (const [name, state] of cpu.states) state.set(gpu.states.get(name)!);
          assert.equal(await refresh(gpu, sparsity), await refresh(cpu, sparsity));
          await gpu.settle();
          assert.deepEqual(gpu.mask, cpu.mask);
          assert.deepEqual(gpu.weights, cpu.weights);
          assert.deepEqual(gpu.states, cpu.states);
        }
        assert.ok(gpu.sparsity > 0.2, `${gpu.sparsity}`);
      });
    },
  );
}

gpuTest("masks of weights that are NaN are refused, and stay as they were", async () => {
  const gpu = await gpuTrainer(classifier(config));
  const { name } = gpu.layout.slots[1];
  gpu.parameter(gpu.layout.slots[1])[5] = NaN;
  const mask = gpu.mask.slice();
  const refresh = { names: new Set([name]), pattern: "unstructured", scope: "layer", sparsity: 0.5 } as const;
  await assert.rejects(gpu.pruneByMagnitude(refresh), {
    name: "InputError",
    message: `Cannot prune ${name}: score 5 is NaN, wanted a number`,
  });
  await gpu.settle();
  assert.deepEqual(gpu.mask, mask);
  await gpu.dispose();
});

gpuTest("a GPU's gradient and answers are the CPU's, and change nothing", async () => {
  await onBoth({}, async (gpu, cpu) => {
    const batch = tinyExamples(7);
    for (const trainer of [gpu, cpu]) await maskHalf(trainer);
    await gpu.step([batch], 1, told);
    await gpu.settle();
    const before = gpu.weights.slice();
    cpu.weights.set(before);
    assert.ok(Math.abs(await gpu.gradient(batch) - await cpu.gradient(batch)) < 1e-5);
    const difference = largestDifference(gpu.gradients, cpu.gradients);
    assert.ok(difference < 1e-5, `gradients differ by ${difference}`);
    const [found, wanted] = [await gpu.evaluate(batch), await cpu.evaluate(batch)];
    assert.ok(Math.abs(found.loss - wanted.loss) < 1e-5);
    const [logits, known] = [found.outputs.get("logits")!, wanted.outputs.get("logits")!];
    assert.equal(logits.rows, 3);
    for (let row = 0; row < 3; row++) {
      for (let column = 0; column < batch.length; column++) {
        const value = logits.values[row * logits.stride + column];
        assert.ok(Math.abs(value - known.values[row * known.stride + column]) < 1e-5);
      }
    }
    assert.deepEqual(gpu.weights, before);
  }, classifier(dropping));
});

gpuTest(
  "a GPU tells the results of steps in their order, each once, however few are waited for",
  async () => {
    await onBoth({}, async (gpu, cpu) => {
      const wanted: number[] = [];
      const found: number[] = [];
      for (let step = 1; step <= 40; step++) {
        const batch = tinyExamples(1 + step % 8);
        wanted.push((await cpu.step([batch], step, told)).loss);
        for (const { loss } of await gpu.advance([batch], step, told)) found.push(loss);
        if (step === 21) await gpu.evaluate(batch);
      }
      assert.ok(found.length >= 16 && found.length < 40, `${found.length} results without waiting`);
      for (const { loss } of await gpu.drain()) found.push(loss);
      assert.deepEqual(await gpu.drain(), []);
      const difference = largestDifference(Float32Array.from(found), Float32Array.from(wanted));
      assert.ok(difference < 1e-4, `losses differ by ${difference}`);
    });
  },
);
