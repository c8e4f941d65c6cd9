/**
 * Runs shader programs on a device of this thread.
 *
 * Deno's `mapAsync` and `onSubmittedWorkDone` take 10 ms at least and hold the thread up while the GPU works. So nothing waits
 * but reads, and a submit that finds many before it unfinished; and whoever wants its event loop free gives the device a thread of
 * its own (`workers/gpu.ts`).
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import type { BufferRange, ShaderTarget } from "../kernels/shader.ts";
import { type AdapterDescription, chooseAdapter, type OpenGpu, openGpu } from "./adapter.ts";
import { oneLine, scoped } from "./device_errors.ts";
import type { BufferCopy, GpuExecutor, GpuExecutorFactory, ShaderProgram } from "./executor.ts";
import { Pipelines } from "./pipelines.ts";
import { Recording } from "./recording.ts";
import { StagingBuffers } from "./staging.ts";

/** How a `DeviceExecutor` runs. */
export interface DeviceExecutorOptions {
  /**
   * Programs that may be submitted and unfinished. The last of them waits until all are done: WebGPU in Deno has no cheaper wait.
   * Default 8: what the wait costs is spread over 8 steps.
   */
  readonly unfinishedLimit?: number;
}

/** Opens a GPU for this thread. See `GpuExecutorFactory`. */
export const openDeviceExecutor: GpuExecutorFactory = async (options) => {
  const choice = await chooseAdapter(options);
  if ("reason" in choice) throw new UnsupportedError(`Cannot use a GPU: ${choice.reason}`);
  return new DeviceExecutor(await openGpu(choice.adapter));
};

/** See `GpuExecutor`. It owns the device that it is given. */
export class DeviceExecutor implements GpuExecutor {
  readonly adapter: AdapterDescription;
  readonly target: ShaderTarget;
  readonly lost: Promise<string>;
  readonly #device: GPUDevice;
  readonly #unfinishedLimit: number;
  readonly #pipelines: Pipelines;
  readonly #buffers = new Map<number, GPUBuffer>();
  readonly #programs = new Map<number, Recording>();
  readonly #staging: StagingBuffers;
  /** Numbers are never given twice: a call with a stale one is refused, not misled. */
  #nextNumber = 0;
  #submitted = 0;
  #finished = 0;
  #draining: Promise<void> | undefined;
  readonly #pending = new Set<Promise<unknown>>();
  #failure: Error | undefined;
  #disposal: Promise<void> | undefined;

  constructor({ adapter, device, target }: OpenGpu, { unfinishedLimit = 8 }: DeviceExecutorOptions = {}) {
    this.adapter = adapter;
    this.target = target;
    this.#device = device;
    this.#unfinishedLimit = unfinishedLimit;
    this.#pipelines = new Pipelines(device, target);
    this.#staging = new StagingBuffers(device);
    this.lost = new Promise((resolve) => {
      device.lost.then(({ message }) => {
        if (this.#disposal) return;
        const reason = `the GPU ${adapter.name} was lost: ${oneLine(message) || "no reason given"}`;
        this.#fail(reason);
        resolve(reason);
      });
    });
    device.addEventListener("uncapturederror", this.#note);
  }

  readonly #note = (event: Event): void => {
    event.preventDefault();
    this.#fail(oneLine((event as GPUUncapturedErrorEvent).error.message));
  };

  /** See `GpuExecutor.createBuffers`. */
  createBuffers(byteLengths: readonly number[]): Promise<number[]> {
    return this.#call(async () => {
      const { maxBufferSize } = this.#device.limits;
      const tooLarge = byteLengths.find((bytes) => bytes > maxBufferSize);
      if (tooLarge !== undefined) {
        throw new UnsupportedError(
          `Cannot make a buffer of ${tooLarge} bytes: ${this.adapter.name} allows ${maxBufferSize}`,
        );
      }
      const { value: numbers, problem } = scoped(
        this.#device,
        () => byteLengths.map((bytes) => this.#createBuffer(bytes)),
      );
      const found = await problem;
      if (found === undefined) return numbers;
      this.destroyBuffers(numbers);
      const total = byteLengths.reduce((sum, bytes) => sum + bytes, 0);
      throw new UnsupportedError(
        `Cannot make buffers of ${total} bytes in all on ${this.adapter.name}: ${found}`,
      );
    });
  }

