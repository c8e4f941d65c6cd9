/**
 * Times fine-tuning: one optimiser step of the trainer at several sparsities, and where its time goes.
 *
 * Masks are random, of the pattern asked for, and nested: what is zero at 80 % is zero at 90 %. All sparsities are those of
 * one trainer, which takes turns between them; the step after a change of mask is not timed. A batch has full
 * sequences of random ids, so that a runtime that pads has nothing to pad; every step has another one. Rows of the word
 * table that batches left out are brought up to date once in a thousand steps, which is not in these times: measured
 * 1.3 ms a step for 30,522 rows of 384 and 2.6 ms for rows of 768 (two workers, AVX-512).
 * @module
 */
import type { BertConfig } from "../models/config.ts";
import { InputError } from "../src/core/errors.ts";
import type { Precision } from "../src/finetune/options.ts";
import { poolFactory } from "../workers/pool.ts";
import { interleave, type LatencySummary } from "./measure.ts";
import { type OperationTime, TimingExecutor } from "./operation_times.ts";
import { type StepKind, StepRunner, type StepRunnerOptions, type TrainBatch } from "./step_runner.ts";

/** The batches timed when none is asked for; `tools/compare/train.py` has the same. */
export const trainBatches: readonly TrainBatch[] = [{ batch: 32, tokens: 32 }, { batch: 8, tokens: 128 }];

/** The sparsities timed when none is asked for. */
export const trainSparsities: readonly number[] = [0, 0.5, 0.8, 0.9, 0.95];

/** What to measure. */
export interface TrainBenchOptions extends StepRunnerOptions {
  /** What the rows call the model. */
  readonly model: string;
  readonly sparsities: readonly number[];
  readonly threads: number;
  /** Timed seconds of each sparsity. */
  readonly seconds: number;
  /** fp32 operations of one core, 10⁹ a second (`describeMachine`). */
  readonly peakGflops: number;
  readonly onProgress?: (activity: string, share?: number) => void;
}

/** Time of one operation in a step of one worker. */
export interface OperationShare extends OperationTime {
  /** Of the sum of all operations. */
  readonly share: number;
}

/** Steps at one sparsity. Keys are part of the command's contract. */
export interface TrainRow {
  /** The product. */
  readonly engine: "lacuna";
  /** What took the steps. */
  readonly device: "cpu" | "webgpu" | "dawn";
  /** Of activations and their gradients; weights and sums are float32 in any case. */
  readonly precision: Precision;
  readonly model: string;
  /** `sparse` where some of the prunable weights are masked. */
  readonly weights: "dense" | "sparse";
  /** What the masked matrices ran on: sparse kernels from a density on that is worth it. */
  readonly kernels: "dense" | "sparse";
  /** Pattern of the mask, `dense` for none. */
  readonly pattern: string;
  /** Share of the prunable weights that are masked, counted. */
  readonly sparsity: number;
  /** Sequences in a step. */
  readonly batch: number;
  /** Tokens in a sequence. */
  readonly tokens: number;
  readonly threads: number;
  /** Of one step: batch copied in, forward, backward, clipping, AdamW. */
  readonly step_ms: LatencySummary;
  /** batch · tokens / median step. */
  readonly tokens_per_second: number;
  /** batch / median step. */
  readonly examples_per_second: number;
  /** Operations that the step needs (`stepOperations`) over the median step, 10⁹ a second. */
  readonly gflops: number;
  /** What a dense step would need, over the same time. */
  readonly dense_equivalent_gflops: number;
  /** `gflops` of the measured fp32 peak of all threads, or of the GPU: sums are float32 in every precision. */
  readonly share_of_peak: number;
  /** Median dense step over this one; absent where no dense step was timed. */
  readonly speedup_vs_dense?: number;
  /** Everything a trainer holds: weights, gradients, moments, activations, programs; in 10⁶ bytes. On a GPU: what lies there. */
  readonly arena_mb: number;
  /** What nvidia-smi says that the GPU has in use, all programs together; absent where there is none. */
  readonly gpu_used_mb?: number;
  /** On a GPU: its own work in a step, from the first shader to the last. */
  readonly gpu_ms?: number;
  /** On a GPU: what the thread that feeds it does for a step, which overlaps with the GPU's work on the step before. */
  readonly encode_ms?: number;
  /**
   * Of one worker the fastest of several steps, by operation, the longest first. On a GPU the mean of several; empty where it has
   * no timestamps.
   */
  readonly operations: readonly OperationShare[];
}

/**
 * Operations a step needs, 2 for a multiply-add:
 *
 *     6 · tokens · density · W     the encoder's linear layers: forward, gradient of the input, gradient of the weights;
 *                                  weights that are masked need none of the three
 *     12 · layers · Σ length² · hidden     attention: two products forward, four backward
 *     6 · sequences · (hidden² + hidden · labels)     pooler and classifier
 *
 * What is left out (LayerNorm, gelu, softmax, dropout, embeddings, the optimiser) costs time but no share of the peak.
 */
