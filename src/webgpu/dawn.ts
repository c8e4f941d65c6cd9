/**
 * Dawn with its backend that runs nothing: it checks shaders and calls as strictly as a browser does, without a
 * driver. Deno's own (naga, wgpu) overlooks some of it, such as barriers where invocations may have parted. For tests.
 * @module
 */
import type { Shader } from "../kernels/shader.ts";
import { type OpenGpu, openGpu } from "./adapter.ts";
import { loadDawn } from "./dawn_provider.ts";
import { oneLine, scoped } from "./device_errors.ts";
import { Pipelines } from "./pipelines.ts";

/** A device on which all calls are checked and none is carried out: what one reads there means nothing. */
export async function openDawn(): Promise<OpenGpu> {
  const adapter = await (await loadDawn("null")).requestAdapter();
  if (!adapter) throw new Error("Dawn has no adapter for its null backend");
  return await openGpu(adapter);
}

/**
 * Compiles shaders on a device of `openDawn`. Of those with more buffers than that device binds, 8, the code alone; of all others
 * whether it agrees with the bindings, too. @throws Error naming the first shader that is wrong.
 */
export async function checkShaders({ device, target }: OpenGpu, shaders: Iterable<Shader>): Promise<void> {
  const pipelines = new Pipelines(device, target);
  for (const shader of new Map(Array.from(shaders, (shader) => [shader.key, shader])).values()) {
    const buffers = shader.bindings.filter((use) => use !== "uniform").length;
    if (buffers <= device.limits.maxStorageBuffersPerShaderStage) {
      await pipelines.compile([shader]);
    } else {
      const { problem } = scoped(device, () => device.createShaderModule({ code: shader.code }));
      const found = await problem;
      if (found !== undefined) throw new Error(`shader ${shader.key} does not compile: ${oneLine(found)}`);
    }
  }
}
