/**
 * Which device trains, and why.
 * @module
 */
import { InputError, UnsupportedError } from "../core/errors.ts";
import type { Machine } from "../machines/machine.ts";
import { usualTile } from "../plan/plan.ts";
import type { Modifier } from "../recipes/modifiers.ts";
import { type AdapterDescription, chooseAdapter, type GpuOptions } from "../webgpu/adapter.ts";

/** The chosen device with the reason, for the first line of a run. */
export interface ChosenDevice {
  readonly name: "cpu" | "webgpu" | "dawn";
  readonly reason: string;
}

/** What a device is to do. */
export interface DeviceRequest {
  /** What the run is to do when. */
  readonly modifiers: readonly Modifier[];
  /** Whether the caller can open a GPU. */
  readonly hasGpuFactory: boolean;
}

/**
 * Chooses the device: a GPU where there is one, never a CPU that plays one unless asked. Opens nothing. Throws `InputError` for
 * an unknown name, `UnsupportedError` for a GPU that cannot be had or cannot do what is asked.
 */
export async function chooseDevice(
  wanted: string,
  request: DeviceRequest,
  findAdapter: typeof chooseAdapter = chooseAdapter,
): Promise<ChosenDevice> {
  if (wanted === "cpu") return { name: "cpu", reason: "as asked" };
  if (wanted !== "auto" && wanted !== "webgpu" && wanted !== "dawn") {
    throw new InputError(`--device is ${wanted}: wanted auto, cpu, webgpu or dawn`);
  }
  const obstacle = obstacleTo(request) ?? await adapterObstacle(gpuOptions(wanted), findAdapter);
  if (wanted === "auto") {
    return obstacle === undefined
      ? { name: "webgpu", reason: "auto" }
      : { name: "cpu", reason: `auto: ${obstacle}` };
  }
  if (obstacle === undefined) return { name: wanted, reason: "as asked" };
  throw new UnsupportedError(`--device ${wanted} cannot train this run: ${obstacle}`);
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

async function adapterObstacle(
  options: GpuOptions,
  findAdapter: typeof chooseAdapter,
): Promise<string | undefined> {
  const choice = await findAdapter(options);
  return "reason" in choice ? choice.reason : undefined;
}

/** The tile of matrices that a batch is written to: on a GPU the features of a column lie together. */
export function tileOf({ name }: ChosenDevice, machine: Machine): number {
  return name === "cpu" ? usualTile(machine.lanes) : 1;
}

/** What the last bits of a run's numbers depend on: who compiles for the GPU, or the instruction set. */
export function arithmeticOf({ name }: ChosenDevice, machine: Machine): string {
  return name === "cpu" ? machine.isa : name;
}

/** The first line of a run, up to its threads. */
export function describeDevice({ name, reason }: ChosenDevice, gpu: AdapterDescription | undefined): string {
  const parts = [`device: ${name} (${reason})`];
  if (gpu) {
    parts.push(gpu.name);
    if (gpu.driver !== "") parts.push(gpu.driver);
    if (gpu.isSoftware) parts.push("a CPU that plays a GPU");
    if (gpu.matrices !== undefined) parts.push(gpu.matrices);
  }
  return parts.join(", ");
}
