/**
 * Runs the benchmark: opens every engine, checks that they agree, times them in turns, weighs each alone.
 *
 * The caller brings the engines of lacuna as sources (`engine.ts`) and the files of the baselines; the reference for
 * answers and for speed is ONNX Runtime's fp32, on the operators that suit it best.
 * @module
 */
import { InputError } from "../src/core/errors.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { type AloneResult, measureAlone } from "./alone.ts";
import { strongestOnnxRuntime, transformersJs } from "./baselines.ts";
import {
  type EncodedBatch,
  type Engine,
  type EngineDescription,
  type EngineSource,
  openSource,
} from "./engine.ts";
import type { MachineDescription } from "./machine.ts";
import { interleave, type Measurement } from "./measure.ts";
import type { BenchResult, BenchRow } from "./result.ts";

/** Files of the dense model, as `src/export/onnx.ts` writes them. */
export interface Baselines {
  /** The fp32 model in every operator set worth trying. */
  readonly onnxFp32: readonly string[];
  /** The int8 model likewise; none to leave that baseline out. */
  readonly onnxInt8?: readonly string[];
  /** A model folder with `config.json` and `onnx/model.onnx`, for transformers.js; absent to leave it out. */
  readonly transformersFolder?: string;
  /** What transformers.js runs on, default machine code; a process can have only one of the two. */
  readonly transformersBackend?: EngineDescription["backend"];
  /** Share of zeros among the prunable weights of the model. */
  readonly sparsity: number;
}

/** What to measure. */
export interface BenchRunOptions {
  /** The engines of lacuna. */
  readonly lacuna: readonly EngineSource[];
  /** Files of the same model for the other engines. */
  readonly baselines: Baselines;
  /** Ids are drawn from 0 … vocabularySize − 1. */
  readonly vocabularySize: number;
  /** Length of every text. All tokens are real: nobody is timed on padding. */
  readonly tokens: number;
  /** Texts in a call. */
  readonly batch: number;
  /** Compute threads of every engine. */
  readonly threads: number;
  /** Measured seconds per engine. */
  readonly seconds: number;
  /** Goes into the result as it is (`describeMachine`). */
  readonly machine: MachineDescription;
  /** Further facts for the `config` of the result, such as the model's name. */
  readonly config?: BenchResult["config"];
  /** Called with what is going on and, while timing, the share done. */
  readonly onProgress?: (activity: string, share?: number) => void;
}

/** Batches whose logits are compared: more than one, so that the range of the logits means something. */
const agreementBatches = 4;

/** Measures. Rows come in the order lacuna, ONNX Runtime fp32, ONNX Runtime int8, transformers.js. */
export async function runBench(options: BenchRunOptions): Promise<BenchResult> {
  const { baselines, tokens, batch, threads, seconds, machine, onProgress } = options;
  for (const [name, value] of Object.entries({ tokens, batch, threads })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new InputError(`--${name} is ${value}, wanted a whole number from 1`);
    }
  }
  if (!(seconds > 0)) throw new InputError(`--seconds is ${seconds}, wanted a number above 0`);

  const batches = Array.from({ length: agreementBatches }, (_, i) => randomBatch(options, i));
  onProgress?.("choosing the operators that suit ONNX Runtime");
  const strongest = (paths: readonly string[], dtype: "fp32" | "int8") =>
    strongestOnnxRuntime(
      paths.map((path) => ({ path, dtype, sparsity: baselines.sparsity, threads })),
      batches[0],
    );
  const reference = await strongest(baselines.onnxFp32, "fp32");
  const sources = [
    ...options.lacuna,
    reference,
    ...(baselines.onnxInt8?.length ? [await strongest(baselines.onnxInt8, "int8")] : []),
    ...(baselines.transformersFolder === undefined ? [] : [transformersJs({
      folder: baselines.transformersFolder,
      sparsity: baselines.sparsity,
      threads,
      backend: baselines.transformersBackend,
    })]),
  ];
  const referenceIndex = sources.indexOf(reference);

  const engines: Engine[] = [];
  try {
    for (const source of sources) {
      onProgress?.(`opening engine ${engines.length + 1} of ${sources.length}`);
      engines.push(await openSource(source));
    }
    const answers: Float32Array[][] = [];
    for (const engine of engines) {
      onProgress?.(`comparing the answers of ${engine.name}`);
      const logits: Float32Array[] = [];
      for (const input of batches) logits.push(await engine.run(input));
      answers.push(logits);
    }
    const measurements = await interleave(
      engines.map((engine) => ({ name: engine.name, run: () => engine.run(batches[0]) })),
      { seconds, onProgress: (share) => onProgress?.("timing", share) },
    );
    // Last, so that each engine has done what it does at its first load only, as tuning.
    const costs: AloneResult[] = [];
    for (const [index, source] of sources.entries()) {
      onProgress?.(`weighing engine ${index + 1} of ${sources.length} in a process of its own`);
      costs.push(await measureAlone({ source, batch: batches[0] }));
    }
    const fastestMs = measurements[referenceIndex].summary.p50;
    const rows = engines.map((engine, i) => {
      const difference = compareLogits(answers[i], answers[referenceIndex]);
      return benchRow(engine, { tokens, batch }, measurements[i], fastestMs, difference, costs[i]);
    });
    return {
      machine,
      config: { ...options.config, tokens, batch, threads, seconds, deno: Deno.version.deno },
      rows,
    };
  } finally {
    for (const engine of engines) await engine.dispose();
  }
}

