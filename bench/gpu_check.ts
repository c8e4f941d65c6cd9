/**
 * All that a GPU machine can tell of lacuna, in one command: whether the shaders are right there, and how fast they are.
 *
 * On a machine with a GPU, a Vulkan driver and Deno, ten minutes:
 *
 *     DENO_WEBGPU_BACKEND=vulkan deno run -A bench/gpu_check.ts --json gpu_check.json
 *     python3 tools/compare/train.py --device cuda --dtype fp32 tf32 bf16 --models bert-base --batches 32x128 8x512 --out pytorch.json
 *
 * The first tests the shaders (`gpu/kernel_tests.ts`), trains on CPU and GPU and compares (`gpu/parity.ts`), measures the limits of
 * the GPU (`gpu/peaks.ts`), every way to multiply matrices (`gpu/matmul_sweep.ts`) and fine-tuning steps (`gpu/train_steps.ts`). The
 * second times the same steps in PyTorch; both files together are what `deno task bench --train --device webgpu --against
 * pytorch.json` shows in one table. Where commands may take less time, `--parts` divides the first; for a machine without internet `gpu/carry.ts` packs what it needs.
 *
 * A part that fails is told with its message and leaves the others; the file is written after each part, so that a driver that
 * ends the process takes no more than its part. Exit code 1: some part failed. 2: it was not started.
 * @module
 */
import { dirname } from "node:path";
import { presetConfig } from "../models/presets.ts";
import { errorMessage, InputError, UnsupportedError } from "../src/core/errors.ts";
import { ensureFolder, writeFileAtomic } from "../src/core/files.ts";
import type { Precision } from "../src/finetune/options.ts";
import { createGpuExecutor } from "../workers/gpu.ts";
import { describeGpu, gpuPeaks, openAdapter, timedPrecisions } from "./gpu/adapter.ts";
import { runTestFiles, shaderTestFiles } from "./gpu/kernel_tests.ts";
import { squareProduct, sweepMatmul, trainingProducts } from "./gpu/matmul_sweep.ts";
import { type GpuCheckOptions, parseOptions, type PartName, usage } from "./gpu/options.ts";
import { compareTraining, parityCases } from "./gpu/parity.ts";
import { faultsOf, formatCheck, type GpuCheckResult, type PartResults, runPart } from "./gpu/summary.ts";
import { GpuTimer } from "./gpu/timer.ts";
import { benchGpuTraining } from "./gpu/train_steps.ts";
import { describeMachine } from "./machine.ts";
import type { TrainRow } from "./train.ts";

const note = (text: string) => console.error(text);

/** Sizes of everything. */
interface Sizes {
  /** GPU time of one measurement. */
  readonly seconds: number;
  readonly testFiles: () => Promise<string[]>;
  readonly parity: typeof parityCases;
  readonly products: ReturnType<typeof trainingProducts>;
  readonly model: "bert-base" | "bert-tiny";
  readonly batches: readonly { readonly batch: number; readonly tokens: number }[];
  /** Timed seconds of each batch. */
  readonly trainSeconds: number;
}

/** A part that takes longer hangs. */
const partLimitSeconds = 400;

/** Time for the sweep: beyond it, compiling is what takes so long. */
const sweepLimitSeconds = 240;

const fullSizes: Sizes = {
  seconds: 0.05,
  testFiles: shaderTestFiles,
  parity: parityCases,
  products: [...trainingProducts(4096, [[768, 768], [3072, 768], [768, 3072]]), squareProduct(4096)],
  model: "bert-base",
  batches: [{ batch: 32, tokens: 128 }, { batch: 8, tokens: 512 }],
  trainSeconds: 10,
};

const quickSizes: Sizes = {
  seconds: 0.002,
  testFiles: () => Promise.resolve(["src/kernels/add/add_test.ts"]),
  parity: parityCases.slice(0, 1).map((test) => ({ ...test, steps: 4 })),
  products: [squareProduct(32)],
  model: "bert-tiny",
  batches: [{ batch: 2, tokens: 16 }],
  trainSeconds: 0.2,
};

