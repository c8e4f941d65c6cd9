/**
 * The worker pool: threads that replay programs on one arena. The caller's event loop stays free.
 * @module
 */
import * as comlink from "comlink";
import { errorMessage } from "../src/core/errors.ts";
import type { Kernel } from "../src/kernels/kernel.ts";
import type { Machine } from "../src/machines/machine.ts";
import type { Arena } from "../src/plan/arena.ts";
import { checkThreads, type Executor, KernelTable } from "../src/plan/executor.ts";
import type { Program } from "../src/plan/program.ts";
import { Command, Control, controlBytes, type WorkerControl } from "./protocol.ts";

/** How to make a pool. */
export interface PoolOptions {
  readonly machine: Machine;
  /** Worker threads, at least 1. */
  readonly threads: number;
  /** The memory that programs and their data lie in. */
  readonly arena: Arena;
}

/** An executor on worker threads. Make it with `WorkerPool.create` and end it with `dispose`. */
export class WorkerPool implements Executor {
  readonly machine: Machine;
  readonly workers: number;
  readonly arena: Arena;
  readonly #control: Int32Array;
  readonly #threads: { worker: Worker; control: comlink.Remote<WorkerControl> }[] = [];
  readonly #table = new KernelTable();
  /** Ends of the `serve` calls under way; empty when the workers listen for control calls. */
  #serving: Promise<boolean>[] = [];
  #queue: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;
  /** Whoever waits for the workers now; told when one fails. */
  readonly #waiting = new Set<(error: Error) => void>();

  private constructor(options: PoolOptions) {
    this.machine = options.machine;
    this.workers = checkThreads(options.threads);
    this.arena = options.arena;
    this.#control = new Int32Array(new SharedArrayBuffer(controlBytes(this.workers)));
  }

  /** Starts the workers. */
  static async create(options: PoolOptions): Promise<WorkerPool> {
    const pool = new WorkerPool(options);
    const control = pool.#control.buffer as SharedArrayBuffer;
    for (let index = 0; index < pool.workers; index++) {
      const worker = new Worker(new URL("./worker.ts", import.meta.url), {
        type: "module",
        name: `lacuna-${index}`,
      });
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        pool.#fail(`worker ${index} died: ${event.message}`);
      });
      pool.#threads.push({ worker, control: comlink.wrap<WorkerControl>(worker) });
    }
    try {
      await pool.#orFailure(
        Promise.all(
          pool.#threads.map((thread, index) =>
            thread.control.setUp({ index, workers: pool.workers, memory: pool.arena.memory, control })
          ),
        ),
      );
    } catch (error) {
      await pool.dispose();
      throw error;
    }
    return pool;
  }

  /** Makes kernels callable in every worker. */
  link(kernels: readonly Kernel[]): Promise<ReadonlyMap<string, number>> {
    return this.#enqueue(async () => {
      const fresh = this.#table.admit(kernels);
      if (fresh.length > 0) {
        const image = this.machine.assemble(fresh);
        await this.#recall();
        await this.#orFailure(Promise.all(this.#threads.map((thread) => thread.control.link(image))));
      }
      return this.#table.numbers;
    });
  }

  /** Runs a program on every worker. Calls queue up: one program runs at a time. */
  run(program: Program): Promise<void> {
    return this.#enqueue(async () => {
      this.#serve();
      const control = this.#control;
      const before = Atomics.load(control, Control.finished);
      program.entries.forEach((entry, index) => Atomics.store(control, Control.entries + index, entry));
      this.#command(Command.run);
      while (Atomics.load(control, Control.finished) === before) {
        const change = Atomics.waitAsync(control, Control.finished, before);
        if (change.async) await this.#orFailure(change.value);
      }
    });
  }

  /** Stops the workers. A run under way is finished first; later calls fail. */
  async dispose(): Promise<void> {
    await this.#queue.catch(() => {});
    if (!this.#failure) await this.#recall();
    this.#fail("the pool is disposed");
    for (const { worker, control } of this.#threads) {
      control[comlink.releaseProxy]();
      worker.terminate();
    }
    this.#threads.length = 0;
  }

  #enqueue<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(() => {
      if (this.#failure) throw this.#failure;
      return task();
    });
    this.#queue = result.catch(() => {});
    return result;
  }

  #command(command: number): void {
    Atomics.store(this.#control, Control.command, command);
    Atomics.add(this.#control, Control.epoch, 1);
    Atomics.notify(this.#control, Control.epoch);
  }

  /** Lets the workers block on the control block, if they do not already. */
  #serve(): void {
    if (this.#serving.length > 0) return;
    this.#serving = this.#threads.map(({ control }, index) => {
      const served = control.serve() as Promise<boolean>;
      served.catch((error) => this.#fail(`worker ${index} failed: ${errorMessage(error)}`));
      return served;
    });
  }

  /** Brings the workers back to their event loops. */
  async #recall(): Promise<void> {
    if (this.#serving.length === 0) return;
    this.#command(Command.recall);
    await this.#orFailure(Promise.all(this.#serving));
    this.#serving = [];
  }

  /** Waits for a promise or for the pool's failure, whichever is first. (`Promise.race` against one long-lived
   *  promise would keep every finished wait alive.) */
  #orFailure<T>(promise: Promise<T>): Promise<T> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      promise.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  /** Remembers the first failure, frees whoever waits at a barrier, and rejects the run under way. */
  #fail(reason: string): void {
    if (this.#failure) return;
    this.#failure = new Error(`Cannot run: ${reason}`);
    Atomics.compareExchange(this.#control, Control.aborted, 0, -1);
    Atomics.notify(this.#control, Control.generation);
    Atomics.notify(this.#control, Control.epoch);
    for (const reject of this.#waiting) reject(this.#failure);
  }
}
