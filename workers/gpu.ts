/**
 * A `GpuExecutor` on a thread of its own, so that the caller's event loop stays free. A call is a message; they arrive in order.
 * @module
 */
import * as comlink from "comlink";
import type { BufferRange, ShaderTarget } from "../src/kernels/shader.ts";
import type { AdapterDescription, GpuOptions } from "../src/webgpu/adapter.ts";
import type { BufferCopy, GpuExecutor, GpuExecutorFactory, ShaderProgram } from "../src/webgpu/executor.ts";
import type { GpuWorker } from "./gpu_worker.ts";
import { ThreadCalls } from "./thread_calls.ts";

/** How often progress is told, in ms: often enough for the eye. */
const progressMs = 100;

/** Opens a GPU in a thread of its own. See `GpuExecutorFactory`. */
export const createGpuExecutor: GpuExecutorFactory = (options) => WorkerGpuExecutor.create(options);

/** See `GpuExecutor`. When its thread dies, the calls under way and all later ones reject. */
export class WorkerGpuExecutor implements GpuExecutor {
  readonly lost: Promise<string>;
  readonly #worker: Worker;
  readonly #remote: comlink.Remote<GpuWorker>;
  #description!: Pick<GpuExecutor, "adapter" | "target">;
  readonly #calls: ThreadCalls<GpuWorker>;
  readonly #lose: (reason: string) => void;
  #disposal: Promise<void> | undefined;

  private constructor() {
    this.#worker = new Worker(new URL("./gpu_worker.ts", import.meta.url), {
      type: "module",
      name: "lacuna-gpu",
    });
    const { promise, resolve } = Promise.withResolvers<string>();
    this.lost = promise;
    this.#lose = resolve;
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#fail(`its thread died: ${event.message}`);
    });
    this.#remote = comlink.wrap<GpuWorker>(this.#worker);
    this.#calls = new ThreadCalls(this.#remote);
  }

  /** Starts the thread and opens a GPU there. @throws UnsupportedError where there is none. */
  static async create(options: GpuOptions): Promise<WorkerGpuExecutor> {
    const executor = new WorkerGpuExecutor();
    try {
      executor.#description = await executor.#calls.call((remote) => remote.open(options));
    } catch (error) {
      executor.#stop();
      throw error;
    }
    executor.#remote.lost().then(executor.#lose, () => {});
    return executor;
  }

  get adapter(): AdapterDescription {
    return this.#description.adapter;
  }

  get target(): ShaderTarget {
    return this.#description.target;
  }

  /** See `GpuExecutor.createBuffers`. */
  createBuffers(byteLengths: readonly number[]): Promise<number[]> {
    return this.#calls.call((remote) => remote.createBuffers(byteLengths));
  }

  /** See `GpuExecutor.destroyBuffers`. */
  destroyBuffers(buffers: readonly number[]): void {
    this.#tell((remote) => remote.destroyBuffers(buffers));
  }

  /** See `GpuExecutor.load`. */
  async load(program: ShaderProgram, progress?: (done: number, total: number) => void): Promise<number> {
    const counts = new Int32Array(new SharedArrayBuffer(8));
    const report = () => {
      const total = Atomics.load(counts, 1);
      if (total > 0) progress?.(Atomics.load(counts, 0), total);
    };
    const timer = setInterval(report, progressMs);
    try {
      const number = await this.#calls.call((remote) => remote.load(program, counts));
      report();
      return number;
    } finally {
      clearInterval(timer);
    }
  }

  /** See `GpuExecutor.unload`. */
  unload(program: number): void {
    this.#tell((remote) => remote.unload(program));
  }

  /** See `GpuExecutor.write`. */
  write(buffer: number, byteOffset: number, data: ArrayBufferView): void {
    const copy = new Uint8Array(data.byteLength);
    copy.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.#tell((remote) => remote.write(buffer, byteOffset, comlink.transfer(copy, [copy.buffer])));
  }

  /** See `GpuExecutor.submit`. */
  submit(program: number, copies?: readonly BufferCopy[]): Promise<void> {
    return this.#calls.call((remote) => remote.submit(program, copies));
  }

  /** See `GpuExecutor.read`. */
  read(ranges: readonly BufferRange[]): Promise<ArrayBuffer[]> {
    return this.#calls.call((remote) => remote.read(ranges));
  }

  /** See `GpuExecutor.dispose`. */
  dispose(): Promise<void> {
    return this.#disposal ??= this.#end();
  }

  async #end(): Promise<void> {
    const ended = this.#calls.failure ? undefined : this.#calls.call((remote) => remote.dispose());
    this.#calls.refuse("Cannot use the GPU: its executor is disposed of");
    await ended?.catch(() => {}); // A dead thread has told its callers.
    this.#stop();
  }

  #stop(): void {
    this.#remote[comlink.releaseProxy]();
    this.#worker.terminate();
  }

  /** Makes a call without an answer: what it does wrong, later calls reject with. */
  #tell(say: (remote: comlink.Remote<GpuWorker>) => Promise<void>): void {
    if (!this.#calls.failure) say(this.#remote).catch(() => {});
  }

  #fail(reason: string): void {
    if (this.#calls.failure) return;
    this.#calls.fail(`Cannot use the GPU: ${reason}`);
    this.#lose(reason);
  }
}
