/**
 * The BERT graph against PyTorch: references in float64, then the engine's kernels in float32, forward, gradients
 * and ten optimiser steps. `src/graph/golden` has the numbers, `tools/golden/bert.py` made them.
 */
import assert from "node:assert/strict";
import { RandomStream } from "../src/core/random.ts";
import { type EncodedExample, makeBatchViews, packBatch } from "../src/data/batches.ts";
import { learningRateSchedule } from "../src/finetune/schedules/mod.ts";
import { classifier } from "../src/finetune/tasks/classification.ts";
import { checkDifferences } from "../src/finetune/tasks/gradient_check.ts";
import { Trainer } from "../src/finetune/trainer.ts";
import {
  bertGolden,
  type GoldenBatch,
  goldenParameters,
  type GoldenTensor,
} from "../src/graph/golden/mod.ts";
import { differentiate } from "../src/graph/autodiff.ts";
import { Graph } from "../src/graph/graph.ts";
import { interpret } from "../src/graph/interpreter.ts";
import type { NumberArray } from "../src/graph/operation.ts";
import { availableMachines } from "../src/machines/mod.ts";
import { InlineExecutor } from "../src/plan/executor.ts";
import { bertInputs, buildBert } from "./bert.ts";
import { type BertConfig, parseBertConfig } from "./config.ts";

const golden = bertGolden();
const config: BertConfig = {
  ...parseBertConfig({ ...golden.config, model_type: "bert" }, "golden"),
  labels: ["a", "b", "c"],
  hiddenDropout: 0,
  attentionDropout: 0,
  classifierDropout: 0,
};

function examplesOf(batch: GoldenBatch): EncodedExample[] {
  let begin = 0;
  return batch.lengths.map((length, sequence) => {
    const end = begin + length;
    const example = {
      ids: Int32Array.from(batch.tokenIds.slice(begin, end)),
      typeIds: Int32Array.from(batch.typeIds.slice(begin, end)),
      label: batch.labels[sequence],
    };
    begin = end;
    return example;
  });
}

function batchFeeds(columns: number, sequences: number): Map<string, NumberArray> {
  const views = makeBatchViews({ columns, sequences });
  packBatch(examplesOf(golden.batch), views);
  return new Map<string, NumberArray>(
    Object.entries({ ...views, [bertInputs.seed]: new Int32Array(2) }),
  );
}

/** Largest difference, as a share of the largest expected value. */
function relativeDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]));
    // Not Math.max alone: a NaN must not pass.
    if (!(Math.abs(found[i] - expected[i]) <= difference)) difference = Math.abs(found[i] - expected[i]);
  }
  return difference / largest;
}

function assertClose(what: string, found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number) {
  const difference = relativeDifference(found, expected);
  assert.ok(
    difference <= tolerance,
    `${what}: relative difference ${difference}, wanted at most ${tolerance}`,
  );
}

/** [rows, columns] of a row-major [columns, stride] matrix: golden logits are [sequences, labels]. */
function transposed(values: ArrayLike<number>, rows: number, columns: number, stride: number): number[] {
  return Array.from(
    { length: rows * columns },
    (_, i) => values[(i % columns) * stride + Math.floor(i / columns)],
  );
}

Deno.test("buildBert's references equal PyTorch in float64: hidden states, logits, loss and every gradient", () => {
  const columns = 48;
  const sequences = 8;
  const graph = new Graph();
  const { logits, loss, hidden } = buildBert(graph, config, { columns, sequences, mode: "train" });
  const gradients = differentiate(graph, loss!);
  const feeds = batchFeeds(columns, sequences);
  for (const [name, { data }] of goldenParameters(golden.config)) feeds.set(name, Float64Array.from(data));
  const values = interpret(graph, feeds);
  const run = golden.float64;

  const tokens = golden.batch.tokenIds.length;
  hidden.forEach((state, layer) => {
    const expected = run.hiddenStates[layer + 1].data;
    const found = transposed(values.get(state.id)!, tokens, config.hiddenSize, columns);
    assertClose(`hidden state ${layer}`, found, expected, 1e-9);
  });
  const count = golden.batch.lengths.length;
  const foundLogits = transposed(values.get(logits.id)!, count, config.labels.length, sequences);
  assertClose("logits", foundLogits, run.logits.data, 1e-9);
  assertClose("loss", values.get(loss!.id)!, [run.loss], 1e-9);
  assert.deepEqual([...gradients.keys()].sort(), [...run.gradients.keys()].sort());
  for (const [name, { data }] of run.gradients) {
    const found = values.get(gradients.get(name)!.id)!;
    // The gradient of a key bias is zero in exact arithmetic; both sides have rounding there.
    if (name.endsWith("key.bias")) assert.ok(found.every((value) => Math.abs(value) < 1e-12), name);
    else assertClose(`gradient of ${name}`, found, data, 1e-8);
  }
});

