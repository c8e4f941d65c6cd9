/**
 * The whole benchmark of one model: a folder, or a made-up model of a named shape.
 * @module
 */
import { join } from "node:path";
import { bertConfigJson, bertTensorShapes } from "../models/config.ts";
import { presetConfig } from "../models/presets.ts";
import { onnxFile, openModel, saveModel } from "../src/checkpoint/model_folder.ts";
import { InputError } from "../src/core/errors.ts";
import { exists } from "../src/core/files.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { wordPieceFiles, wordPieceSpecialTokens } from "../src/data/wordpiece.ts";
import { exportModel } from "../src/export/mod.ts";
import { writeOnnx } from "../src/export/onnx.ts";
import { magnitude } from "../src/pruning/magnitude.ts";
import { pruneMasks, zeroPruned } from "../src/pruning/method.ts";
import { checkPattern, type Pattern } from "../src/pruning/pattern.ts";
import { isPrunable, sparsityOfWeights } from "../src/pruning/sparsity.ts";
import { runBench } from "./compare.ts";
import type { EngineSource } from "./engine.ts";
import { lacuna } from "./lacuna.ts";
import { describeMachine, type MachineDescription } from "./machine.ts";
import type { BenchResult } from "./result.ts";

/** What to measure a model with. */
export interface ModelBenchOptions {
  /** Model folder, sparse or not. */
  readonly folder: string;
  /** What the report calls it. */
  readonly title: string;
  /** Length of every text. */
  readonly tokens: number;
  /** Texts in a call. */
  readonly batch: number;
  /** Threads of every engine. */
  readonly threads: number;
  /** Measured seconds per engine. */
  readonly seconds: number;
  /** Instruction set of lacuna's kernels; default: the fastest. */
  readonly isa?: string;
  /** Choose kernels by rule instead of measuring them at the first load. */
  readonly noTune?: boolean;
  /** Where it is measured, for the report; measured when absent. */
  readonly machine?: MachineDescription;
  /** Hears what is going on and, while timing, the share done. */
  readonly onProgress?: (activity: string, share?: number) => void;
}

/** A result with the zeros of each layer, for the report. */
export interface ModelBenchResult {
  /** What `bench --json` writes. */
  readonly result: BenchResult;
  /** Share of zeros of each prunable weight, by checkpoint name. */
  readonly layerSparsity: Readonly<Record<string, number>>;
}

/** Times a model folder against the dense runtimes. Baseline files are made in a temporary folder. */
export async function benchModel(options: ModelBenchOptions): Promise<ModelBenchResult> {
  const { folder, tokens, threads, isa, noTune, onProgress } = options;
  const model = await openModel(folder);
  const { config } = model;
  if (tokens > config.maximumPositions) {
    throw new InputError(
      `--tokens is ${tokens}: wanted at most ${config.maximumPositions}, the model's positions`,
    );
  }
  const temporary = await Deno.makeTempDir({ prefix: "lacuna-bench-" });
  try {
    onProgress?.("writing the dense model for the other runtimes");
    const weights = new Map<string, Float32Array>();
    for (const [name, shape] of bertTensorShapes(config)) {
      weights.set(name, await model.tensors.weight(name, shape));
    }
    const layers = sparsityOfWeights(Array.from(weights, ([name, values]) => ({ name, values })));
    const fused = join(temporary, "fused.onnx");
    await writeOnnx(fused, config, (name) => weights.get(name)!, { operators: "fused" });
    let transformersFolder = folder;
    if (!await exists(join(folder, onnxFile))) {
      transformersFolder = join(temporary, "model");
      await exportModel({ model: folder, out: transformersFolder, format: "onnx" });
    }
    weights.clear();

    const sparsity = layers.overall;
    const engines: EngineSource[] = [lacuna({ folder, threads, isa, noTune, sparsity })];
    if (sparsity > 0) engines.push(lacuna({ folder, threads, isa, sparsity, dense: true }));
    const result = await runBench({
      lacuna: engines,
      baselines: {
        onnxFp32: [fused, join(transformersFolder, onnxFile)],
        transformersFolder,
        // A WebAssembly engine is held against another that needs no native library either.
        transformersBackend: isa?.startsWith("wasm") ? "wasm" : "native",
        sparsity,
      },
      vocabularySize: config.vocabularySize,
      tokens,
      batch: options.batch,
      threads,
      seconds: options.seconds,
      machine: options.machine ?? await describeMachine(isa),
      config: { model: options.title },
      onProgress,
    });
    return {
      result,
      layerSparsity: Object.fromEntries(layers.layers.map(({ name, sparsity }) => [name, sparsity])),
    };
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

/** What a made-up model is like. */
export interface SyntheticOptions {
  /** Name of a preset. */
  readonly preset: string;
  readonly sparsity: number;
  readonly pattern: Pattern;
  /** Where to write it. */
  readonly folder: string;
}

/**
 * Writes a model of a named shape with random weights pruned by magnitude. Which weights are zero is random, so the
 * kernels see the irregularity of a real pruned model; the answers mean nothing and are only compared.
 */
export async function writeSyntheticModel(options: SyntheticOptions): Promise<void> {
  const config = presetConfig(options.preset);
  const tensors = Array.from(bertTensorShapes(config), ([name, shape]) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b));
    if (name.endsWith("LayerNorm.weight")) data.fill(1);
    else if (!name.endsWith(".bias")) {
      const stream = new RandomStream(randomKey(0, "synthetic", name));
      // Uniform with the standard deviation of BERT's initialisation, 0.02.
      for (let i = 0; i < data.length; i++) data[i] = 0.0693 * (stream.uniform() - 0.5);
    }
    return { name, shape, data };
  });
  const prunable = tensors.filter(({ name }) => isPrunable(name));
  const matrices = prunable.map(({ name, shape: [rows, columns], data }) => ({
    name,
    rows,
    columns,
    values: data,
  }));
  checkPattern(options.pattern, matrices);
  const masks = pruneMasks(
    matrices,
    { method: magnitude, pattern: options.pattern, scope: "layer", sparsity: options.sparsity },
  );
  for (const { name, data } of prunable) zeroPruned(masks.get(name)!, [data]);
  const filler = Array.from(
    { length: config.vocabularySize - wordPieceSpecialTokens.length },
    (_, i) => `w${i}`,
  );
  await saveModel(options.folder, {
    configJson: bertConfigJson(config),
    tensors,
    tokenizerFiles: wordPieceFiles([...wordPieceSpecialTokens, ...filler]),
    format: "sparse-bitmask",
    sparsity: { structure: options.pattern, global: options.sparsity },
  });
}
