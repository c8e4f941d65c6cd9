/**
 * What the pool and its workers say to each other.
 *
 * Two channels. Control calls (link kernels, begin to serve) go through comlink and may take a message each.
 * Running a program goes through the words below in shared memory, with `Atomics` only: no message per step.
 * A worker that serves blocks its thread, so the pool first recalls it (`Command.recall`) when it has a control call.
 * @module
 */
import type { CodeImage } from "../src/machines/machine.ts";

/** Words of the shared control block (i32). */
export const Control = {
  /** Counts commands; workers wait on it. */
  epoch: 0,
  /** The command of the current epoch. */
  command: 1,
  /** Workers that reached the current barrier. */
  arrived: 2,
  /** Counts passed barriers; workers wait on it. */
  generation: 3,
  /** Counts finished runs; the pool waits on it. */
  finished: 4,
  /** Not 0 once a worker failed: every barrier is left at once. */
  aborted: 5,
  /** Entry addresses of the program, one per worker, start here. */
  entries: 16,
} as const;

/** Values of `Control.command`. */
export const Command = { run: 1, recall: 2 } as const;

/** Bytes of the control block for a number of workers. */
export function controlBytes(workers: number): number {
  return (Control.entries + workers) * 4;
}

/** What a worker needs to begin. */
export interface WorkerSetup {
  readonly index: number;
  readonly workers: number;
  readonly memory: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
}

/** The control calls of a worker. */
export interface WorkerControl {
  /** Hands over the shared memories. */
  setUp(setup: WorkerSetup): void;
  /** Links an image; its kernels follow those linked before. */
  link(image: CodeImage): void;
  /** Runs programs until recalled (true) or until a failure anywhere in the pool (false). Throws its own failure. */
  serve(): boolean;
}
