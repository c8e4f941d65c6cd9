import assert from "node:assert/strict";
import fc from "fast-check";
import * as ort from "onnxruntime-node";
import type { BertConfig } from "../../models/config.ts";
import { InputError } from "../core/errors.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { bertToOnnx, type OnnxOptions, type WeightSource, writeOnnx } from "./onnx.ts";
import { OnnxGraph } from "./onnx/graph.ts";
import { elementTypes, ModelProto } from "./onnx/schema.ts";

const tiny: BertConfig = {
  vocabularySize: 50,
  hiddenSize: 24,
  layers: 2,
  heads: 3,
  intermediateSize: 40,
  maximumPositions: 16,
  typeVocabularySize: 2,
  layerNormEpsilon: 1e-12,
  hiddenDropout: 0,
  attentionDropout: 0,
  classifierDropout: 0,
  initializerRange: 0.02,
  padTokenId: 0,
  labels: ["negative", "neutral", "positive"],
};

/** The shapes of `BertForSequenceClassification`, by name. */
function shapeOf(name: string, config: BertConfig): number[] {
  const { hiddenSize, intermediateSize } = config;
  if (/(LayerNorm\.weight|bias)$/.test(name)) {
    if (name.startsWith("classifier")) return [config.labels.length];
    return [/intermediate/.test(name) ? intermediateSize : hiddenSize];
  }
  if (/word_embeddings/.test(name)) return [config.vocabularySize, hiddenSize];
  if (/position_embeddings/.test(name)) return [config.maximumPositions, hiddenSize];
  if (/token_type_embeddings/.test(name)) return [config.typeVocabularySize, hiddenSize];
  if (/^classifier/.test(name)) return [config.labels.length, hiddenSize];
  if (/intermediate/.test(name)) return [intermediateSize, hiddenSize];
  return [hiddenSize, /\d\.output\.dense/.test(name) ? intermediateSize : hiddenSize];
}

/** Weights large enough that every layer changes the answer. */
function randomWeights(config: BertConfig, seed: number): WeightSource {
  return (name) => {
    const stream = new RandomStream(randomKey(seed, name));
    const mean = name.endsWith("LayerNorm.weight") ? 1 : 0;
    const length = shapeOf(name, config).reduce((a, b) => a * b, 1);
    return Float32Array.from({ length }, () => mean + 0.2 * stream.normal());
  };
}

interface Batch {
  readonly inputIds: number[][];
  readonly attentionMask: number[][];
  readonly tokenTypeIds: number[][];
}

async function run(model: Uint8Array, batch: Batch): Promise<Float32Array> {
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const tensor = (rows: number[][]) =>
    new ort.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length]);
  const { logits } = await session.run({
    input_ids: tensor(batch.inputIds),
    attention_mask: tensor(batch.attentionMask),
    token_type_ids: tensor(batch.tokenTypeIds),
  });
  assert.equal(logits.dims[0], batch.inputIds.length);
  await session.release();
  return logits.data as Float32Array;
}

function randomBatch(config: BertConfig, batch: number, tokens: number, seed: number): Batch {
  const stream = new RandomStream(randomKey(seed, "batch"));
  const rows = (draw: (column: number) => number) =>
    Array.from({ length: batch }, () => Array.from({ length: tokens }, (_, column) => draw(column)));
  return {
    inputIds: rows(() => stream.below(config.vocabularySize)),
    attentionMask: rows((column) => column === 0 || stream.uniform() < 0.8 ? 1 : 0),
    tokenTypeIds: rows(() => stream.below(config.typeVocabularySize)),
  };
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  assert.equal(a.length, b.length);
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}

Deno.test("bertToOnnx: both operator sets give the same logits, whatever the shape and the mask", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        headSize: fc.constantFrom(1, 4, 8),
        heads: fc.integer({ min: 1, max: 4 }),
        layers: fc.integer({ min: 1, max: 3 }),
        intermediateSize: fc.integer({ min: 1, max: 50 }),
        labels: fc.integer({ min: 1, max: 5 }),
        batch: fc.integer({ min: 1, max: 4 }),
        tokens: fc.integer({ min: 1, max: 16 }),
        seed: fc.integer({ min: 0, max: 2 ** 31 }),
      }),
      async ({ headSize, heads, layers, intermediateSize, labels, batch, tokens, seed }) => {
        const config: BertConfig = {
          ...tiny,
          hiddenSize: headSize * heads,
          heads,
          layers,
          intermediateSize,
          // A larger epsilon than usual, so that forgetting to pass it on would show.
          layerNormEpsilon: 1e-2,
          labels: Array.from({ length: labels }, (_, i) => `${i}`),
        };
        const weight = randomWeights(config, seed);
        const input = randomBatch(config, batch, tokens, seed);
        const standard = await run(bertToOnnx(config, weight, { operators: "standard" }), input);
        const fused = await run(bertToOnnx(config, weight, { operators: "fused" }), input);
        assert.equal(standard.length, batch * labels);
        assert(standard.every(Number.isFinite));
        const difference = largestDifference(standard, fused);
        assert(difference <= 1e-5, `largest difference ${difference}`);
      },
    ),
    { numRuns: 15 },
  );
});

