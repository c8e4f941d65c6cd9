/**
 * Compiled shaders, each once by its key.
 * @module
 */
import type { BindingUse, Shader, ShaderTarget } from "../kernels/shader.ts";
import { oneLine, scoped } from "./device_errors.ts";

/** A compiled shader with what its bind groups look like. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const bufferTypes: Readonly<Record<BindingUse, GPUBufferBindingType>> = {
  read: "read-only-storage",
  write: "storage",
  uniform: "uniform",
};

/**
 * On software uniform blocks are storage. Lavapipe (Mesa 22.3) would compile a shader whose loops end at a uniform for each value of it,
 * and again for each call, for it forgets what it compiled: a call took 3 ms more, or 50 to 1000 ms without Mesa's cache on disk.
 */
const softwareBufferTypes: typeof bufferTypes = { ...bufferTypes, uniform: "read-only-storage" };

/** The pipelines of a device. */
export class Pipelines {
  readonly #device: GPUDevice;
  readonly #isSoftware: boolean;
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #known = new Map<string, { readonly shader: Shader; readonly pipeline: Promise<Pipeline> }>();

  constructor(device: GPUDevice, { isSoftware }: Pick<ShaderTarget, "isSoftware">) {
    this.#device = device;
    this.#isSoftware = isSoftware;
  }

  /**
   * Compiles what is new, all at once; gives pipelines by key and tells how many there are already. @throws Error naming the
   * shader that does not compile, or whose key stands for two codes.
   */
  async compile(
    shaders: Iterable<Shader>,
    progress: (done: number, total: number) => void = () => {},
  ): Promise<ReadonlyMap<string, Pipeline>> {
    const wanted = new Map<string, Promise<Pipeline>>();
    for (const shader of shaders) wanted.set(shader.key, this.#pipelineOf(shader));
    const result = new Map<string, Pipeline>();
    progress(0, wanted.size);
    await Promise.all(Array.from(wanted, async ([key, pipeline]) => {
      result.set(key, await pipeline);
      progress(result.size, wanted.size);
    }));
    return result;
  }

  #pipelineOf(shader: Shader): Promise<Pipeline> {
    const known = this.#known.get(shader.key);
    if (known) {
      const isSame = known.shader.code === shader.code && `${known.shader.bindings}` === `${shader.bindings}`;
      if (isSame) return known.pipeline;
      return Promise.reject(new Error(`shader ${shader.key} has two codes: its key forgets a constant`));
    }
    const pipeline = this.#compile(shader);
    this.#known.set(shader.key, { shader, pipeline });
    pipeline.catch(() => this.#known.delete(shader.key));
    return pipeline;
  }

  async #compile({ key, code, bindings }: Shader): Promise<Pipeline> {
    const { value, problem } = scoped(this.#device, () => {
      const layout = this.#layoutOf(bindings);
      const module = this.#device.createShaderModule({ label: key, code: this.#textOf(code) });
      const pipeline = this.#device.createComputePipelineAsync({
        label: key,
        layout: this.#device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      pipeline.catch(() => {}); // Of a bad module it fails as well, with less to say; waited for below.
      return { layout, module, pipeline };
    });
    try {
      const found = await problem;
      if (found !== undefined) throw new Error(await placeOf(value.module) + found);
      return { layout: value.layout, pipeline: await value.pipeline };
    } catch (error) {
      throw new Error(`shader ${key} does not compile: ${oneLine((error as Error).message)}`);
    }
  }

  #textOf(code: string): string {
    return this.#isSoftware ? code.replace("var<uniform>", "var<storage, read>") : code;
  }

  #layoutOf(bindings: readonly BindingUse[]): GPUBindGroupLayout {
    const types = this.#isSoftware ? softwareBufferTypes : bufferTypes;
    const name = bindings.join(" ");
    let layout = this.#layouts.get(name);
    if (!layout) {
      layout = this.#device.createBindGroupLayout({
        label: name,
        entries: bindings.map((use, binding) => ({
          binding,
          visibility: GPUShaderStage.COMPUTE,
          buffer: { type: types[use] },
        })),
      });
      this.#layouts.set(name, layout);
    }
    return layout;
  }
}

/** `line 3: ` for a module that has an error there. */
async function placeOf(module: GPUShaderModule): Promise<string> {
  const { messages } = await module.getCompilationInfo();
  const error = messages.find(({ type, lineNum }) => type === "error" && lineNum > 0);
  return error ? `line ${error.lineNum}: ` : "";
}