/** Runs the parts asked for, writing the result after each. Throws `UnsupportedError` where there is no GPU to check. */
export async function checkGpu(options: GpuCheckOptions): Promise<GpuCheckResult> {
  const sizes = options.quick ? quickSizes : fullSizes;
  const result: GpuCheckResult = {
    date: new Date().toISOString(),
    deno: Deno.version.deno,
    quick: options.quick,
    machine: await describeMachine(),
    gpu: await describeGpu(options),
    parts: {},
  };
  const precisions = timedPrecisions(options.precision, result.gpu);
  const { name, driver, matrices } = result.gpu;
  note([name, driver || "driver unknown", ...(matrices === undefined ? [] : [matrices])].join(", "));
  const write = () => writeFileAtomic(options.json, JSON.stringify(result, null, 1) + "\n");
  await ensureFolder(dirname(options.json));
  await write(); // That it cannot be written is to be known now.
  const runs = partRuns(options, sizes, precisions, result);
  const run = async <Name extends PartName>(name: Name) => {
    note(`${name} …`);
    const part = await runPart(runs[name], faultsOf[name], partLimitSeconds);
    Object.assign(result.parts, { [name]: part });
    note(`${name}: ${part.ok ? "ok" : `FAILED: ${part.faults[0]}`}`);
    await write();
  };
  for (const name of options.parts) await run(name);
  return result;
}

/** What each part does. */
function partRuns(
  options: GpuCheckOptions,
  sizes: Sizes,
  precisions: readonly Precision[],
  result: GpuCheckResult,
): { readonly [Name in PartName]: () => Promise<PartResults[Name]> } {
  const onProgress = (activity: string) => note(`  ${activity}`);
  /** Shares of a peak that could not be measured are NaN. */
  const peakTflops = () => result.parts.peaks?.result?.fp32_tflops ?? NaN;
  return {
    kernels: async () => await runTestFiles(await sizes.testFiles(), { config: options.config, onProgress }),
    parity: async () => {
      const rows = [];
      const available = timedPrecisions(undefined, result.gpu);
      for (const test of sizes.parity) {
        rows.push(...await compareTraining(test, () => createGpuExecutor(options), available));
      }
      return rows;
    },
    peaks: () => gpuPeaks(options),
    matmul: async () => {
      const gpu = await openAdapter(options);
      try {
        return await sweepMatmul(new GpuTimer(gpu, { seconds: sizes.seconds }), {
          products: sizes.products,
          peakTflops: peakTflops(),
          limitSeconds: sweepLimitSeconds,
          onProgress,
        });
      } finally {
        gpu.device.destroy();
      }
    },
    train: async () => {
      const rows: TrainRow[] = [];
      for (const shape of sizes.batches) {
        for (const precision of precisions) {
          rows.push(
            ...await benchGpuTraining({
              ...shape,
              config: presetConfig(sizes.model),
              model: sizes.model,
              precision,
              sparsities: [0],
              pattern: "unstructured",
              seconds: sizes.trainSeconds,
              peakGflops: 1000 * peakTflops(),
              provider: options.provider,
              allowSoftware: options.allowSoftware,
              onProgress,
            }),
          );
        }
      }
      return rows;
    },
  };
}

async function main(): Promise<number> {
  const options = parseOptions(Deno.args);
  if (options.help) {
    console.log(usage);
    return 0;
  }
  const result = await checkGpu(options);
  console.log(`\n${formatCheck(result)}\n\nresult: ${options.json}`);
  return Object.values(result.parts).every(({ ok }) => ok) ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main());
  } catch (error) {
    console.error(`gpu_check: ${errorMessage(error)}`);
    Deno.exit(error instanceof InputError || error instanceof UnsupportedError ? 2 : 1);
  }
}
