/**
 * A program made ready: bind groups and uniform blocks are made once, replaying encodes nothing but dispatches.
 * @module
 */
import type { ShaderCall } from "../kernels/shader.ts";
import type { ShaderProgram } from "./executor.ts";
import type { Pipeline } from "./pipelines.ts";

/** Uniform blocks begin at multiples of this: the strictest alignment that WebGPU allows a device to ask for. */
const uniformGrain = 256;

interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: ShaderCall["workgroups"];
}

/** A program on a device. */
export class Recording {
  readonly name: string;
  readonly #dispatches: readonly Dispatch[];
  readonly #uniforms: GPUBuffer | undefined;

  /** @throws Error where `bufferOf` does. Other faults come to the error scopes of the device. */
  constructor(
    device: GPUDevice,
    { name, calls }: ShaderProgram,
    pipelines: ReadonlyMap<string, Pipeline>,
    bufferOf: (buffer: number) => GPUBuffer,
  ) {
    this.name = name;
    const blocks = new UniformBlocks();
    const offsets = calls.map(({ uniforms }) => uniforms && blocks.place(uniforms));
    const uniforms = this.#uniforms = blocks.upload(device, name);
    this.#dispatches = calls.map(
      ({ shader: { key, bindings }, ranges, workgroups, uniforms: words }, index) => {
        const { pipeline, layout } = pipelines.get(key)!;
        let next = 0;
        const entries = bindings.map((use, binding): GPUBindGroupEntry => {
          if (use === "uniform") {
            const size = blockBytes(words!);
            return { binding, resource: { buffer: uniforms!, offset: offsets[index]!, size } };
          }
          const { buffer, byteOffset, byteLength } = ranges[next++];
          return { binding, resource: { buffer: bufferOf(buffer), offset: byteOffset, size: byteLength } };
        });
        return { pipeline, group: device.createBindGroup({ label: key, layout, entries }), workgroups };
      },
    );
  }

  /** Encodes the calls: one pass, in which each call sees what those before it wrote. */
  encode(encoder: GPUCommandEncoder): void {
    if (this.#dispatches.length === 0) return;
    const pass = encoder.beginComputePass({ label: this.name });
    let current: GPUComputePipeline | undefined;
    for (const { pipeline, group, workgroups } of this.#dispatches) {
      if (pipeline !== current) pass.setPipeline(current = pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...workgroups);
    }
    pass.end();
  }

  /** Frees what the program has for itself. */
  destroy(): void {
    this.#uniforms?.destroy();
  }
}

/** WGSL's size of a block of words: rounded up to its alignment. */
function blockBytes(words: readonly number[]): number {
  return Math.ceil(words.length / 4) * 16;
}

/** Lays blocks one behind the other; equal ones lie in one place. */
class UniformBlocks {
  readonly #offsets = new Map<string, number>();
  readonly #blocks: { readonly offset: number; readonly words: readonly number[] }[] = [];
  #end = 0;

  /** The offset of a block. */
  place(words: readonly number[]): number {
    const key = words.join();
    const known = this.#offsets.get(key);
    if (known !== undefined) return known;
    const offset = this.#end;
    this.#offsets.set(key, offset);
    this.#blocks.push({ offset, words });
    this.#end += Math.ceil(blockBytes(words) / uniformGrain) * uniformGrain;
    return offset;
  }

  /** A buffer with all of them; none for none. */
  upload(device: GPUDevice, name: string): GPUBuffer | undefined {
    if (this.#end === 0) return undefined;
    const bytes = new Uint32Array(this.#end / 4);
    for (const { offset, words } of this.#blocks) bytes.set(words, offset / 4);
    const buffer = device.createBuffer({
      label: `uniforms of ${name}`,
      size: this.#end,
      // Storage for software: see `pipelines.ts`.
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  }
}
