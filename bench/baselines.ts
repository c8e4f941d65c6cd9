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
import { importTransformersOnWasm, keepingWorker } from "./wasm_backend.ts";

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
  /** Whether its threads wait for work by spinning (default) or by sleeping. */
  readonly spinning?: boolean;
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
  /** Machine code (default) or WebAssembly; one of the two in a process. */
  readonly backend?: EngineDescription["backend"];
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
 * ONNX Runtime as it answers this batch fastest, found by trial: the same model can be written with different
 * operators, and threads that spin between operators win on a quiet machine but lose on a busy one (BERT-base, 128
 * tokens, 2 threads on 2 cores: about 84 against 92 ms when quiet, 361 against 244 ms beside other processes).
 * Two sessions are open at a time. Throws `RangeError` without candidates.
 */
export async function strongestOnnxRuntime(
  candidates: readonly Omit<OnnxRuntimeOptions, "engine" | "spinning">[],
  batch: EncodedBatch,
  seconds = 1,
): Promise<EngineSource> {
  if (candidates.length === 0) {
    throw new RangeError("There is no file for ONNX Runtime to open, wanted at least one");
  }
  let best = onnxRuntime({ ...candidates[0], spinning: true });
  for (const candidate of candidates.slice(1)) {
    best = await faster(best, onnxRuntime({ ...candidate, spinning: true }), batch, seconds);
  }
  const resting: EngineSource = { ...best, options: { ...best.options, spinning: false } };
  return await faster(best, resting, batch, seconds);
}

/** The source whose engine has the lower median, timed in turns. */
async function faster(
  a: EngineSource,
  b: EngineSource,
  batch: EncodedBatch,
  seconds: number,
): Promise<EngineSource> {
  const engines: Engine[] = [];
  try {
    for (const source of [a, b]) engines.push(await openSource(source));
    const contestants = engines.map((engine) => ({ name: engine.name, run: () => engine.run(batch) }));
    const [ofA, ofB] = await interleave(contestants, { seconds });
    return ofB.summary.p50 < ofA.summary.p50 ? b : a;
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
 * All graph optimisations and one thread pool of exactly `threads`. Spinning ends with the answer, so that an idle
 * pool takes no time from the engine measured next. Flushing denormals and smaller work blocks
 * (`session.dynamic_block_base`) gained nothing with ONNX Runtime 1.30.
 */
function sessionOptions(threads: number, spinning = true): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: ["cpu"],
    graphOptimizationLevel: "all",
    executionMode: "sequential",
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: { session: { force_spinning_stop: "1", intra_op: { allow_spinning: spinning ? "1" : "0" } } },
  };
}

/** Ids and masks are int64 in ONNX. */
function flatten(rows: EncodedBatch["inputIds"]): { data: BigInt64Array; dims: [number, number] } {
  const tokens = rows[0].length;
  const data = new BigInt64Array(rows.length * tokens);
  rows.forEach((row, r) => row.forEach((value, t) => data[r * tokens + t] = BigInt(value)));
  return { data, dims: [rows.length, tokens] };
}

async function openOnnxRuntime(options: OnnxRuntimeOptions): Promise<Engine> {
  const { path, dtype, sparsity, threads, spinning } = options;
  const { size } = await Deno.stat(path);
  const session = await ort.InferenceSession.create(path, sessionOptions(threads, spinning));
  const tensor = (rows: EncodedBatch["inputIds"]) => {
    const { data, dims } = flatten(rows);
    return new ort.Tensor("int64", data, dims);
  };
  return {
    ...{
      name: "onnxruntime",
      backend: "native",
      dtype,
      weights: "dense",
      pattern: "dense",
      sparsity,
      threads,
    },
    fileBytes: size,
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

/** onnxruntime-web is as fast on either graph, and with threads that spin as with threads that sleep. */
const wasmSessionOptions = { executionProviders: ["wasm"], graphOptimizationLevel: "all" } as const;

async function openTransformersJs(options: TransformersJsOptions): Promise<Engine> {
  const { folder, sparsity, threads, backend = "native" } = options;
  const onWasm = backend === "wasm";
  const transformers = await (onWasm ? importTransformersOnWasm(threads) : import("@xenova/transformers"));
  const { AutoModelForSequenceClassification, env, Tensor } = transformers;
  const { size } = await Deno.stat(`${folder}/onnx/model.onnx`);
  const [, parent, name] = folder.replace(/\/+$/, "").match(/^(.*?)([^/]+)$/)!;
  env.allowRemoteModels = false;
  env.localModelPath = parent || ".";
  const load = () =>
    AutoModelForSequenceClassification.from_pretrained(name, {
      dtype: "fp32",
      // Given a runtime (`wasm_backend.ts`) it knows no device by name, and takes the one of the session options.
      device: onWasm ? "auto" : "cpu",
      local_files_only: true,
      session_options: onWasm ? wasmSessionOptions : sessionOptions(threads),
    });
  const model = await (onWasm ? keepingWorker(load) : load());
  const tensor = (rows: EncodedBatch["inputIds"]) => {
    const { data, dims } = flatten(rows);
    return new Tensor("int64", data, dims);
  };
  return {
    ...{
      name: "transformers.js",
      backend,
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
