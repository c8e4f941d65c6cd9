/**
 * Times fine-tuning steps on a GPU, and where their time goes: in rows like those of the CPU.
 *
 * Steps are queued as in training, without waiting for any; so times are of groups of steps, each waited for once. Pruned
 * matrices run dense with masks there, so that sparsity changes no time.
 * @module
 */
import type { Precision } from "../../src/finetune/options.ts";
import type { GpuProvider } from "../../src/webgpu/adapter.ts";
import { createGpuExecutor } from "../../workers/gpu.ts";
import { poolFactory } from "../../workers/pool.ts";
import { type LatencySummary, percentile, summarize } from "../measure.ts";
import { type StepKind, StepRunner, type StepRunnerOptions } from "../step_runner.ts";
import { checkTrainOptions, type OperationShare, stepOperations, type TrainRow } from "../train.ts";
import { openAdapter, usedGpuMb } from "./adapter.ts";
import { TimingGpuExecutor } from "./timing_executor.ts";

/** What to measure. */
export interface GpuTrainOptions extends StepRunnerOptions {
  /** What the rows call the model. */
  readonly model: string;
  readonly sparsities: readonly number[];
  /** Timed seconds of each sparsity. */
  readonly seconds: number;
  readonly precision: Precision;
  /** Measured fp32 multiply-adds of the GPU, 10⁹ operations a second. */
  readonly peakGflops: number;
  /** Whose WebGPU leads to the GPU; absent: Deno's. */
  readonly provider?: GpuProvider;
  /** Whether a CPU may play the GPU. */
  readonly allowSoftware: boolean;
  readonly onProgress?: (activity: string, share?: number) => void;
}

/** Groups of steps that the timed seconds are divided into. */
const groups = 5;

/** A group has more, so that its one wait, 10 ms at worst, is shared. */
const leastSteps = 2;

/** Steps that are looked at in parts, and wholly. */
const profiledSteps = 5;

/** Measures one model on one batch in one precision. Rows come in the order of `sparsities`. Throws `InputError` for bad numbers. */
export async function benchGpuTraining(options: GpuTrainOptions): Promise<TrainRow[]> {
  checkTrainOptions({ ...options, threads: 1 });
  const { config, batch, tokens, pattern, peakGflops, onProgress } = options;
  onProgress?.(`starting the trainer on the GPU in ${options.precision}`);
  const timed = await timeSteps(options);
  const profile = await profileSteps(options);
  const dense = timed.find(({ sparsity }) => sparsity === 0);
  return timed.map(({ sparsity, kernels, summary, deviceBytes, usedMb }): TrainRow => {
    const seconds = summary.p50 / 1000;
    const gflops = stepOperations(config, options, 1) / seconds / 1e9;
    return {
      engine: "lacuna",
      device: options.provider === "dawn" ? "dawn" : "webgpu",
      precision: options.precision,
      model: options.model,
      weights: sparsity > 0 ? "sparse" : "dense",
      kernels,
      pattern: sparsity > 0 ? pattern : "dense",
      sparsity,
      batch,
      tokens,
      threads: 1,
      step_ms: summary,
      tokens_per_second: batch * tokens / seconds,
      examples_per_second: batch / seconds,
      gflops,
      dense_equivalent_gflops: gflops,
      share_of_peak: gflops / peakGflops,
      ...(dense ? { speedup_vs_dense: dense.summary.p50 / summary.p50 } : {}),
      arena_mb: deviceBytes / 1e6,
      ...(usedMb === undefined ? {} : { gpu_used_mb: usedMb }),
      ...profile,
    };
  });
}

interface TimedSteps extends StepKind {
  readonly summary: LatencySummary;
  readonly deviceBytes: number;
  readonly usedMb?: number;
}

async function timeSteps(options: GpuTrainOptions): Promise<TimedSteps[]> {
  const { sparsities, seconds, provider, allowSoftware, onProgress } = options;
  const gpu = await createGpuExecutor({ provider, allowSoftware });
  const runner = await StepRunner.create(options, { workers: 1, createExecutor: poolFactory(), gpu });
  try {
    const timed: TimedSteps[] = [];
    const { parameterBytes, activationBytes } = runner.trainer.needs;
    for (const sparsity of sparsities) {
      onProgress?.("timing steps on the GPU", timed.length / sparsities.length);
      const kind = await runner.step(sparsity); // Compiles, and renews the mask.
      const group = async (steps: number) => {
        const begin = performance.now();
        for (let step = 0; step < steps; step++) await runner.advance(sparsity);
        await runner.drain();
        return (performance.now() - begin) / steps;
      };
      const estimateMs = await group(leastSteps);
      const steps = Math.max(leastSteps, Math.ceil(seconds * 1000 / groups / estimateMs));
      const times: number[] = [];
      for (let index = 0; index < groups; index++) times.push(await group(steps));
      timed.push({
        ...kind,
        summary: summarize(times),
        deviceBytes: parameterBytes + activationBytes,
        usedMb: await usedGpuMb(),
      });
    }
    return timed;
  } finally {
    await runner.trainer.dispose();
  }
}

/** What a step is made of, at no sparsity: nothing is known where the GPU has no timestamps. */
async function profileSteps(
  options: GpuTrainOptions,
): Promise<Pick<TrainRow, "gpu_ms" | "encode_ms" | "operations">> {
  options.onProgress?.("timing operations on the GPU", 0);
  const open = await openAdapter(options);
  if (!open.device.features.has("timestamp-query")) {
    open.device.destroy();
    return { operations: [] };
  }
  const gpu = new TimingGpuExecutor(open);
  const runner = await StepRunner.create(options, { workers: 1, createExecutor: poolFactory(), gpu });
  try {
    await runner.step(0);
    const steps = async () => {
      gpu.reset();
      for (let step = 0; step < profiledSteps; step++) await runner.step(0);
    };
    await steps();
    const median = (times: readonly number[]) => percentile(times.toSorted((a, b) => a - b), 0.5);
    const whole = {
      gpu_ms: median(gpu.runs.map(({ gpuMs }) => gpuMs)),
      encode_ms: median(gpu.runs.map(({ encodeMs }) => encodeMs)),
    };
    gpu.byOperation = true;
    await steps();
    const times = gpu.times().map(({ operation, calls, ms }) => ({
      operation,
      calls: calls / profiledSteps,
      ms: ms / profiledSteps,
    }));
    const totalMs = times.reduce((sum, { ms }) => sum + ms, 0);
    const operations = times.map((time): OperationShare => ({ ...time, share: time.ms / totalMs }));
    return { ...whole, operations };
  } finally {
    await runner.trainer.dispose();
  }
}