Deno.test("differentiate agrees with central differences of the whole graph, dropout included", () => {
  const columns = 48;
  const sequences = 8;
  const dropped = { ...config, hiddenDropout: 0.1, attentionDropout: 0.1, classifierDropout: 0.1 };
  const graph = new Graph();
  const { loss } = buildBert(graph, dropped, { columns, sequences, mode: "train" });
  const forwardOnly = new Graph();
  const forward = buildBert(forwardOnly, dropped, { columns, sequences, mode: "train" });
  const gradients = differentiate(graph, loss!);
  const feeds = batchFeeds(columns, sequences);
  feeds.set(bertInputs.seed, Int32Array.of(12345, -6789));
  for (const [name, { data }] of goldenParameters(golden.config)) feeds.set(name, Float64Array.from(data));
  const values = interpret(graph, feeds);
  const lossAt = () => interpret(forwardOnly, feeds).get(forward.loss!.id)![0];

  checkDifferences({ gradients, values, feeds, lossAt, stream: new RandomStream({ low: 7, high: 11 }) });
});

async function makeTrainer(machine: ReturnType<typeof availableMachines>[number], workers: number) {
  const { training } = golden;
  const trainer = await Trainer.create({
    model: classifier(config),
    machine,
    workers,
    createExecutor: (options) => {
      // Poison: whatever is read before it is written shows as NaN.
      new Uint32Array(options.arena.memory.buffer).fill(0x7fc0dead);
      return Promise.resolve(new InlineExecutor(options.machine, options.threads, options.arena));
    },
    maximumSequences: 5,
    maximumTokens: 40,
    seed: 1,
    optimizer: { name: "adamw", ...training, amsgrad: false },
    maximumNorm: training.maxGradientNorm,
  });
  for (const state of [trainer.weights, ...trainer.states.values(), trainer.gradients]) {
    state.fill(0);
  }
  const initial = goldenParameters(golden.config);
  for (const slot of trainer.layout.slots) trainer.parameter(slot).set(initial.get(slot.name)!.data);
  return trainer;
}

for (const machine of availableMachines()) {
  Deno.test(`Trainer equals PyTorch on ${machine.isa}: logits, gradients, ten AdamW steps`, async () => {
    const trainer = await makeTrainer(machine, 2);
    const examples = examplesOf(golden.batch);
    const { training } = golden;
    const run = golden.float64;
    const answers = await trainer.evaluate(examples);
    const { values, stride } = answers.outputs.get("logits")!;
    const found = transposed(values, examples.length, config.labels.length, stride);
    assertClose("logits", found, run.logits.data, 2e-6);
    assertClose("loss", [answers.loss], [run.loss], 1e-6);

    const rates = learningRateSchedule("linear", {
      warmupSteps: training.warmupSteps,
      totalSteps: training.steps,
    });
    for (let step = 0; step < training.steps; step++) {
      const rate = training.learningRate * rates.factor(step);
      assert.ok(Math.abs(rate - run.training.learningRates[step]) < 1e-12);
      const { loss, gradientNorm } = await trainer.step([examples], step + 1, {
        learningRate: rate,
        weightDecay: training.weightDecay,
      });
      assertClose(`loss of step ${step + 1}`, [loss], [run.training.losses[step]], 2e-6);
      assertClose(
        `gradient norm of step ${step + 1}`,
        [gradientNorm],
        [run.training.gradientNorms[step]],
        1e-5,
      );
      if (step > 0) continue;
      for (const slot of trainer.layout.slots) {
        const gradient = trainer.gradients.subarray(slot.offset, slot.offset + slot.length);
        const expected = run.gradients.get(slot.name) as GoldenTensor<Float64Array>;
        if (slot.name.endsWith("key.bias")) {
          assert.ok(gradient.every((value) => Math.abs(value) < 1e-6), slot.name);
        } else assertClose(`gradient of ${slot.name}`, gradient, expected.data, 2e-5);
      }
    }
    for (const slot of trainer.layout.slots) {
      if (slot.name.endsWith("key.bias")) continue;
      const expected = run.training.finalParameters.get(slot.name)!;
      assertClose(`final ${slot.name}`, trainer.parameter(slot), expected.data, 1e-5);
    }
    await trainer.dispose();
  });

  Deno.test(`Trainer gives the same bits for any number of workers on ${machine.isa}`, async () => {
    const results: Float32Array[] = [];
    for (const workers of [1, 2, 3]) {
      const trainer = await makeTrainer(machine, workers);
      for (let step = 1; step <= 3; step++) {
        await trainer.step([examplesOf(golden.batch)], step, { learningRate: 1e-3, weightDecay: 0.01 });
      }
      results.push(trainer.weights.slice());
      await trainer.dispose();
    }
    assert.deepEqual(results[1], results[0]);
    assert.deepEqual(results[2], results[0]);
  });
}
