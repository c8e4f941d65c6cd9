/**
 * What the pool and its workers say to each other.
 *
 * Two channels. Control calls (link kernels, perform a task, begin to serve) go through comlink and may take a message each.
 * Running a program goes through the words below in shared memory, with `Atomics` only: no message per step.
 * A worker that serves blocks its thread, so the pool first recalls it (`Command.recall`) when it has a control call.
 * @module
 */
import type { CodeImage } from "../src/machines/machine.ts";

/** Words in a cache line: what one thread writes often and another reads often lies in different ones. */
const lineWords = 16;

/** Words of the shared control block (i32). */
export const Control = {
  /** The command given last. */
  command: 0,
  /** Workers that take part in the current run: the first so many. */
  team: 1,
  /** Counts finished runs; the pool waits on it. */
  finished: 2,
  /** Not 0 once a worker failed: every barrier is left at once. */
  aborted: 3,
  /** Workers that reached the current barrier. */
  arrived: lineWords,
  /** Counts passed barriers; workers wait on it. */
  generation: 2 * lineWords,
  /** Workers asleep, or about to be: only then is a notification worth its 80 ns. */
  sleepers: 3 * lineWords,
} as const;

/** The word a worker increases as a sign of life: at every barrier, after every task, and now and then while it
 * waits. */
export function pulseIndex(worker: number): number {
  return (4 + worker) * lineWords;
}

/** The word with the address of a worker's part of the program. */
export function entryIndex(worker: number): number {
  return pulseIndex(worker) + 1;
}

/** The word that counts a worker's commands; it waits on it. One that a run does not need is not woken. */
export function epochIndex(worker: number): number {
  return pulseIndex(worker) + 2;
}

/** Values of `Control.command`. */
export const Command = { run: 1, recall: 2 } as const;

/** Wakes whoever waits, at a barrier or for a command. */
export function wakeAll(control: Int32Array, workers: number): void {
  Atomics.notify(control, Control.generation);
  for (let worker = 0; worker < workers; worker++) Atomics.notify(control, epochIndex(worker));
}

/** Bytes of the control block for a number of workers. */
export function controlBytes(workers: number): number {
  return pulseIndex(workers) * 4;
}

/** What a worker needs to begin. */
export interface WorkerSetup {
  readonly index: number;
  readonly workers: number;
  readonly memory: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
  /** The core to stay on; absent: any. */
  readonly core?: number;
}

/** The control calls of a worker. */
export interface WorkerControl {
  /** Hands over the shared memories. True when the worker stays on the core asked for. */
  setUp(setup: WorkerSetup): boolean;
  /** Links an image; its kernels follow those linked before. */
  link(image: CodeImage): void;
  /** Runs the task of that name (`tasks.ts`) on one argument. */
  perform(task: string, argument: unknown): Promise<unknown>;
  /** Runs programs until recalled (true) or until a failure anywhere in the pool (false). Throws its own failure. */
  serve(): boolean;
}