/** The largest difference, and its share of the range of the reference. */
export interface LogitDifference {
  /** Largest |answer − reference|. */
  readonly absolute: number;
  /** The same over largest − smallest logit of the reference. */
  readonly relative: number;
}

/** Compares the answers of an engine with those of the reference, batch by batch. NaN anywhere makes both NaN. */
export function compareLogits(
  answers: readonly Float32Array[],
  reference: readonly Float32Array[],
): LogitDifference {
  let [absolute, smallest, largest] = [0, Infinity, -Infinity];
  reference.forEach((wanted, b) => {
    if (answers[b].length !== wanted.length) {
      throw new RangeError(`Cannot compare ${answers[b].length} logits with ${wanted.length}`);
    }
    wanted.forEach((value, i) => {
      // Math.max, unlike a comparison, lets NaN through.
      absolute = Math.max(absolute, Math.abs(answers[b][i] - value));
      smallest = Math.min(smallest, value);
      largest = Math.max(largest, value);
    });
  });
  return { absolute, relative: absolute === 0 ? 0 : absolute / (largest - smallest) };
}

function benchRow(
  engine: Engine,
  { tokens, batch }: { tokens: number; batch: number },
  { summary, latenciesMs }: Measurement,
  referenceMs: number,
  difference: LogitDifference,
  alone: AloneResult,
): BenchRow {
  const totalMs = latenciesMs.reduce((sum, ms) => sum + ms, 0);
  return {
    engine: engine.name,
    backend: engine.backend,
    weights: engine.weights,
    dtype: engine.dtype,
    pattern: engine.pattern,
    sparsity: engine.sparsity,
    threads: engine.threads,
    batch,
    tokens,
    latency_ms: summary,
    items_per_second: batch * latenciesMs.length * 1000 / totalMs,
    speedup_vs_dense_fp32: referenceMs / summary.p50,
    max_abs_logit_difference: difference.absolute,
    relative_logit_difference: difference.relative,
    load_ms: alone.loadMs,
    first_answer_ms: alone.firstAnswerMs,
    rss_mb: alone.residentBytes / 1e6,
    file_mb: engine.fileBytes / 1e6,
  };
}

/** Random ids, no padding, one segment: the same for every engine and every run. */
function randomBatch(
  { vocabularySize, tokens, batch }: Pick<BenchRunOptions, "vocabularySize" | "tokens" | "batch">,
  index: number,
): EncodedBatch {
  const stream = new RandomStream(randomKey(0, "bench", index));
  const rows = (draw: () => number) =>
    Array.from({ length: batch }, () => Array.from({ length: tokens }, draw));
  return {
    inputIds: rows(() => stream.below(vocabularySize)),
    attentionMask: rows(() => 1),
    tokenTypeIds: rows(() => 0),
  };
}
