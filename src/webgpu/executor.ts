/**
 * What runs shader programs: a device in this thread (`device_executor.ts`), or one that a worker drives.
 *
 * Calls are carried out in the order they are made, whether or not one waits for them. Nothing waits for the GPU but `read`, and
 * `submit` when much is waiting there already.
 * @module
 */
import type { BufferRange, ShaderCall, ShaderTarget } from "../kernels/shader.ts";
import type { AdapterDescription, GpuOptions } from "./adapter.ts";

/** Calls that are recorded once and replayed. Plain data; ranges name buffers of the executor. */
export interface ShaderProgram {
  /** For messages, such as `train, 4096 columns`. */
  readonly name: string;
  readonly calls: readonly ShaderCall[];
}

/** A copy on the device. The ranges are equally long, and of different buffers. */
export interface BufferCopy {
  readonly from: BufferRange;
  readonly to: BufferRange;
}

/**
 * Owns a GPU and what lies on it. After the device is lost, every call rejects with the reason; so it does after a call without a
 * promise that did something wrong, such as writing past the end of a buffer. Errors name the program.
 */
export interface GpuExecutor {
  readonly adapter: AdapterDescription;
  readonly target: ShaderTarget;
  /** Makes buffers of zeros; gives their numbers. @throws UnsupportedError when they do not fit: it tells the bytes. */
  createBuffers(byteLengths: readonly number[]): Promise<number[]>;
  /** Frees buffers when what was submitted before has run. */
  destroyBuffers(buffers: readonly number[]): void;
  /** Compiles what is new, in parallel, telling how far it is; gives the program's number. */
  load(program: ShaderProgram, progress?: (done: number, total: number) => void): Promise<number>;
  /** Forgets a program. */
  unload(program: number): void;
  /** Writes after what was submitted before and before what is submitted later; `data` may be changed afterwards. */
  write(buffer: number, byteOffset: number, data: ArrayBufferView): void;
  /** Runs a program, then copies. Resolves when it is accepted: soon, unless much is waiting on the GPU already. */
  submit(program: number, copies?: readonly BufferCopy[]): Promise<void>;
  /** Reads what the ranges hold when everything before has run. */
  read(ranges: readonly BufferRange[]): Promise<ArrayBuffer[]>;
  /** Resolves with the reason when the device is lost; never when it is disposed of. */
  readonly lost: Promise<string>;
  /** Frees all. Calling it again does nothing. */
  dispose(): Promise<void>;
}

/** Makes an executor; `src` never imports the worker that drives it. @throws UnsupportedError where there is no GPU. */
export type GpuExecutorFactory = (options: GpuOptions) => Promise<GpuExecutor>;
