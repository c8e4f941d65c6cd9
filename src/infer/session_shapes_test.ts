/** Sessions at every length, on every machine, with any number of workers, at any emptiness, and at BERT's own size. */
import assert from "node:assert/strict";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { presetConfig } from "../../models/presets.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { writeOnnx } from "../export/onnx.ts";
import { availableMachines, type Machine } from "../machines/mod.ts";
import { WorkerPool } from "../../workers/pool.ts";
import type { SessionInput } from "./encoder_session.ts";
import { assertLogits, poisoned, RandomModel, type RandomModelOptions } from "./random_model.ts";
import { Session, type SessionOptions } from "./session.ts";

/** No size is a multiple of a vector or of a block of rows. */
const small = {
  ...presetConfig("bert-tiny", { vocabularySize: 120, maximumPositions: 130 }),
  hiddenSize: 36,
  intermediateSize: 54,
  heads: 3,
  labels: ["bad", "good", "neither"],
};

const patterns = ["unstructured", "4x1"] as const;

async function open(
  { folder }: RandomModel,
  machine: Machine,
  threads: number,
  createExecutor: SessionOptions["createExecutor"] = poisoned,
): Promise<Session> {
  return await Session.open(await openModel(folder), { machine, threads, createExecutor });
}

for (const pattern of patterns) {
  Deno.test(`Session gives the reference's logits for every length from 1 to 130, ${pattern}, on every machine`, async () => {
    await using model = await RandomModel.write({ config: small, pattern, density: 0.15, deviation: 0.3 });
    const texts = model.texts(Array.from({ length: 130 }, (_, index) => index + 1), 1);
    const expected = texts.map((text) => model.expectedLogits([text])[0]);
    for (const machine of availableMachines()) {
      const session = await open(model, machine, 2);
      assert.deepEqual(new Set(session.layers.map(({ kernel }) => kernel)), new Set([pattern]));
      const found: Float32Array[] = [];
      for (const text of texts) found.push(...await session.logits([text]));
      assertLogits(found, expected, `${machine.isa}, ${pattern}, one by one`);
      assert.deepEqual(await session.logits(texts), found, `${machine.isa}, ${pattern}, all at once`);
      await session.dispose();
    }
  });
}

Deno.test("Session gives the same bits with 1, 2, 3 and 4 threads, of whatever pattern, on every machine", async () => {
  for (const pattern of patterns) {
    await using model = await RandomModel.write({ config: small, pattern, density: 0.15, deviation: 0.3 });
    const texts = model.texts([1, 130, 17, 64, 3, 3, 90], 2);
    for (const machine of availableMachines()) {
      const answers: Float32Array[][] = [];
      for (const threads of [1, 2, 3, 4]) {
        const session = await open(model, machine, threads, (options) => WorkerPool.create(options));
        answers.push(await session.logits(texts));
        await session.dispose();
      }
      for (const answer of answers) assert.deepEqual(answer, answers[0], `${machine.isa}, ${pattern}`);
    }
  }
});

/** Shares of the rows of blocks: matrices with nothing at all, one full row in an empty matrix, and rows of all kinds. */
const uneven: Exclude<RandomModelOptions["density"], number> = (name, blockRow) => {
  if (name.includes("layer.0.attention.self.query")) return 0;
  if (name.includes("layer.0.attention.self.key")) return blockRow === 5 ? 1 : 0;
  return [0, 1, 0, 0.1, 0, 0.02][blockRow % 6];
};

Deno.test("Session gives the reference's logits where rows and blocks are empty or full, on every machine", async () => {
  for (const pattern of patterns) {
    await using model = await RandomModel.write({ config: small, pattern, density: uneven, deviation: 0.3 });
    const texts = model.texts([40, 1, 77], 3);
    const expected = model.expectedLogits(texts);
    for (const machine of availableMachines()) {
      const session = await open(model, machine, 2);
      // What is empty or full in rows of blocks may be stored in blocks, whichever way it was pruned.
      const kernels = new Set(session.layers.map(({ kernel }) => kernel));
      assert.ok(kernels.has(pattern) && !kernels.has("dense"));
      assert.equal(session.layers[0].sparsity, 1);
      assertLogits(await session.logits(texts), expected, `${machine.isa}, ${pattern}`);
      await session.dispose();
    }
  }
});

/** Logits of ONNX Runtime for texts padded to the longest. */
async function onnxRuntimeLogits(
  model: RandomModel,
  texts: readonly SessionInput[],
): Promise<Float32Array[]> {
  const path = join(model.folder, "model.onnx");
  await writeOnnx(path, model.config, (name) => model.weights.get(name)!, { operators: "standard" });
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 2 });
  const tokens = Math.max(...texts.map(({ ids }) => ids.length));
  const tensor = (value: (text: SessionInput, token: number) => number) => {
    const rows = texts.flatMap((text) =>
      Array.from({ length: tokens }, (_, token) => value(text, token) ?? 0)
    );
    return new ort.Tensor("int64", BigInt64Array.from(rows, BigInt), [texts.length, tokens]);
  };
  const { logits } = await session.run({
    input_ids: tensor(({ ids }, token) => ids[token]),
    attention_mask: tensor(({ ids }, token) => token < ids.length ? 1 : 0),
    token_type_ids: tensor(({ typeIds }, token) => typeIds[token]),
  });
  await session.release();
  const flat = logits.data as Float32Array;
  const classes = model.config.labels.length;
  return texts.map((_, text) => flat.slice(text * classes, (text + 1) * classes));
}

/** Largest difference as a share of the largest logit. */
function relativeDifference(found: readonly Float32Array[], expected: readonly Float32Array[]): number {
  const scale = Math.max(...expected.flatMap((row) => [...row]).map(Math.abs));
  return Math.max(
    ...found.flatMap((row, text) => [...row].map((x, k) => Math.abs(x - expected[text][k]) / scale)),
  );
}

const base = presetConfig("bert-base", { vocabularySize: 400, maximumPositions: 128 });

for (
  const [layers, pattern, density, lengths] of [
    [2, "unstructured", 0.1, [128, 1, 33]],
    [2, "4x1", 0.1, [128, 1, 33]],
    [2, "unstructured", 1, [97]],
    [12, "unstructured", 0.1, [128, 50]],
  ] as const
) {
  const what = `${layers} layers of BERT-base's width, ${pattern} with ${100 * density} % kept`;
  Deno.test(`Session gives ONNX Runtime's logits to 1e-4 of their size: ${what}`, async () => {
    const config = { ...base, layers };
    await using model = await RandomModel.write({ config, pattern, density, deviation: 0.05 });
    const texts = model.texts(lengths, 4);
    const expected = await onnxRuntimeLogits(model, texts);
    // On slow machines the whole model takes seconds and shows nothing new.
    for (const machine of layers === 12 ? availableMachines().slice(0, 1) : availableMachines()) {
      const session = await open(model, machine, 2);
      const kernels = new Set(session.layers.map(({ kernel }) => kernel));
      assert.deepEqual(kernels, new Set([density === 1 ? "dense" : pattern]));
      const difference = relativeDifference(await session.logits(texts), expected);
      await session.dispose();
      assert.ok(
        difference <= 1e-4,
        `${machine.isa}, ${what}: the logits differ by ${difference} of the largest`,
      );
    }
  });
}