  #createBuffer(bytes: number): number {
    const number = this.#nextNumber++;
    const buffer = this.#device.createBuffer({
      label: `buffer ${number}`,
      size: Math.max(4, Math.ceil(bytes / 4) * 4),
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    this.#buffers.set(number, buffer);
    return number;
  }

  /** See `GpuExecutor.destroyBuffers`. */
  destroyBuffers(buffers: readonly number[]): void {
    for (const number of buffers) {
      this.#buffers.get(number)?.destroy();
      this.#buffers.delete(number);
    }
  }

  /** See `GpuExecutor.load`. */
  load(program: ShaderProgram, progress?: (done: number, total: number) => void): Promise<number> {
    return this.#call(async () => {
      const pipelines = await this.#pipelines.compile(program.calls.map(({ shader }) => shader), progress);
      const { value: recording, problem } = scoped(
        this.#device,
        () => new Recording(this.#device, program, pipelines, (buffer) => this.#bufferOf(buffer)),
      );
      const found = await problem;
      if (found !== undefined) {
        recording.destroy();
        throw new Error(found);
      }
      const number = this.#nextNumber++;
      this.#programs.set(number, recording);
      return number;
    }, `Cannot load ${program.name}`);
  }

  /** See `GpuExecutor.unload`. */
  unload(program: number): void {
    this.#programs.get(program)?.destroy();
    this.#programs.delete(program);
  }

  /** See `GpuExecutor.write`. */
  write(buffer: number, byteOffset: number, data: ArrayBufferView): void {
    if (this.#failure || this.#disposal) return;
    const size = this.#buffers.get(buffer)?.size;
    const isWhole = byteOffset % 4 === 0 && data.byteLength % 4 === 0;
    if (size === undefined || !isWhole || byteOffset < 0 || byteOffset + data.byteLength > size) {
      const found = size === undefined ? "there is no such buffer" : `it has ${size}, in words of 4`;
      return this.#fail(
        `cannot write bytes ${byteOffset} to ${byteOffset + data.byteLength} of buffer ${buffer}: ${found}`,
      );
    }
    const view = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    // Dawn ends the process when it is given shared memory.
    const bytes = data.buffer instanceof SharedArrayBuffer ? view.slice() : view as Uint8Array<ArrayBuffer>;
    this.#device.queue.writeBuffer(this.#buffers.get(buffer)!, byteOffset, bytes);
  }

  /** See `GpuExecutor.submit`. */
  submit(program: number, copies: readonly BufferCopy[] = []): Promise<void> {
    const recording = this.#programs.get(program);
    return this.#call(async () => {
      if (!recording) throw new RangeError("it is not loaded");
      await this.#encode(recording.name, (encoder) => {
        recording.encode(encoder);
        for (const { from, to } of copies) {
          this.#copy(encoder, from, this.#bufferOf(to.buffer), to.byteOffset);
        }
      });
      while (this.#submitted - this.#finished >= this.#unfinishedLimit && !this.#failure) {
        await (this.#draining ??= this.#drain());
      }
    }, `Cannot run ${recording?.name ?? `program ${program}`}`);
  }

  /** See `GpuExecutor.read`. */
  read(ranges: readonly BufferRange[]): Promise<ArrayBuffer[]> {
    return this.#call(async () => {
      let total = 0;
      const begins = ranges.map(({ byteLength }) => (total += byteLength) - byteLength);
      const mappedBytes = Math.max(4, total);
      const staging = this.#staging.take(mappedBytes);
      const encoded = this.#encode("read", (encoder) => {
        ranges.forEach((range, index) => this.#copy(encoder, range, staging, begins[index]));
      });
      const submitted = this.#submitted;
      try {
        await encoded;
        await staging.mapAsync(GPUMapMode.READ, 0, mappedBytes);
        this.#finished = Math.max(this.#finished, submitted);
        const mapped = staging.getMappedRange(0, mappedBytes);
        const result = ranges.map(({ byteLength }, index) =>
          mapped.slice(begins[index], begins[index] + byteLength)
        );
        staging.unmap();
        return result;
      } finally {
        this.#staging.giveBack(staging);
      }
    }, "Cannot read from the GPU");
  }

  /** See `GpuExecutor.dispose`. Calls made before are finished first. */
  dispose(): Promise<void> {
    return this.#disposal ??= this.#end();
  }

  async #end(): Promise<void> {
    await Promise.allSettled(this.#pending);
    this.#device.removeEventListener("uncapturederror", this.#note);
    this.#device.destroy();
    this.#buffers.clear();
    this.#programs.clear();
  }

  /** Makes a call at once; it rejects with what failed before, with the loss of the device, or with what it finds itself. */
  async #call<T>(action: () => Promise<T>, purpose?: string): Promise<T> {
    if (this.#disposal) throw new Error("Cannot use the GPU: its executor is disposed of");
    if (this.#failure) throw this.#failure;
    const call = action();
    this.#pending.add(call);
    try {
      const result = await call;
      if (this.#failure) throw this.#failure;
      return result;
    } catch (error) {
      // A lost device makes calls fail in many ways, and says so a moment later.
      await new Promise((resolve) => setTimeout(resolve));
      if (this.#failure) throw this.#failure;
      if (purpose === undefined || !(error instanceof Error)) throw error;
      error.message = `${purpose}: ${error.message}`;
      throw error;
    } finally {
      this.#pending.delete(call);
    }
  }

  /** Encodes and submits at once; rejects with what WebGPU finds wrong. */
  async #encode(label: string, record: (encoder: GPUCommandEncoder) => void): Promise<void> {
    const { problem } = scoped(this.#device, () => {
      const encoder = this.#device.createCommandEncoder({ label });
      record(encoder);
      this.#device.queue.submit([encoder.finish()]);
    });
    this.#submitted++;
    const found = await problem;
    if (found !== undefined) throw new Error(found);
  }

  #copy(encoder: GPUCommandEncoder, from: BufferRange, target: GPUBuffer, targetOffset: number): void {
    const { buffer, byteOffset, byteLength } = from;
    encoder.copyBufferToBuffer(this.#bufferOf(buffer), byteOffset, target, targetOffset, byteLength);
  }

  async #drain(): Promise<void> {
    const submitted = this.#submitted;
    try {
      await this.#device.queue.onSubmittedWorkDone();
      this.#finished = Math.max(this.#finished, submitted);
    } finally {
      this.#draining = undefined;
    }
  }

  #bufferOf(number: number): GPUBuffer {
    const buffer = this.#buffers.get(number);
    if (!buffer) throw new RangeError(`there is no buffer ${number}`);
    return buffer;
  }

  #fail(reason: string): void {
    this.#failure ??= new Error(`Cannot use the GPU: ${reason}`);
  }
}