Deno.test("bertToOnnx: int8 weights stay near the float32 logits in both operator sets", async () => {
  const weight = randomWeights(tiny, 3);
  const input = randomBatch(tiny, 4, 12, 3);
  const exact = await run(bertToOnnx(tiny, weight, { operators: "standard" }), input);
  const range = Math.max(...exact) - Math.min(...exact);
  for (const operators of ["standard", "fused"] as const) {
    const rounded = await run(bertToOnnx(tiny, weight, { operators, weights: "int8" }), input);
    const difference = largestDifference(exact, rounded);
    // Rounding to 8 bits must be visible, or the float32 weights were written, and small.
    assert(difference > 0 && difference < 0.05 * range, `${operators}: ${difference} of a range of ${range}`);
  }
});

Deno.test("bertToOnnx: tokens behind the mask do not reach the logits", async () => {
  const weight = randomWeights(tiny, 5);
  const alone = randomBatch(tiny, 1, 7, 5);
  const pad = (rows: number[][], value: number) => rows.map((row) => [...row, value, value, value]);
  const padded = {
    inputIds: pad(alone.inputIds, 9),
    attentionMask: pad(alone.attentionMask, 0),
    tokenTypeIds: pad(alone.tokenTypeIds, 1),
  };
  for (const operators of ["standard", "fused"] as const) {
    const model = bertToOnnx(tiny, weight, { operators });
    const difference = largestDifference(await run(model, alone), await run(model, padded));
    assert(difference <= 1e-6, `${operators}: ${difference}`);
  }
});

Deno.test("bertToOnnx: the standard operator set names no foreign domain", () => {
  for (const weights of ["float32", "int8"] as const) {
    const model = ModelProto.toObject(
      ModelProto.decode(bertToOnnx(tiny, randomWeights(tiny, 1), { operators: "standard", weights })),
      { longs: Number, defaults: true },
    );
    assert.deepEqual(model.opset_import, [{ domain: "", version: 17 }]);
    assert(model.graph.node.every((node: { domain: string }) => node.domain === ""));
  }
});

Deno.test("bertToOnnx: a weight of the wrong size is refused with its name and both sizes", () => {
  const weight = randomWeights(tiny, 1);
  const name = "bert.encoder.layer.1.attention.self.key.weight";
  const wrong: WeightSource = (wanted) => wanted === name ? new Float32Array(7) : weight(wanted);
  for (const operators of ["standard", "fused"] as const) {
    assert.throws(
      () => bertToOnnx(tiny, wrong, { operators }),
      new InputError(`Cannot export ${name}: it has 7 values, the configuration wants [24,24] = 576`),
    );
  }
});

Deno.test("writeOnnx: the file is the bytes of bertToOnnx, and no partial file stays behind", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const options: OnnxOptions = { operators: "fused" };
    const weight = randomWeights(tiny, 2);
    const path = `${folder}/model.onnx`;
    const bytes = await writeOnnx(path, tiny, weight, options);
    const written = await Deno.readFile(path);
    assert.equal(bytes, written.length);
    assert.deepEqual(written, bertToOnnx(tiny, weight, options));
    await assert.rejects(
      writeOnnx(`${folder}/broken.onnx`, tiny, () => new Float32Array(1), options),
      InputError,
    );
    assert.deepEqual([...Deno.readDirSync(folder)].map((entry) => entry.name), ["model.onnx"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("OnnxGraph: a file of 2 GiB is refused before any weight is read", () => {
  const graph = new OnnxGraph("large");
  const data = () => assert.fail("read a weight");
  graph.weight({ name: "half", type: "float32", shape: [2 ** 28], data });
  graph.layout();
  graph.weight({ name: "other_half", type: "int8", shape: [2 ** 30], data });
  assert.throws(() => graph.layout(), /one ONNX file: it would take 2147\d+ bytes/);
});

Deno.test("OnnxGraph: tensors keep their dimensions, types and little-endian bytes", () => {
  const graph = new OnnxGraph("tensors");
  graph.integers("shape", [0, -1, 2 ** 40]);
  graph.scalar("half", 0.5);
  const bytes = new Uint8Array([...graph.layout().pieces()].flatMap((piece) => [...piece]));
  const { initializer } =
    ModelProto.toObject(ModelProto.decode(bytes), { longs: Number, defaults: true }).graph;
  assert.equal(initializer[0].data_type, elementTypes.int64);
  assert.deepEqual(initializer[0].dims, [3]);
  const words = new DataView(Uint8Array.from(initializer[0].raw_data).buffer);
  assert.deepEqual([0, 8, 16].map((offset) => words.getBigInt64(offset, true)), [0n, -1n, 2n ** 40n]);
  assert.equal(initializer[1].data_type, elementTypes.float32);
  assert.deepEqual(initializer[1].dims, []);
  assert.equal(new DataView(Uint8Array.from(initializer[1].raw_data).buffer).getFloat32(0, true), 0.5);
});
