/** Sessions: sparse answers equal the reference, whatever the batch, the workers and the callers. */
import assert from "node:assert/strict";
import { bertInputs, buildBert } from "../../models/bert.ts";
import { bertConfigJson, bertTensorShapes } from "../../models/config.ts";
import { presetConfig } from "../../models/presets.ts";
import { WorkerPool } from "../../workers/pool.ts";
import { openModel, saveModel } from "../checkpoint/model_folder.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { makeBatchViews, packBatch } from "../data/batches.ts";
import { Graph } from "../graph/graph.ts";
import { interpret } from "../graph/interpreter.ts";
import type { NumberArray } from "../graph/operation.ts";
import { availableMachines } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { magnitude } from "../pruning/magnitude.ts";
import { applyMask, pruneMasks } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import type { SessionInput } from "./encoder_session.ts";
import { Session, type SessionOptions } from "./session.ts";

const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 120, maximumPositions: 48 }),
  hiddenSize: 36,
  intermediateSize: 52,
  heads: 3,
  labels: ["bad", "good", "neither"],
};

interface TinyModel {
  readonly folder: string;
  readonly weights: ReadonlyMap<string, Float32Array>;
}

async function writeTinyModel(pattern: Pattern, sparsity: number): Promise<TinyModel> {
  const tensors = Array.from(bertTensorShapes(config), ([name, shape]) => {
    const stream = new RandomStream(randomKey(3, name));
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 0.3 * stream.normal());
    if (name.endsWith("LayerNorm.weight")) data.forEach((value, i) => data[i] = 1 + value);
    return { name, shape, data };
  });
  const prunable = tensors.filter(({ name }) => isPrunable(name));
  const masks = pruneMasks(
    prunable.map(({ name, shape, data }) => ({ name, rows: shape[0], columns: shape[1], values: data })),
    { method: magnitude, pattern, scope: "layer", sparsity },
  );
  for (const { name, data } of prunable) applyMask(data, masks.get(name)!);
  const folder = await Deno.makeTempDir();
  await saveModel(folder, {
    configJson: bertConfigJson(config),
    tensors,
    tokenizerFiles: new Map(),
    format: "sparse-bitmask",
    overwrite: true,
  });
  return { folder, weights: new Map(tensors.map(({ name, data }) => [name, data])) };
}

function randomTexts(lengths: readonly number[], seed: number): SessionInput[] {
  const stream = new RandomStream(randomKey(seed, "texts"));
  return lengths.map((length) => ({
    ids: Int32Array.from({ length }, () => stream.below(config.vocabularySize)),
    typeIds: Uint8Array.from({ length }, (_, i) => i > length / 2 ? 1 : 0),
  }));
}

/** Logits in float64 from the references. */
function expectedLogits(model: TinyModel, inputs: readonly SessionInput[]): Float64Array[] {
  const columns = inputs.reduce((sum, { ids }) => sum + ids.length, 0);
  const sequences = inputs.length;
  const graph = new Graph();
  const { logits } = buildBert(graph, config, { columns, sequences, mode: "infer" });
  const views = makeBatchViews({ columns, sequences });
  packBatch(inputs.map((input) => ({ ...input, label: -1 })), views);
  const feeds = new Map<string, NumberArray>(
    Object.entries({ ...views, [bertInputs.seed]: new Int32Array(2) }),
  );
  for (const [name, data] of model.weights) feeds.set(name, Float64Array.from(data));
  const values = interpret(graph, feeds).get(logits.id)!;
  return inputs.map((_, column) =>
    Float64Array.from({ length: config.labels.length }, (_, k) => values[k * sequences + column])
  );
}

function assertLogits(found: readonly Float32Array[], expected: readonly Float64Array[], what: string) {
  assert.equal(found.length, expected.length);
  found.forEach((row, text) =>
    row.forEach((value, k) =>
      assert.ok(
        Math.abs(value - expected[text][k]) <= 1e-4 * Math.max(1, Math.abs(expected[text][k])),
        `${what}: text ${text}, class ${k}: found ${value}, expected ${expected[text][k]}`,
      )
    )
  );
}

