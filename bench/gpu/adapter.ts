/**
 * Who the GPU is: what WebGPU says of it, and what NVIDIA's tool says where there is one.
 * @module
 */
import { errorMessage, InputError, UnsupportedError } from "../../src/core/errors.ts";
import type { Precision } from "../../src/finetune/options.ts";
import {
  type AdapterDescription,
  chooseAdapter,
  describeAdapter,
  type GpuOptions,
  type OpenGpu,
  openGpu,
} from "../../src/webgpu/adapter.ts";
import { type GpuPeaks, measurePeaks, type PeakSizes, peakSizes } from "./peaks.ts";
import { type GpuClock, GpuTimer } from "./timer.ts";

/** The GPU, for the reader of the numbers. */
export interface GpuDescription extends AdapterDescription {
  /** Features of the adapter. */
  readonly features: readonly string[];
  /** Limits of the device as it was opened. */
  readonly limits: Readonly<Record<string, number>>;
  /** `nvidia-smi`: name, driver, memory, clocks; or why there is nothing. */
  readonly nvidia_smi: Readonly<Record<string, string>> | string;
}

/** Limits that matter to computing. */
const listedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
  "minStorageBufferOffsetAlignment",
] as const;

/** Opens the GPU. Whoever asks destroys the device. Throws `UnsupportedError` with the reason where there is none. */
export async function openAdapter(options: GpuOptions): Promise<OpenGpu & { readonly from: GPUAdapter }> {
  const choice = await chooseAdapter(options);
  if ("reason" in choice) throw new UnsupportedError(`Cannot use a GPU: ${choice.reason}`);
  return { ...await openGpu(choice.adapter), from: choice.adapter };
}

/** Describes the GPU. */
export async function describeGpu(options: GpuOptions): Promise<GpuDescription> {
  const { from, device } = await openAdapter(options);
  const description = {
    ...describeAdapter(from),
    features: [...from.features].sort(),
    limits: Object.fromEntries(listedLimits.map((name) => [name, device.limits[name]])),
    nvidia_smi: await nvidiaSmi(),
  };
  device.destroy();
  return description;
}

/**
 * What steps are timed in: what was asked for, else all that the GPU has. Throws `InputError` for a precision that there is none of
 * or the GPU does not have.
 */
export function timedPrecisions(
  wanted: string | undefined,
  { name, features }: Pick<GpuDescription, "name" | "features">,
): Precision[] {
  const hasHalves = features.includes("shader-f16");
  if (wanted === undefined) return hasHalves ? ["fp32", "fp16"] : ["fp32"];
  if (wanted !== "fp32" && wanted !== "fp16") {
    throw new InputError(`--precision is ${wanted}: wanted fp32 or fp16`);
  }
  if (wanted === "fp16" && !hasHalves) {
    throw new InputError(`--precision is fp16: wanted fp32 on ${name}, which has no shader-f16`);
  }
  return [wanted];
}

/** Measured limits, and by which clock. */
export type TimedPeaks = GpuPeaks & { readonly clock: GpuClock };

/** Measures the limits of the GPU: with the sizes of a real one, or tiny ones where a CPU plays it. */
export async function gpuPeaks(options: GpuOptions): Promise<TimedPeaks> {
  const gpu = await openAdapter(options);
  try {
    const timer = new GpuTimer(gpu);
    return {
      ...await measurePeaks(timer, gpu.adapter.isSoftware ? softwareSizes : peakSizes),
      clock: timer.clock,
    };
  } finally {
    gpu.device.destroy();
  }
}

const softwareSizes: PeakSizes = { workgroups: 8, turns: 4, copyBytes: 2 ** 20 };

const smiFields = [
  "name",
  "driver_version",
  "memory.total",
  "clocks.max.sm",
  "clocks.max.memory",
  "power.limit",
];

async function nvidiaSmi(): Promise<GpuDescription["nvidia_smi"]> {
  const values = await querySmi(smiFields);
  if (typeof values === "string") return values;
  return Object.fromEntries(smiFields.map((field, index) => [field, values[index] ?? "unknown"]));
}

/** What the GPU has in use now, all programs together, in 10⁶ bytes; undefined where nvidia-smi does not tell. */
export async function usedGpuMb(): Promise<number | undefined> {
  const values = await querySmi(["memory.used"]);
  const mebibytes = typeof values === "string" ? NaN : parseFloat(values[0]);
  return Number.isFinite(mebibytes) ? mebibytes * 2 ** 20 / 1e6 : undefined;
}

/** Fields of the first GPU, or why there are none. */
async function querySmi(fields: readonly string[]): Promise<string[] | string> {
  try {
    const { success, stdout, stderr } = await new Deno.Command("nvidia-smi", {
      args: [`--query-gpu=${fields.join(",")}`, "--format=csv,noheader"],
      stdout: "piped",
      stderr: "piped",
    }).output();
    const text = new TextDecoder().decode(success ? stdout : stderr).trim();
    return success ? text.split("\n")[0].split(", ") : `unknown: nvidia-smi says ${text}`;
  } catch (error) {
    return `unknown: ${errorMessage(error)}`;
  }
}
