/**
 * Dawn, the WebGPU of Chrome, from the package `webgpu`: another way to the same GPU than Deno's own, and one that knows the products
 * of tensor cores (`chromium-experimental-subgroup-matrix`). It is native code, and loaded only when it is chosen.
 * @module
 */
import { errorMessage, UnsupportedError } from "../core/errors.ts";

/**
 * What Chrome hides behind a flag, subgroup matrices among it; and timestamps as the GPU has them, which web pages get in steps of
 * 65 µs, longer than many a shader runs.
 */
const features = [
  "enable-dawn-features=allow_unsafe_apis",
  "disable-dawn-features=timestamp_quantization",
] as const;

/** Kept, each with its adapters: a device does not outlive them, and says so with a segmentation fault. */
const instances = new Map<string, GPU>();

/** Dawn with the backends of the system, or with `null`, the one that runs nothing. @throws UnsupportedError where it does not load. */
export async function loadDawn(backend?: "null"): Promise<GPU> {
  const options = [...(backend ? [`backend=${backend}`] : []), ...features];
  let gpu = instances.get(options.join());
  if (!gpu) {
    try {
      const { create } = await import("webgpu");
      gpu = create(options) as GPU;
    } catch (error) {
      throw new UnsupportedError(`the package webgpu does not load: ${errorMessage(error)}`);
    }
    instances.set(options.join(), gpu);
  }
  return gpu;
}