/** An executor on the calling thread whose memory is full of NaN, so that a read of stale data shows. */
const poisoned: SessionOptions["createExecutor"] = (options) => {
  new Uint32Array(options.arena.memory.buffer).fill(0x7fc0dead);
  return Promise.resolve(new InlineExecutor(options.machine, options.threads, options.arena));
};

for (const [pattern, sparsity] of [["unstructured", 0.9], ["4x1", 0.8], ["unstructured", 0]] as const) {
  Deno.test(`Session gives the reference's logits at ${sparsity * 100} % ${pattern}, on every machine`, async () => {
    const model = await writeTinyModel(pattern, sparsity);
    try {
      for (const machine of availableMachines()) {
        const session = await Session.open(await openModel(model.folder), {
          machine,
          threads: 2,
          createExecutor: poisoned,
        });
        const kernels = new Set(session.layers.map(({ kernel }) => kernel));
        assert.deepEqual([...kernels], [sparsity === 0 ? "dense" : pattern]);
        for (const lengths of [[1], [3], [48], [7, 1, 16], [5, 9, 2, 31, 48, 12, 4, 4, 4, 4]]) {
          const inputs = randomTexts(lengths, lengths.length);
          const what = `${machine.isa}, lengths ${lengths}`;
          assertLogits(await session.logits(inputs), expectedLogits(model, inputs), what);
        }
        await session.dispose();
      }
    } finally {
      await Deno.remove(model.folder, { recursive: true });
    }
  });
}

Deno.test("Session gives the same bits for any number of threads, and cuts long calls into runs", async () => {
  const model = await writeTinyModel("unstructured", 0.9);
  try {
    const inputs = randomTexts(Array.from({ length: 60 }, (_, i) => 1 + (i * 7) % 48), 5);
    const answers: Float32Array[][] = [];
    for (const [threads, maximumTokens] of [[1, 2048], [2, 2048], [3, 2048], [2, 100]]) {
      const session = await Session.open(await openModel(model.folder), {
        machine: availableMachines()[0],
        threads,
        maximumTokens,
        createExecutor: (options) => WorkerPool.create(options),
      });
      answers.push(await session.logits(inputs));
      await session.dispose();
    }
    assert.deepEqual(answers[1], answers[0]);
    assert.deepEqual(answers[2], answers[0]);
    assertLogits(answers[3], expectedLogits(model, inputs), "cut into runs");
  } finally {
    await Deno.remove(model.folder, { recursive: true });
  }
});

Deno.test("Session answers concurrent callers, each with its own answers", async () => {
  const model = await writeTinyModel("4x1", 0.9);
  try {
    const session = await Session.open(await openModel(model.folder), {
      machine: availableMachines()[0],
      threads: 2,
      createExecutor: (options) => WorkerPool.create(options),
    });
    const calls = Array.from({ length: 30 }, (_, i) => randomTexts([1 + (i * 5) % 40, 3], i));
    const alone: Float32Array[][] = [];
    for (const call of calls) alone.push(await session.logits(call));
    const together = await Promise.all(calls.map((call) => session.logits(call)));
    assert.deepEqual(together, alone);
    await session.dispose();
  } finally {
    await Deno.remove(model.folder, { recursive: true });
  }
});

Deno.test("Session of a sparse model takes less memory for weights than a dense one", async () => {
  const model = await writeTinyModel("unstructured", 0.9);
  try {
    const open = (dense: boolean) =>
      openModel(model.folder).then((opened) =>
        Session.open(opened, { machine: availableMachines()[0], threads: 1, createExecutor: poisoned, dense })
      );
    const sparse = await open(false);
    const dense = await open(true);
    assert.ok(sparse.weightBytes < dense.weightBytes);
    assert.ok(dense.layers.every(({ kernel }) => kernel === "dense"));
    const inputs = randomTexts([20, 11], 1);
    assertLogits(await dense.logits(inputs), expectedLogits(model, inputs), "dense");
    await sparse.dispose();
    await dense.dispose();
  } finally {
    await Deno.remove(model.folder, { recursive: true });
  }
});
