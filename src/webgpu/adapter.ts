/**
 * Finding a GPU and opening it, with all that it can give.
 * @module
 */
import { errorMessage, UnsupportedError } from "../core/errors.ts";
import type { ShaderTarget, SubgroupMatrixSize } from "../kernels/shader.ts";
import { loadDawn } from "./dawn_provider.ts";

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
  /** Which matrices its subgroups multiply (`ShaderTarget.subgroupMatrices`), or why none; absent where WebGPU knows of no such. */
  readonly matrices?: string;
}

/** An open device with what shaders for it may rely on. */
export interface OpenGpu {
  readonly adapter: AdapterDescription;
  readonly device: GPUDevice;
  readonly target: ShaderTarget;
}

/** Whose WebGPU leads to the GPU: that of the runtime, or Dawn's. */
export type GpuProvider = "system" | "dawn";

/** Which GPUs will do. */
export interface GpuOptions {
  /** Default `system`. */
  readonly provider?: GpuProvider;
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

/** Of Chrome alone: the types know none of it. */
const matrixFeature = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

/** Features that are asked for where the adapter has them. */
const wantedFeatures = ["shader-f16", "timestamp-query", "subgroups", matrixFeature] as const;

/** What Dawn tells besides. */
interface DawnAdapterInfo extends GPUAdapterInfo {
  readonly subgroupMatrixConfigs: readonly {
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }[];
}

function isOfDawn(info: GPUAdapterInfo): info is DawnAdapterInfo {
  return "subgroupMatrixConfigs" in info;
}

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
  { allowSoftware, provider = "system" }: GpuOptions,
  gpu?: GPU | null,
): Promise<{ readonly adapter: GPUAdapter } | { readonly reason: string }> {
  const who = provider === "dawn" ? "Dawn" : "WebGPU";
  let adapter: GPUAdapter | undefined;
  try {
    const provided = gpu !== undefined ? gpu : provider === "dawn" ? await loadDawn() : navigator.gpu;
    if (!provided) return { reason: "this runtime has no WebGPU" };
    adapter = await findAdapter(provided);
  } catch (error) {
    if (error instanceof UnsupportedError) return { reason: error.message };
    return { reason: `${who} fails to look for one: ${errorMessage(error)}` };
  }
  if (!adapter) return { reason: `${who} finds no adapter` };
  const { name, isSoftware } = describeAdapter(adapter);
  if (isSoftware && !allowSoftware) return { reason: `the only adapter, ${name}, is a CPU that plays one` };
  return { adapter };
}

/** What an adapter says about itself. */
export function describeAdapter(adapter: GPUAdapter): AdapterDescription {
  const { info } = adapter;
  const ofDawn = isOfDawn(info);
  // Where others have the name, Dawn has the driver.
  const name = (ofDawn ? info.device : info.description || info.device) || "unnamed adapter";
  const isSoftware = info.isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software/i.test(name);
  const driver = ofDawn ? info.description : info.architecture;
  return {
    name,
    vendor: info.vendor,
    driver,
    isSoftware,
    ...(ofDawn && { matrices: describeMatrices(adapter) }),
  };
}

function describeMatrices(adapter: GPUAdapter): string {
  const obstacle = matrixObstacle(adapter);
  if (obstacle !== undefined) return `no subgroup matrices: ${obstacle}`;
  const sizes = matrixSizesOf(adapter).map(({ rows, columns, depth }) => `${rows}×${columns}×${depth}`);
  return `subgroup matrices of ${sizes.join(", ")}`;
}

/** Lanes of a subgroup, where built-ins for them compile (naga has none) and the driver cannot choose among several sizes. */
function subgroupSizeOf({ info, features }: GPUAdapter): number | undefined {
  const isKnown = isOfDawn(info) && features.has("subgroups") &&
    info.subgroupMinSize === info.subgroupMaxSize;
  return isKnown ? info.subgroupMaxSize : undefined;
}

/** Why subgroup matrices cannot be had. */
function matrixObstacle(adapter: GPUAdapter): string | undefined {
  const { info, features } = adapter;
  const needed = [matrixFeature, "shader-f16", "subgroups"] as const;
  const missing = needed.filter((name) => !features.has(name));
  if (missing.length > 0) return `the adapter has no ${missing.join(", no ")}`;
  if (subgroupSizeOf(adapter) === undefined) {
    return `subgroups have ${info.subgroupMinSize} to ${info.subgroupMaxSize} lanes`;
  }
  return matrixSizesOf(adapter).length === 0 ? "none has float16 operands and float32 sums" : undefined;
}

/** Sizes of the matrices with float16 operands and float32 sums, as the adapter lists them. */
function matrixSizesOf({ info }: GPUAdapter): SubgroupMatrixSize[] {
  if (!isOfDawn(info)) return [];
  return info.subgroupMatrixConfigs
    .filter(({ componentType, resultComponentType }) =>
      componentType === "f16" && resultComponentType === "f32"
    )
    .map(({ M, N, K }) => ({ rows: M, columns: N, depth: K }));
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
    subgroupSize: subgroupSizeOf(adapter),
    subgroupMatrices: matrixObstacle(adapter) === undefined ? matrixSizesOf(adapter) : [],
    f16: device.features.has("shader-f16"),
    columnGrain,
  };
  return { adapter: description, device, target };
}
