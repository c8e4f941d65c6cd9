/**
 * Where the time of a program goes on the GPU, by operation: an executor that marks the time between the shaders of a program.
 *
 * It waits for every program, so what it tells is the work of the GPU and of the thread that feeds it, not how well they overlap.
 * @module
 */
import { UnsupportedError } from "../../src/core/errors.ts";
import type { BufferRange, ShaderCall, ShaderTarget } from "../../src/kernels/shader.ts";
import type { AdapterDescription, OpenGpu } from "../../src/webgpu/adapter.ts";
import { scoped } from "../../src/webgpu/device_errors.ts";
import type { BufferCopy, GpuExecutor, ShaderProgram } from "../../src/webgpu/executor.ts";
import { Pipelines } from "../../src/webgpu/pipelines.ts";
import { Recording } from "../../src/webgpu/recording.ts";
import type { OperationTime } from "../operation_times.ts";
import { TimestampMarks } from "./timer.ts";

/** Marks that a query set may have, by WebGPU. */
const mostMarks = 4096;

/** One run of a program. */
export interface ProgramTime {
  /** Of this thread: writing, encoding, submitting. */
  readonly encodeMs: number;
  /** Of the GPU, from the first shader to the last. */
  readonly gpuMs: number;
}

/** Calls of one operation that follow one another. */
interface Part {
  readonly operation: string;
  readonly calls: number;
  readonly recording: Recording;
}

interface TimedProgram {
  readonly whole: Recording;
  readonly parts: readonly Part[];
}

/**
 * The operation of a shader: its key up to types and constants. The products of a linear layer, of its input's gradient and of
 * its weight's differ in how their operands lie.
 */
export function operationOfShader(key: string): string {
  const order = key.match(/^matmul_fp(?:16|32)_.*?_(nt|nn|tn)_/)?.[1];
  if (order) return { nt: "matmul", nn: "matmul_input_gradient", tn: "matmul_weight_gradient" }[order]!;
  return key.replace(/_(?=f32|f16|vec[24]|tile\d|chunks\d|epsilon|\d).*$/, "");
}

/** See `GpuExecutor`. It owns the device. */
export class TimingGpuExecutor implements GpuExecutor {
  readonly adapter: AdapterDescription;
  readonly target: ShaderTarget;
  readonly lost: Promise<string>;
  /** Whether operations are told apart, with a pause of some microseconds between them. */
  byOperation = false;
  readonly #device: GPUDevice;
  readonly #pipelines: Pipelines;
  readonly #marks: TimestampMarks;
  readonly #buffers: GPUBuffer[] = [];
  readonly #programs: (TimedProgram | undefined)[] = [];
  #writeMs = 0;
  #runs: ProgramTime[] = [];
  #times = new Map<string, { calls: number; ms: number }>();

  /** @throws UnsupportedError for a device without timestamps. */
  constructor({ adapter, device, target }: OpenGpu) {
    if (!device.features.has("timestamp-query")) {
      throw new UnsupportedError(`Cannot time shaders on ${adapter.name}: it has no timestamp-query`);
    }
    this.adapter = adapter;
    this.target = target;
    this.#device = device;
    this.#pipelines = new Pipelines(device, target);
    this.#marks = new TimestampMarks(device, mostMarks);
    this.lost = new Promise((resolve) => {
      device.lost.then(({ reason, message }) => reason !== "destroyed" && resolve(message));
    });
  }

  /** Programs that ran since the last reset. */
  get runs(): readonly ProgramTime[] {
    return this.#runs;
  }

