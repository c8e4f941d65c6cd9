/**
 * Which device trains, and why.
 * @module
 */
import { InputError, UnsupportedError } from "../core/errors.ts";
import type { Machine } from "../machines/machine.ts";
import { usualTile } from "../plan/plan.ts";
import type { Modifier } from "../recipes/modifiers.ts";
import {
  type AdapterDescription,
  chooseAdapter,
  describeAdapter,
  type GpuOptions,
} from "../webgpu/adapter.ts";
import type { Precision } from "./options.ts";

/** The chosen device with the reason, for the first line of a run. */
export interface ChosenDevice {
  readonly name: "cpu" | "webgpu" | "dawn";
  readonly reason: string;
  /** Absent: all is float32. */
  readonly precision?: "fp16";
}

/** What a device is to do. */
export interface DeviceRequest {
  /** What the run is to do when. */
  readonly modifiers: readonly Modifier[];
  /** Whether the caller can open a GPU. */
  readonly hasGpuFactory: boolean;
  /** What activations are to be; default `fp32`. */
  readonly precision?: Precision;
}

/**
 * Chooses the device: a GPU where there is one, never a CPU that plays one unless asked. Opens nothing. Throws `InputError` for
 * an unknown name or a precision that the device does not have, `UnsupportedError` for a GPU that cannot be had or cannot do what
 * is asked.
 */
export async function chooseDevice(
  wanted: string,
  request: DeviceRequest,
  findAdapter: typeof chooseAdapter = chooseAdapter,
): Promise<ChosenDevice> {
  if (wanted === "cpu") return onCpu("as asked", request);
  if (wanted !== "auto" && wanted !== "webgpu" && wanted !== "dawn") {
    throw new InputError(`--device is ${wanted}: wanted auto, cpu, webgpu or dawn`);
  }
  const reason = obstacleTo(request);
  const choice = reason === undefined ? await findAdapter(gpuOptions(wanted)) : { reason };
  if ("adapter" in choice) {
    const precision = halvesOn(choice.adapter, request);
    return wanted === "auto"
      ? { name: "webgpu", reason: "auto", ...precision }
      : { name: wanted, reason: "as asked", ...precision };
  }
  if (wanted === "auto") return onCpu(`auto: ${choice.reason}`, request);
  throw new UnsupportedError(`--device ${wanted} cannot train this run: ${choice.reason}`);
}

function onCpu(reason: string, { precision }: DeviceRequest): ChosenDevice {
  if (precision !== "fp16") return { name: "cpu", reason };
  throw new InputError(
    `--precision is fp16: wanted fp32 on the CPU (${reason}), which has no arithmetic for it`,
  );
}

function halvesOn(adapter: GPUAdapter, { precision }: DeviceRequest): Pick<ChosenDevice, "precision"> {
  if (precision !== "fp16") return {};
  if (adapter.features.has("shader-f16")) return { precision };
  throw new InputError(
    `--precision is fp16: wanted fp32 on ${describeAdapter(adapter).name}, which has no shader-f16`,
  );
}

/** Which GPU `--device` means: one that a CPU plays only where a GPU is asked for by name, and Dawn's only by its own. */
export function gpuOptions(wanted: "auto" | "webgpu" | "dawn"): GpuOptions {
  return { provider: wanted === "dawn" ? "dawn" : "system", allowSoftware: wanted !== "auto" };
}

/** Why a GPU is not to be used for a run, whatever there is. */
function obstacleTo({ modifiers, hasGpuFactory }: DeviceRequest): string | undefined {
  if (!hasGpuFactory) return "the caller can open no GPU";
  const moves = modifiers.some(({ modifier }) => modifier === "MovementPruningModifier");
  return moves ? "movement pruning trains its scores on the CPU" : undefined;
}

/** The tile of matrices that a batch is written to: on a GPU the features of a column lie together. */
export function tileOf({ name }: ChosenDevice, machine: Machine): number {
  return name === "cpu" ? usualTile(machine.lanes) : 1;
}

/** What the last bits of a run's numbers depend on: who compiles for the GPU, or the instruction set; and the precision. */
export function arithmeticOf({ name, precision }: ChosenDevice, machine: Machine): string {
  return `${name === "cpu" ? machine.isa : name}${precision ? ` in ${precision}` : ""}`;
}

/** The first line of a run, up to its threads. */
export function describeDevice(
  { name, reason, precision }: ChosenDevice,
  gpu: AdapterDescription | undefined,
): string {
  const parts = [`device: ${name} (${reason})${precision ? ` in ${precision}` : ""}`];
  if (gpu) {
    parts.push(gpu.name);
    if (gpu.driver !== "") parts.push(gpu.driver);
    if (gpu.isSoftware) parts.push("a CPU that plays a GPU");
    if (gpu.matrices !== undefined) parts.push(gpu.matrices);
  }
  return parts.join(", ");
}
