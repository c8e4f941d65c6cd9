import assert from "node:assert/strict";
import type { BertConfig } from "../models/config.ts";
import { presetConfig } from "../models/presets.ts";
import { InputError } from "../src/core/errors.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { type WeightSource, writeOnnx } from "../src/export/onnx.ts";
import { measureAlone } from "./alone.ts";
import { onnxRuntime, strongestOnnxRuntime } from "./baselines.ts";
import { type BenchRunOptions, compareLogits, runBench } from "./compare.ts";
import type { EncodedBatch } from "./engine.ts";
import { agrees } from "./result.ts";

const config: BertConfig = presetConfig("bert-tiny", { vocabularySize: 40, maximumPositions: 16 });

/** Weights by name, as long as a BERT of `config` wants them. */
const randomWeight: WeightSource = (name) => {
  const { hiddenSize, intermediateSize } = config;
  const stream = new RandomStream(randomKey(7, name));
  const isVector = /(LayerNorm\.weight|bias)$/.test(name);
  const outputs = /^classifier/.test(name)
    ? config.labels.length
    : /word_embeddings/.test(name)
    ? config.vocabularySize
    : /position_embeddings/.test(name)
    ? config.maximumPositions
    : /token_type/.test(name)
    ? config.typeVocabularySize
    : /intermediate/.test(name)
    ? intermediateSize
    : hiddenSize;
  const inputs = isVector ? 1 : /\d\.output\.dense/.test(name) ? intermediateSize : hiddenSize;
  const mean = name.endsWith("LayerNorm.weight") ? 1 : 0;
  return Float32Array.from({ length: outputs * inputs }, () => mean + 0.1 * stream.normal());
};

