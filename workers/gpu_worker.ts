/**
 * The thread that drives a GPU: waiting for one holds a thread up.
 * @module
 */
import * as comlink from "comlink";
import type { BufferRange } from "../src/kernels/shader.ts";
import type { GpuOptions } from "../src/webgpu/adapter.ts";
import { openDeviceExecutor } from "../src/webgpu/device_executor.ts";
import type { BufferCopy, GpuExecutor, ShaderProgram } from "../src/webgpu/executor.ts";

/** The calls of the thread: those of its `GpuExecutor`, each made when its message comes. */
export class GpuWorker {
  #executor!: GpuExecutor;

  /** Opens a GPU, before all other calls; tells what it is. */
  async open(options: GpuOptions): Promise<Pick<GpuExecutor, "adapter" | "target">> {
    const { adapter, target } = this.#executor = await openDeviceExecutor(options);
    return { adapter, target };
  }

  /** See `GpuExecutor.createBuffers`. */
  createBuffers(byteLengths: readonly number[]): Promise<number[]> {
    return this.#executor.createBuffers(byteLengths);
  }

  /** See `GpuExecutor.destroyBuffers`. */
  destroyBuffers(buffers: readonly number[]): void {
    this.#executor.destroyBuffers(buffers);
  }

  /** See `GpuExecutor.load`. Shaders done and their total are stored in `progress`. */
  load(program: ShaderProgram, progress: Int32Array): Promise<number> {
    return this.#executor.load(program, (done, total) => {
      Atomics.store(progress, 0, done);
      Atomics.store(progress, 1, total);
    });
  }

  /** See `GpuExecutor.unload`. */
  unload(program: number): void {
    this.#executor.unload(program);
  }

  /** See `GpuExecutor.write`. */
  write(buffer: number, byteOffset: number, data: Uint8Array): void {
    this.#executor.write(buffer, byteOffset, data);
  }

  /** See `GpuExecutor.submit`. */
  submit(program: number, copies?: readonly BufferCopy[]): Promise<void> {
    return this.#executor.submit(program, copies);
  }

  /** See `GpuExecutor.read`. */
  async read(ranges: readonly BufferRange[]): Promise<ArrayBuffer[]> {
    const contents = await this.#executor.read(ranges);
    return comlink.transfer(contents, contents);
  }

  /** See `GpuExecutor.lost`. */
  lost(): Promise<string> {
    return this.#executor.lost;
  }

  /** See `GpuExecutor.dispose`. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }
}

comlink.expose(new GpuWorker());
