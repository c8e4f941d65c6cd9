/**
 * What the benchmark measures: an engine that turns batches of ids into logits, and a way to open one anywhere.
 *
 * An engine is opened twice, once beside its rivals for the interleaved timing and once alone in a fresh process
 * for its memory and load time. So the benchmark is not handed engines but `EngineSource`s: a module to import and
 * plain data to give to its `openEngine`. A new engine is one module with that one export.
 * @module
 */

/** Rows of equal length, one per text: [batch][tokens]. */
export interface EncodedBatch {
  /** Vocabulary indices. */
  readonly inputIds: readonly (readonly number[])[];
  /** 1 for a token, 0 for padding. */
  readonly attentionMask: readonly (readonly number[])[];
  /** Segment of each token, 0 or 1. */
  readonly tokenTypeIds: readonly (readonly number[])[];
}

/** Who an engine is, in the words of the report. */
export interface EngineDescription {
  /** The product. */
  readonly name: "lacuna" | "onnxruntime" | "transformers.js";
  /** Machine code or WebAssembly. */
  readonly backend: "native" | "wasm";
  /** Type of the matrices. */
  readonly dtype: "fp32" | "int8";
  /** Whether zeros are skipped or multiplied by. */
  readonly weights: "dense" | "sparse";
  /** Pruning pattern the weights are stored in, `dense` for none. */
  readonly pattern: string;
  /** Share of zeros among the prunable weights the engine knows of. */
  readonly sparsity: number;
  /** Threads that compute. */
  readonly threads: number;
  /** Size of the file or files the weights are read from. */
  readonly fileBytes: number;
}

/** An opened model. */
export interface Engine extends EngineDescription {
  /** Logits of a batch, [batch][labels] in one array that the caller may keep. */
  run(batch: EncodedBatch): Promise<Float32Array>;
  /** Frees threads and memory. */
  dispose(): Promise<void>;
}

/** How to open an engine in any process. Everything in it survives JSON. */
export interface EngineSource {
  /** URL of a module that exports `openEngine` (see `EngineModule`). */
  readonly module: string;
  /** What `openEngine` is called with. */
  readonly options: Readonly<Record<string, unknown>>;
}

/** The one export of an engine module. */
export interface EngineModule {
  /** Loads the model so that the first `run` finds it ready. */
  openEngine(options: Readonly<Record<string, unknown>>): Promise<Engine>;
}

/** Imports the module of a source and opens its engine. */
export async function openSource(source: EngineSource): Promise<Engine> {
  const module = await import(source.module) as Partial<EngineModule>;
  if (typeof module.openEngine !== "function") {
    throw new TypeError(`Cannot open an engine from ${source.module}: it does not export openEngine`);
  }
  return await module.openEngine(source.options);
}
