/**
 * The result of `gpu_check.ts`, and what it prints of it.
 * @module
 */
import { percent, significant, type TextColumn, textTable } from "../../src/report/text_table.ts";
import type { MachineDescription } from "../machine.ts";
import type { TrainRow } from "../train.ts";
import type { GpuDescription, TimedPeaks } from "./adapter.ts";
import type { KernelTests } from "./kernel_tests.ts";
import { bestBesideChosen, type SweepResult } from "./matmul_sweep.ts";
import type { PartName } from "./options.ts";
import { parityFaults, type ParityRow } from "./parity.ts";
import { overheadTarget, productTarget, shareOutside } from "./targets.ts";

/** What each part finds. */
export interface PartResults extends Record<PartName, unknown> {
  readonly kernels: KernelTests;
  readonly parity: readonly ParityRow[];
  readonly peaks: TimedPeaks;
  readonly matmul: SweepResult;
  readonly train: readonly TrainRow[];
}

/** How a part went. */
export interface Part<Result> {
  readonly ok: boolean;
  readonly seconds: number;
  /** What is wrong, a line each. */
  readonly faults: readonly string[];
  /** Absent where it broke off. */
  readonly result?: Result;
}

/** Everything, as `--json` has it. */
export interface GpuCheckResult {
  readonly date: string;
  readonly deno: string;
  readonly quick: boolean;
  readonly machine: MachineDescription;
  readonly gpu: GpuDescription;
  readonly parts: { [Name in PartName]?: Part<PartResults[Name]> };
}

/** Runs a part. What it throws, and that it takes too long, is its fault, and keeps no other part back. */
export async function runPart<Result>(
  run: () => Promise<Result>,
  faultsOf: (result: Result) => readonly string[],
  limitSeconds: number,
): Promise<Part<Result>> {
  const begin = performance.now();
  const seconds = () => (performance.now() - begin) / 1000;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const message = `it was not done in ${limitSeconds} s`;
    timer = setTimeout(() => reject(new Error(message)), 1000 * limitSeconds);
  });
  try {
    const result = await Promise.race([run(), late]);
    const faults = faultsOf(result);
    return { ok: faults.length === 0, seconds: seconds(), faults, result };
  } catch (error) {
    const message = error instanceof Error ? `${error.name}: ${error.message}` : `${error}`;
    return { ok: false, seconds: seconds(), faults: [message.replaceAll("\n", "; ")] };
  } finally {
    clearTimeout(timer);
  }
}

/** What is wrong in the results of each part. */
export const faultsOf: { readonly [Name in PartName]: (result: PartResults[Name]) => string[] } = {
  kernels: ({ files }) =>
    files.flatMap(({ file, failures }) =>
      failures.map(({ name, message }) => `${file}: ${name}: ${message}`)
    ),
  parity: (rows) => rows.flatMap(parityFaults),
  peaks: ({ clock_ratio }) =>
    clock_ratio === undefined || clock_ratio > 0.8 && clock_ratio < 1.02
      ? []
      : [`timestamps count ${clock_ratio} ms in a millisecond: wanted 0.8 to 1.02`],
  matmul: ({ failures }) =>
    failures.map(({ product, configuration, shares, message }) =>
      `${product}, ${configuration}, ${shares} shares: ${message}`
    ),
  train: (rows) => rows.length > 0 ? [] : ["no row was measured"],
};

/** The lines that it prints. */
export function formatCheck({ gpu, machine, parts }: GpuCheckResult): string {
  const smi = typeof gpu.nvidia_smi === "string"
    ? gpu.nvidia_smi
    : Object.entries(gpu.nvidia_smi).map(([name, value]) => `${name} ${value}`).join(", ");
  const blocks = [
    [
      `${gpu.name}${gpu.isSoftware ? ", a CPU that plays a GPU: times mean nothing" : ""}`,
      `  nvidia-smi: ${smi}`,
      `  features: ${gpu.features.join(" ")}`,
      ...Object.entries(gpu.limits).map(([name, limit]) => `  ${name} ${limit}`),
      `beside ${machine.cpu}, ${machine.cores} cores`,
    ].join("\n"),
  ];
  const { kernels, parity, peaks, matmul, train } = parts;
  if (kernels) blocks.push(partBlock("kernel tests", kernels, formatTests));
  if (parity) blocks.push(partBlock("training on CPU and GPU", parity, formatParity));
  if (peaks) blocks.push(partBlock("measured peaks", peaks, formatPeaks));
  if (matmul) blocks.push(partBlock("matrix products", matmul, formatSweep));
  if (train) blocks.push(partBlock("fine-tuning steps", train, formatSteps));
  return blocks.join("\n\n");
}

/** Faults that are printed of a part; the file has all. */
const listedFaults = 20;

function partBlock<Result>(title: string, part: Part<Result>, format: (result: Result) => string): string {
  const { ok, seconds, faults, result } = part;
  const more = faults.length - listedFaults;
  return [
    `${title}: ${ok ? "ok" : "FAILED"} (${significant(seconds)} s)`,
    ...faults.slice(0, listedFaults).map((fault) => `  ! ${fault}`),
    ...(more > 0 ? [`  ! and ${more} more`] : []),
    ...(result === undefined ? [] : [format(result)]),
  ].join("\n");
}

