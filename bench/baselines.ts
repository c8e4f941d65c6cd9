/**
 * The engines to beat: ONNX Runtime and transformers.js, each with everything it has switched on.
 *
 * This is an engine module (`engine.ts`): `onnxRuntime` and `transformersJs` make the sources that `openEngine` opens.
 * @module
 */
import * as ort from "onnxruntime-node";
import { interleave } from "./measure.ts";
import {
  type EncodedBatch,
  type Engine,
  type EngineDescription,
  type EngineSource,
  openSource,
} from "./engine.ts";

/** A dense model for ONNX Runtime. */
export interface OnnxRuntimeOptions {
  /** Tells the two baselines of this module apart. */
  readonly engine: "onnxruntime";
  /** The `.onnx` file. */
  readonly path: string;
  /** Type of the matrices in the file. */
  readonly dtype: EngineDescription["dtype"];
  /** Share of zeros among the prunable weights: it changes nothing for this engine, and the report says so. */
  readonly sparsity: number;
  /** Threads that compute, the calling one included. */
  readonly threads: number;
}

/** A model folder for transformers.js, which reads `onnx/model.onnx` in it. */
export interface TransformersJsOptions {
  /** Tells the two baselines of this module apart. */
  readonly engine: "transformers.js";
  /** The folder, with `config.json`. */
  readonly folder: string;
  /** As for ONNX Runtime. */
  readonly sparsity: number;
  /** As for ONNX Runtime. */
  readonly threads: number;
}

/** The source of an ONNX Runtime engine. */
export function onnxRuntime(options: Omit<OnnxRuntimeOptions, "engine">): EngineSource {
  return { module: import.meta.url, options: { engine: "onnxruntime", ...options } };
}

/** The source of a transformers.js engine. */
export function transformersJs(options: Omit<TransformersJsOptions, "engine">): EngineSource {
  return { module: import.meta.url, options: { engine: "transformers.js", ...options } };
}

/**
 * ONNX Runtime with the file on which it answers this batch fastest. The same model can be written with different
 * operators, and which suit ONNX Runtime best depends on its version, on the batch and on the length.
 */
export async function strongestOnnxRuntime(
  candidates: readonly Omit<OnnxRuntimeOptions, "engine">[],
  batch: EncodedBatch,
  seconds = 1,
): Promise<EngineSource> {
  const sources = candidates.map(onnxRuntime);
  if (sources.length === 1) return sources[0];
  const engines: Engine[] = [];
  try {
    for (const source of sources) engines.push(await openSource(source));
    const measured = await interleave(engines.map(({ name, run }) => ({ name, run: () => run(batch) })), {
      seconds,
    });
    const fastest = Math.min(...measured.map(({ summary }) => summary.p50));
    return sources[measured.findIndex(({ summary }) => summary.p50 === fastest)];
  } finally {
    for (const engine of engines) await engine.dispose();
  }
}

/** Opens either baseline (see `EngineModule`). */
export async function openEngine(options: Readonly<Record<string, unknown>>): Promise<Engine> {
  switch (options.engine) {
    case "onnxruntime":
      return await openOnnxRuntime(options as unknown as OnnxRuntimeOptions);
    case "transformers.js":
      return await openTransformersJs(options as unknown as TransformersJsOptions);
    default:
      throw new TypeError(`There is no baseline "${options.engine}", wanted onnxruntime or transformers.js`);
  }
}

/**
 * Everything that made ONNX Runtime 1.30 faster, and nothing that did not: all graph optimisations, one thread pool
 * of exactly `threads`, spinning while it works. Spinning stops with the answer, or idle pools would steal time
 * from the engine measured next: three sessions in one process took 106 ms a call instead of 77.
 * Flushing denormals and smaller work blocks made no difference.
 */
function sessionOptions(threads: number): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: ["cpu"],
    graphOptimizationLevel: "all",
    executionMode: "sequential",
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: { session: { force_spinning_stop: "1" } },
  };
}

/** Ids and masks are int64 in ONNX. */
function flatten(rows: EncodedBatch["inputIds"]): { data: BigInt64Array; dims: [number, number] } {
  const tokens = rows[0].length;
  const data = new BigInt64Array(rows.length * tokens);
  rows.forEach((row, r) => row.forEach((value, t) => data[r * tokens + t] = BigInt(value)));
  return { data, dims: [rows.length, tokens] };
}

async function openOnnxRuntime({ path, dtype, sparsity, threads }: OnnxRuntimeOptions): Promise<Engine> {
  const { size } = await Deno.stat(path);
  const session = await ort.InferenceSession.create(path, sessionOptions(threads));
  const tensor = (rows: EncodedBatch["inputIds"]) => {
    const { data, dims } = flatten(rows);
    return new ort.Tensor("int64", data, dims);
  };
  return {
    ...{ name: "onnxruntime", dtype, weights: "dense", pattern: "dense", sparsity, threads, fileBytes: size },
    async run(batch: EncodedBatch): Promise<Float32Array> {
      const { logits } = await session.run({
        input_ids: tensor(batch.inputIds),
        attention_mask: tensor(batch.attentionMask),
        token_type_ids: tensor(batch.tokenTypeIds),
      });
      return logits.data as Float32Array;
    },
    dispose: () => session.release(),
  };
}

async function openTransformersJs({ folder, sparsity, threads }: TransformersJsOptions): Promise<Engine> {
  const { AutoModelForSequenceClassification, env, Tensor } = await import("@xenova/transformers");
  const { size } = await Deno.stat(`${folder}/onnx/model.onnx`);
  const [, parent, name] = folder.replace(/\/+$/, "").match(/^(.*?)([^/]+)$/)!;
  env.allowRemoteModels = false;
  env.localModelPath = parent || ".";
  const model = await AutoModelForSequenceClassification.from_pretrained(name, {
    dtype: "fp32",
    device: "cpu",
    local_files_only: true,
    session_options: sessionOptions(threads),
  });
  const tensor = (rows: EncodedBatch["inputIds"]) => {
    const { data, dims } = flatten(rows);
    return new Tensor("int64", data, dims);
  };
  return {
    ...{
      name: "transformers.js",
      dtype: "fp32",
      weights: "dense",
      pattern: "dense",
      sparsity,
      threads,
      fileBytes: size,
    },
    async run(batch: EncodedBatch): Promise<Float32Array> {
      const { logits } = await model({
        input_ids: tensor(batch.inputIds),
        attention_mask: tensor(batch.attentionMask),
        token_type_ids: tensor(batch.tokenTypeIds),
      });
      return logits.data as Float32Array;
    },
    async dispose(): Promise<void> {
      await model.dispose();
    },
  };
}
