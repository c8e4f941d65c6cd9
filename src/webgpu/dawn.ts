/**
 * Dawn, the WebGPU of Chrome, with its backend that runs nothing: it checks shaders and calls as strictly as a browser does, without a
 * driver. Deno's own (naga, wgpu) overlooks some of it, such as barriers where invocations may have parted. For tests.
 * @module
 */
import { create } from "webgpu";
import { type OpenGpu, openGpu } from "./adapter.ts";

/** A device on which all calls are checked and none is carried out: what it writes stays zero. */
export async function openDawn(): Promise<OpenGpu> {
  const gpu = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]) as GPU;
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("Dawn has no adapter for its null backend");
  return await openGpu(adapter);
}