/** A folder with the model in every form the baselines read. */
async function withModels(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${folder}/hub/onnx`, { recursive: true });
    const shape = { hidden_size: config.hiddenSize, num_attention_heads: config.heads };
    const json = { architectures: ["BertForSequenceClassification"], model_type: "bert", ...shape };
    await Deno.writeTextFile(`${folder}/hub/config.json`, JSON.stringify(json));
    await writeOnnx(`${folder}/hub/onnx/model.onnx`, config, randomWeight, { operators: "standard" });
    await writeOnnx(`${folder}/fused.onnx`, config, randomWeight, { operators: "fused" });
    await writeOnnx(`${folder}/int8.onnx`, config, randomWeight, { operators: "standard", weights: "int8" });
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const machine = { cpu: "test", isa: "test", cores: 1, caches: [], peak_gflops: 1 };

Deno.test("runBench: every engine gets a row, all answers agree, the JSON has the keys of the contract", async () => {
  await withModels(async (folder) => {
    const activities: string[] = [];
    const result = await runBench({
      // Stands in for lacuna: another engine that computes the same function by other operators.
      lacuna: [onnxRuntime({ path: `${folder}/fused.onnx`, dtype: "fp32", sparsity: 0.5, threads: 1 })],
      baselines: {
        onnxFp32: [`${folder}/hub/onnx/model.onnx`, `${folder}/fused.onnx`],
        onnxInt8: [`${folder}/int8.onnx`],
        transformersFolder: `${folder}/hub`,
        sparsity: 0.5,
      },
      vocabularySize: config.vocabularySize,
      tokens: 8,
      batch: 2,
      threads: 1,
      seconds: 0.1,
      machine,
      config: { model: "tiny" },
      onProgress: (activity) => activities.push(activity),
    });
    assert.deepEqual(JSON.parse(JSON.stringify(result)), result, "survives JSON");
    assert.deepEqual(Object.keys(result), ["machine", "config", "rows"]);
    assert.equal(result.config.model, "tiny");
    assert.deepEqual(
      result.rows.map((row) => [row.engine, row.dtype]),
      [["onnxruntime", "fp32"], ["onnxruntime", "fp32"], ["onnxruntime", "int8"], [
        "transformers.js",
        "fp32",
      ]],
    );
    // deno-fmt-ignore
    const keys = [
      "engine", "backend", "weights", "dtype", "pattern", "sparsity", "threads", "batch", "tokens", "latency_ms",
      "items_per_second", "speedup_vs_dense_fp32", "max_abs_logit_difference", "relative_logit_difference", "load_ms",
      "first_answer_ms", "rss_mb", "file_mb",
    ];
    for (const row of result.rows) {
      assert.deepEqual(Object.keys(row), keys);
      assert.deepEqual(Object.keys(row.latency_ms), ["p50", "p95", "p99", "mean", "std"]);
      assert.deepEqual([row.batch, row.tokens, row.threads, row.sparsity], [2, 8, 1, 0.5]);
      assert(agrees(row), `${row.engine} differs by ${row.relative_logit_difference}`);
      assert(row.first_answer_ms > row.load_ms && row.load_ms > 0);
      assert(row.rss_mb > 20, "a process that runs Deno holds more than 20 MB");
      const perCall = row.latency_ms.mean * row.items_per_second / 1000;
      assert(Math.abs(perCall - row.batch) < 1e-9 * row.batch, "items per second follow from the mean");
    }
    const [stand_in, reference, int8] = result.rows;
    assert.equal(reference.speedup_vs_dense_fp32, 1);
    assert.equal(reference.max_abs_logit_difference, 0);
    assert.equal(stand_in.speedup_vs_dense_fp32, reference.latency_ms.p50 / stand_in.latency_ms.p50);
    assert(int8.max_abs_logit_difference > 0, "int8 rounds");
    assert(int8.file_mb < reference.file_mb);
    assert(activities.includes("timing"));
  });
});

Deno.test("strongestOnnxRuntime: chooses among operators and ways of waiting", async () => {
  await withModels(async (folder) => {
    const candidate = (name: string) =>
      ({ path: `${folder}/${name}`, dtype: "fp32", sparsity: 0, threads: 1 }) as const;
    const batch: EncodedBatch = { inputIds: [[1, 2]], attentionMask: [[1, 1]], tokenTypeIds: [[0, 0]] };
    const candidates = ["hub/onnx/model.onnx", "fused.onnx"].map(candidate);
    const source = await strongestOnnxRuntime(candidates, batch, 0.05);
    assert(candidates.some(({ path }) => path === source.options.path));
    assert.equal(typeof source.options.spinning, "boolean");
    await assert.rejects(strongestOnnxRuntime([candidate("missing.onnx")], batch), Deno.errors.NotFound);
    await assert.rejects(strongestOnnxRuntime([], batch), RangeError);
  });
});

Deno.test("measureAlone: an engine that cannot be opened fails with its own message", async () => {
  const batch: EncodedBatch = { inputIds: [[1]], attentionMask: [[1]], tokenTypeIds: [[0]] };
  const module =
    "data:text/javascript,export const openEngine = () => Promise.reject(new Error('no such model'));";
  await assert.rejects(measureAlone({ source: { module, options: {} }, batch }), /no such model/);
  const empty = "data:text/javascript,export const open = 1;";
  await assert.rejects(
    measureAlone({ source: { module: empty, options: {} }, batch }),
    /does not export openEngine/,
  );
});

Deno.test("compareLogits: largest difference, and its share of the range of the reference", () => {
  const reference = [Float32Array.of(-1, 0), Float32Array.of(3, 1)];
  const answers = [Float32Array.of(-1, 0.5), Float32Array.of(2, 1)];
  assert.deepEqual(compareLogits(answers, reference), { absolute: 1, relative: 0.25 });
  assert.deepEqual(compareLogits(reference, reference), { absolute: 0, relative: 0 });
  const broken = compareLogits([Float32Array.of(NaN, 0), reference[1]], reference);
  assert.deepEqual(broken, { absolute: NaN, relative: NaN });
  assert.throws(() => compareLogits([Float32Array.of(1)], reference), /Cannot compare 1 logits with 2/);
});

Deno.test("runBench: refuses sizes that are not, naming the flag and the value", async () => {
  const options: BenchRunOptions = {
    lacuna: [],
    baselines: { onnxFp32: [], sparsity: 0 },
    vocabularySize: 10,
    tokens: 8,
    batch: 1,
    threads: 1,
    seconds: 1,
    machine,
  };
  await assert.rejects(
    runBench({ ...options, batch: 0 }),
    new InputError("--batch is 0, wanted a whole number from 1"),
  );
  await assert.rejects(runBench({ ...options, tokens: 1.5 }), /--tokens is 1.5/);
  await assert.rejects(runBench({ ...options, seconds: NaN }), /--seconds is NaN/);
});
