/**
 * Finding a GPU and opening it, with all that it can give.
 * @module
 */
import { errorMessage, UnsupportedError } from "../core/errors.ts";
import type { ShaderTarget } from "../kernels/shader.ts";

/** Columns of tiled values come in multiples of this: the least that keeps rows of batches in whole 128-byte lines. */
const columnGrain = 32;

/** Who an adapter is, for reports. */
export interface AdapterDescription {
  /** The adapter's own words, such as `NVIDIA H100 PCIe` or `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly name: string;
  readonly vendor: string;
  readonly driver: string;
  /** Whether a CPU plays the GPU. */
  readonly isSoftware: boolean;
}

/** An open device with what shaders for it may rely on. */
export interface OpenGpu {
  readonly adapter: AdapterDescription;
  readonly device: GPUDevice;
  readonly target: ShaderTarget;
}

/** Which GPUs will do. */
export interface GpuOptions {
  /** Whether a CPU may play the GPU. */
  readonly allowSoftware: boolean;
}

/** Limits that are asked for as high as the adapter has them. */
const raisedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
] as const;

/** Features that are asked for where the adapter has them. */
const wantedFeatures = ["shader-f16", "timestamp-query", "subgroups"] as const;

/** The adapter that the system prefers; undefined where there is none. */
export async function findAdapter(gpu: GPU | undefined = navigator.gpu): Promise<GPUAdapter | undefined> {
  return await quietly(async () =>
    await gpu?.requestAdapter({ powerPreference: "high-performance" }) ?? undefined
  );
}

/**
 * Where there is no folder for a session's sockets, as on servers, Mesa's drivers say so on standard error. They want it for
 * windows only, so any name will do while they are loaded.
 */
async function quietly<T>(load: () => Promise<T>): Promise<T> {
  const variable = "XDG_RUNTIME_DIR";
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  if (state !== "granted" || Deno.build.os !== "linux" || Deno.env.get(variable)) return await load();
  Deno.env.set(variable, "/run");
  try {
    return await load();
  } finally {
    Deno.env.delete(variable);
  }
}

/** The adapter to use, or in one line why there is none. */
export async function chooseAdapter(
  { allowSoftware }: GpuOptions,
  gpu: GPU | null | undefined = navigator.gpu,
): Promise<{ readonly adapter: GPUAdapter } | { readonly reason: string }> {
  if (!gpu) return { reason: "this runtime has no WebGPU" };
  let adapter: GPUAdapter | undefined;
  try {
    adapter = await findAdapter(gpu);
  } catch (error) {
    return { reason: `WebGPU fails to look for one: ${errorMessage(error)}` };
  }
  if (!adapter) return { reason: "WebGPU finds no adapter" };
  const { name, isSoftware } = describeAdapter(adapter);
  if (isSoftware && !allowSoftware) return { reason: `the only adapter, ${name}, is a CPU that plays one` };
  return { adapter };
}

/** What an adapter says about itself. */
export function describeAdapter({ info }: GPUAdapter): AdapterDescription {
  const name = info.description || info.device || "unnamed adapter";
  const isSoftware = info.isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software/i.test(name);
  return { name, vendor: info.vendor, driver: info.architecture, isSoftware };
}

/** Opens an adapter. @throws UnsupportedError where it gives no device. */
export async function openGpu(adapter: GPUAdapter): Promise<OpenGpu> {
  const description = describeAdapter(adapter);
  const requiredFeatures = wantedFeatures.filter((name) => adapter.features.has(name));
  const requiredLimits = Object.fromEntries(raisedLimits.map((name) => [name, adapter.limits[name]]));
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
  } catch (error) {
    throw new UnsupportedError(`the GPU ${description.name} gives no device: ${(error as Error).message}`);
  }
  const { limits } = device;
  const target: ShaderTarget = {
    isSoftware: description.isSoftware,
    maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
    maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize),
    f16: device.features.has("shader-f16"),
    columnGrain,
  };
  return { adapter: description, device, target };
}