export function stepOperations(config: BertConfig, { batch, tokens }: TrainBatch, density: number): number {
  const { hiddenSize, intermediateSize, layers, labels } = config;
  const encoderWeights = layers * (4 * hiddenSize ** 2 + 2 * hiddenSize * intermediateSize);
  const linear = 6 * batch * tokens * density * encoderWeights;
  const attention = 12 * layers * batch * tokens ** 2 * hiddenSize;
  const head = 6 * batch * hiddenSize * (hiddenSize + labels.length);
  return linear + attention + head;
}

/** Measures one model on one batch. Rows come in the order of `sparsities`. Throws `InputError` for bad numbers. */
export async function benchTraining(options: TrainBenchOptions): Promise<TrainRow[]> {
  checkTrainOptions(options);
  const { config, batch, tokens, pattern, threads, peakGflops, onProgress } = options;
  onProgress?.("starting the trainer");
  const timed = await timeSteps(options);
  const profiles = await profileSteps(options);
  const densePosition = timed.findIndex(({ sparsity }) => sparsity === 0);
  return timed.map(({ sparsity, kernels, summary, arenaBytes }, i): TrainRow => {
    const seconds = summary.p50 / 1000;
    const gflops = stepOperations(config, options, 1 - sparsity) / seconds / 1e9;
    return {
      engine: "lacuna",
      device: "cpu",
      precision: "fp32",
      model: options.model,
      weights: sparsity > 0 ? "sparse" : "dense",
      kernels,
      pattern: sparsity > 0 ? pattern : "dense",
      sparsity,
      batch,
      tokens,
      threads,
      step_ms: summary,
      tokens_per_second: batch * tokens / seconds,
      examples_per_second: batch / seconds,
      gflops,
      dense_equivalent_gflops: stepOperations(config, options, 1) / seconds / 1e9,
      share_of_peak: gflops / (peakGflops * threads),
      ...(densePosition < 0 ? {} : { speedup_vs_dense: timed[densePosition].summary.p50 / summary.p50 }),
      arena_mb: arenaBytes / 1e6,
      operations: profiles[i],
    };
  });
}

/** Throws `InputError` for numbers that cannot be measured at. */
export function checkTrainOptions(
  { batch, tokens, threads, seconds, sparsities, config }: Pick<
    TrainBenchOptions,
    "batch" | "tokens" | "threads" | "seconds" | "sparsities" | "config"
  >,
): void {
  for (const [name, value] of Object.entries({ batch, tokens, threads })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new InputError(`--${name} is ${value}: wanted a whole number from 1`);
    }
  }
  if (tokens > config.maximumPositions) {
    throw new InputError(
      `--tokens is ${tokens}: wanted at most ${config.maximumPositions}, the model's positions`,
    );
  }
  if (!(seconds > 0)) throw new InputError(`--seconds is ${seconds}: wanted a number above 0`);
  for (const sparsity of sparsities) {
    if (!(sparsity >= 0 && sparsity < 1)) {
      throw new InputError(`--sparsity is ${sparsity}: wanted a number in [0, 1)`);
    }
  }
}

/** Steps of all threads, in turns. */
async function timeSteps(
  options: TrainBenchOptions,
): Promise<(StepKind & { summary: LatencySummary; arenaBytes: number })[]> {
  const { sparsities, seconds, onProgress } = options;
  const runner = await StepRunner.create(options, {
    workers: options.threads,
    createExecutor: poolFactory(),
  });
  try {
    const kinds: StepKind[] = [];
    const measured = await interleave(
      sparsities.map((sparsity, i) => ({
        name: `${sparsity}`,
        run: async () => kinds[i] = await runner.step(sparsity),
      })),
      // Long turns: each begins with a change of mask.
      {
        warmup: 1,
        seconds,
        turnMs: Math.min(500, seconds * 1000),
        onProgress: (share) => onProgress?.("timing steps", share),
      },
    );
    const { arenaBytes } = runner.trainer.needs;
    return measured.map(({ summary }, i) => ({ ...kinds[i], summary, arenaBytes }));
  } finally {
    await runner.trainer.dispose();
  }
}

/** Steps of one worker, call by call; of several the fastest, as a busy machine only ever slows one down. */
async function profileSteps(options: TrainBenchOptions): Promise<OperationShare[][]> {
  const { sparsities, seconds, onProgress } = options;
  const executors: TimingExecutor[] = [];
  const runner = await StepRunner.create(options, {
    workers: 1,
    createExecutor: ({ machine, threads, arena }) => {
      const executor = new TimingExecutor(machine, threads, arena);
      executors.push(executor);
      return Promise.resolve(executor);
    },
  });
  const [executor] = executors;
  try {
    const profiles: OperationShare[][] = [];
    for (const sparsity of sparsities) {
      onProgress?.("timing operations", profiles.length / sparsities.length);
      await runner.step(sparsity);
      let [best, bestMs] = [[] as OperationTime[], Infinity];
      const end = performance.now() + Math.min(500, seconds * 1000);
      do {
        executor.reset();
        await runner.step(sparsity);
        const times = executor.times();
        const totalMs = times.reduce((sum, { ms }) => sum + ms, 0);
        if (totalMs < bestMs) [best, bestMs] = [times, totalMs];
      } while (performance.now() < end);
      profiles.push(best.map((time) => ({ ...time, share: time.ms / bestMs })));
    }
    return profiles;
  } finally {
    await runner.trainer.dispose();
  }
}