function formatPeaks({ fp32_tflops, fp16_tflops, clock_ratio, ...copies }: PartResults["peaks"]): string {
  const fp16 = fp16_tflops === undefined ? "" : `, fp16 ${significant(fp16_tflops)} TFLOP/s`;
  return [
    `  multiply-adds: fp32 ${significant(fp32_tflops)} TFLOP/s${fp16}`,
    `  copying: ${significant(copies.copy_gb_s)} GB/s in a shader, ` +
    `${significant(copies.buffer_copy_gb_s)} GB/s by command`,
    clock_ratio === undefined
      ? "  by the wall clock: it has no timestamps"
      : `  by timestamps of the GPU, whose second is ${clock_ratio.toFixed(3)} s`,
  ].join("\n");
}

function formatTests({ passed, failed, ignored, files }: KernelTests): string {
  const leftOut = files.filter(({ left_out }) => left_out !== undefined);
  return [
    `  ${files.length - leftOut.length} files: ${passed} passed, ${failed} failed, ${ignored} ignored`,
    ...leftOut.map(({ file, left_out }) => `  ${file} is left out: it ${left_out}`),
  ].join("\n");
}

const exponential = (value: number) => value.toExponential(1);

function formatParity(rows: readonly ParityRow[]): string {
  return textTable<ParityRow>([
    { heading: "model", cell: (row) => row.case, words: true },
    {
      heading: "compared",
      cell: ({ precision }) => precision === "fp32" ? "GPU with CPU" : `${precision} with fp32`,
      words: true,
    },
    { heading: "steps", cell: ({ steps }) => `${steps}` },
    { heading: "loss", cell: (row) => `${significant(row.first_loss)} → ${significant(row.last_loss)}` },
    { heading: "Δ loss", cell: (row) => exponential(row.loss_difference) },
    { heading: "Δ norm", cell: (row) => exponential(row.norm_difference) },
    { heading: "Δ gradient", cell: (row) => exponential(row.gradient_difference) },
    { heading: "Δ weight", cell: (row) => exponential(row.weight_difference) },
    { heading: "in the mean", cell: (row) => exponential(row.weight_mean_difference) },
    { heading: "of way", cell: (row) => exponential(row.weight_difference_of_way) },
  ], rows);
}

function formatSweep({ rows }: SweepResult): string {
  type Line = ReturnType<typeof bestBesideChosen>[number];
  const name = ({ configuration, shares }: Line["best"]) =>
    shares > 1 ? `${configuration} ÷ ${shares}` : configuration;
  const table = textTable<Line>([
    { heading: "product", cell: ({ best }) => best.product, words: true },
    { heading: "precision", cell: ({ best }) => best.precision, words: true },
    { heading: "best of all", cell: ({ best }) => name(best), words: true },
    { heading: "ms", cell: ({ best }) => significant(best.median_ms) },
    { heading: "TFLOP/s", cell: ({ best }) => significant(best.tflops) },
    { heading: "of peak", cell: ({ best }) => percent(best.share_of_peak) },
    { heading: "chosen", cell: ({ chosen }) => chosen ? name(chosen) : "failed", words: true },
    { heading: "× best", cell: ({ slowdown }) => slowdown?.toFixed(2) ?? "–" },
  ], bestBesideChosen(rows));
  return [table, ...productTarget(rows)].join("\n");
}

/** Operations that are listed. */
const listedOperations = 16;

function formatSteps(rows: readonly TrainRow[]): string {
  const columns: TextColumn<TrainRow>[] = [
    { heading: "model", cell: ({ model }) => model, words: true },
    { heading: "batch", cell: ({ batch, tokens }) => `${batch}×${tokens}` },
    { heading: "precision", cell: ({ precision }) => precision, words: true },
    { heading: "ms a step", cell: ({ step_ms }) => significant(step_ms.p50) },
    { heading: "of the GPU", cell: ({ gpu_ms }) => gpu_ms === undefined ? "–" : significant(gpu_ms) },
    {
      heading: "outside",
      cell: (row) => row.gpu_ms === undefined ? "–" : percent(shareOutside(row)),
    },
    {
      heading: "to feed it",
      cell: ({ encode_ms }) => encode_ms === undefined ? "–" : significant(encode_ms),
    },
    { heading: "tokens/s", cell: ({ tokens_per_second }) => significant(tokens_per_second) },
    { heading: "of peak", cell: ({ share_of_peak }) => percent(share_of_peak) },
    { heading: "MB", cell: ({ arena_mb }) => significant(arena_mb) },
    {
      heading: "MB in use",
      cell: ({ gpu_used_mb }) => gpu_used_mb === undefined ? "–" : significant(gpu_used_mb),
    },
  ];
  const shares = rows.filter(({ operations }) => operations.length > 0).map((row) => {
    const listed = row.operations.slice(0, listedOperations).map((time) => ({ row, time }));
    return `${row.model} ${row.batch}×${row.tokens} in ${row.precision}, by operation\n` +
      textTable<typeof listed[number]>([
        { heading: "operation", cell: ({ time }) => time.operation, words: true },
        { heading: "calls", cell: ({ time }) => significant(time.calls) },
        { heading: "ms", cell: ({ time }) => significant(time.ms) },
        { heading: "share", cell: ({ time }) => percent(time.share) },
      ], listed);
  });
  return [[textTable(columns, rows), ...overheadTarget(rows)].join("\n"), ...shares].join("\n\n");
}