  /** Times of operations since the last reset, the longest first. Only of runs `byOperation`. */
  times(): OperationTime[] {
    return Array.from(this.#times, ([operation, time]) => ({ operation, ...time }))
      .sort((a, b) => b.ms - a.ms);
  }

  /** Forgets the times so far. */
  reset(): void {
    this.#runs = [];
    this.#times = new Map();
    this.#writeMs = 0;
  }

  /** See `GpuExecutor.createBuffers`. */
  createBuffers(byteLengths: readonly number[]): Promise<number[]> {
    return this.#scoped(() =>
      byteLengths.map((bytes) =>
        this.#buffers.push(this.#device.createBuffer({
          size: Math.max(4, Math.ceil(bytes / 4) * 4),
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        })) - 1
      )
    );
  }

  /** See `GpuExecutor.destroyBuffers`. */
  destroyBuffers(buffers: readonly number[]): void {
    for (const number of buffers) this.#buffers[number].destroy();
  }

  /** See `GpuExecutor.load`. */
  async load({ name, calls }: ShaderProgram): Promise<number> {
    const pipelines = await this.#pipelines.compile(calls.map(({ shader }) => shader));
    const record = (some: readonly ShaderCall[]) =>
      new Recording(this.#device, { name, calls: some }, pipelines, (number) => this.#buffers[number]);
    return await this.#scoped(() => {
      const parts = partsOf(calls).map(({ operation, calls: some }): Part => ({
        operation,
        calls: some.length,
        recording: record(some),
      }));
      if (parts.length >= mostMarks) {
        throw new RangeError(`${name} has ${parts.length} parts: too many to mark`);
      }
      return this.#programs.push({ whole: record(calls), parts }) - 1;
    });
  }

  /** See `GpuExecutor.unload`. */
  unload(program: number): void {
    const timed = this.#programs[program];
    timed?.whole.destroy();
    timed?.parts.forEach(({ recording }) => recording.destroy());
    this.#programs[program] = undefined;
  }

  /** See `GpuExecutor.write`. */
  write(buffer: number, byteOffset: number, data: ArrayBufferView): void {
    const begin = performance.now();
    // A copy, as the message to a thread is one: Dawn ends the process when it is given shared memory.
    const bytes = new Uint8Array(data.byteLength);
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.#device.queue.writeBuffer(this.#buffers[buffer], byteOffset, bytes);
    this.#writeMs += performance.now() - begin;
  }

  /** See `GpuExecutor.submit`; waits until the program has run. */
  async submit(program: number, copies: readonly BufferCopy[] = []): Promise<void> {
    const { whole, parts } = this.#programs[program]!;
    const pieces = this.byOperation ? parts.map(({ recording }) => recording) : [whole];
    const begin = performance.now();
    await this.#scoped(() => {
      const encoder = this.#device.createCommandEncoder();
      this.#marks.mark(encoder, 0);
      pieces.forEach((recording, index) => {
        recording.encode(encoder);
        this.#marks.mark(encoder, index + 1);
      });
      for (const { from, to } of copies) this.#copy(encoder, from, this.#buffers[to.buffer], to.byteOffset);
      this.#device.queue.submit([encoder.finish()]);
    });
    const encodeMs = this.#writeMs + performance.now() - begin;
    this.#writeMs = 0;
    const marks = await this.#marks.read(pieces.length + 1);
    this.#runs.push({ encodeMs, gpuMs: marks.at(-1)! });
    if (!this.byOperation) return;
    parts.forEach(({ operation, calls }, index) => {
      const time = this.#times.getOrInsertComputed(operation, () => ({ calls: 0, ms: 0 }));
      time.calls += calls;
      time.ms += marks[index + 1] - marks[index];
    });
  }

  /** See `GpuExecutor.read`. */
  async read(ranges: readonly BufferRange[]): Promise<ArrayBuffer[]> {
    const results: ArrayBuffer[] = [];
    for (const range of ranges) {
      const staging = this.#device.createBuffer({
        size: range.byteLength,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      });
      await this.#scoped(() => {
        const encoder = this.#device.createCommandEncoder();
        this.#copy(encoder, range, staging, 0);
        this.#device.queue.submit([encoder.finish()]);
      });
      await staging.mapAsync(GPUMapMode.READ);
      results.push(staging.getMappedRange().slice(0));
      staging.destroy();
    }
    return results;
  }

  /** See `GpuExecutor.dispose`. */
  dispose(): Promise<void> {
    this.#device.destroy();
    return Promise.resolve();
  }

  #copy(encoder: GPUCommandEncoder, from: BufferRange, target: GPUBuffer, targetOffset: number): void {
    const { buffer, byteOffset, byteLength } = from;
    encoder.copyBufferToBuffer(this.#buffers[buffer], byteOffset, target, targetOffset, byteLength);
  }

  async #scoped<T>(action: () => T): Promise<T> {
    const { value, problem } = scoped(this.#device, action);
    const found = await problem;
    if (found !== undefined) throw new Error(found);
    return value;
  }
}

/** Calls in their order, those of one operation that follow one another together. */
function partsOf(calls: readonly ShaderCall[]): { operation: string; calls: ShaderCall[] }[] {
  const parts: { operation: string; calls: ShaderCall[] }[] = [];
  for (const call of calls) {
    const operation = operationOfShader(call.shader.key);
    const last = parts.at(-1);
    if (last?.operation === operation) last.calls.push(call);
    else parts.push({ operation, calls: [call] });
  }
  return parts;
}
