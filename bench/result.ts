/**
 * The result of a benchmark: what `bench --json` writes and every report is made from.
 * @module
 */
import type { MachineDescription } from "./machine.ts";
import type { LatencySummary } from "./measure.ts";

/** One engine's line. Keys are part of the command's contract. */
export interface BenchRow {
  /** The product. */
  readonly engine: "lacuna" | "onnxruntime" | "transformers.js";
  /** Machine code or WebAssembly. */
  readonly backend: "native" | "wasm";
  /** Whether zeros are skipped or multiplied by. */
  readonly weights: "dense" | "sparse";
  /** Type of the matrices. */
  readonly dtype: "fp32" | "int8";
  /** Pruning pattern of the stored weights, `dense` for none. */
  readonly pattern: string;
  /** Share of zeros among the prunable weights. */
  readonly sparsity: number;
  /** Compute threads. */
  readonly threads: number;
  /** Texts in a call. */
  readonly batch: number;
  /** Tokens in a text. */
  readonly tokens: number;
  /** Of one call. */
  readonly latency_ms: LatencySummary;
  /** Texts answered in a second of measured time: batch / mean latency. */
  readonly items_per_second: number;
  /** Median latency of ONNX Runtime's fp32 over this engine's. */
  readonly speedup_vs_dense_fp32: number;
  /** Against the fp32 logits of ONNX Runtime, over several random batches. */
  readonly max_abs_logit_difference: number;
  /** The same over the range (largest − smallest) of those logits. */
  readonly relative_logit_difference: number;
  /**
   * From a fresh process, as are the next two: module and model loaded, ready to answer. What lacuna measures at the
   * first load of a machine (a quarter of a second) is known by then.
   */
  readonly load_ms: number;
  /** Load and first answer together. */
  readonly first_answer_ms: number;
  /** Resident memory of a process that does nothing else, in 10⁶ bytes. */
  readonly rss_mb: number;
  /** Size of the weights' file, in 10⁶ bytes. */
  readonly file_mb: number;
}

/** A whole benchmark. */
export interface BenchResult {
  /** Where it ran. */
  readonly machine: MachineDescription;
  /** What was asked for: model, sparsity, tokens, batch, seconds, versions, … */
  readonly config: Readonly<Record<string, string | number | boolean>>;
  /** One for each engine. */
  readonly rows: readonly BenchRow[];
}

/** Largest relative logit difference between two fp32 engines that compute the same function. */
export const agreementLimit = 1e-3;

/** Whether the engine gave the answers of ONNX Runtime's fp32. int8 engines round, so they are not held to it. */
export function agrees(row: BenchRow): boolean {
  return row.dtype !== "fp32" || row.relative_logit_difference <= agreementLimit;
}

/** What a row is called in tables and charts, for example `lacuna sparse fp32 4x1`, with `wasm` where it is that. */
export function rowLabel(row: BenchRow): string {
  const pattern = row.weights === "sparse" ? ` ${row.pattern}` : "";
  const backend = row.backend === "wasm" ? " wasm" : "";
  return `${row.engine} ${row.weights} ${row.dtype}${pattern}${backend}`;
}
