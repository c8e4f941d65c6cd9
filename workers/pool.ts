/**
 * The worker pool: threads that replay programs on one arena. The caller's event loop stays free.
 *
 * A worker that fails, dies or falls silent fails the pool: the run under way and all later calls reject with an error
 * that names it. Nothing waits for ever.
 * @module
 */
import * as comlink from "comlink";
import { errorMessage } from "../src/core/errors.ts";
import type { Kernel } from "../src/kernels/kernel.ts";
import type { Machine } from "../src/machines/machine.ts";
import type { Arena } from "../src/plan/arena.ts";
import {
  checkThreads,
  type Executor,
  type ExecutorFactory,
  KernelTable,
  type Task,
} from "../src/plan/executor.ts";
import type { Program } from "../src/plan/program.ts";
import { allowedCores } from "./pin.ts";
import { type SpareThreads, startThread } from "./threads.ts";
import {
  Command,
  Control,
  controlBytes,
  entryIndex,
  epochIndex,
  pulseIndex,
  wakeAll,
  type WorkerControl,
} from "./protocol.ts";

/** How to make a pool. */
export interface PoolOptions {
  readonly machine: Machine;
  /** Worker threads, at least 1. */
  readonly threads: number;
  /** The memory that programs and their data lie in. */
  readonly arena: Arena;
  /** The core each worker stays on, where the system allows it; absent: any. */
  readonly cores?: readonly number[];
  /** Called when the pool has ended. */
  readonly onEnd?: () => void;
  /** Threads that run already, to be taken before new ones are started. */
  readonly spare?: SpareThreads;
  /**
   * How long a worker that is waited for may give no sign of life, in ms: default one minute. It must exceed the
   * longest phase or task (a second, for the largest models on a slow core).
   */
  readonly silenceMs?: number;
}

interface Thread {
  readonly worker: Worker;
  readonly control: comlink.Remote<WorkerControl>;
}

/** Looks at the signs of life within `silenceMs`. */
const pulseChecks = 4;

/**
 * A factory of pools that share this process's cores. With `pin` (default: the environment variable `LACUNA_PIN` is
 * `1`) each worker stays on a core that no other worker of this factory has, as long as there are enough.
 */
export function poolFactory(
  { pin = pinIsWanted(), spare }: { readonly pin?: boolean; readonly spare?: SpareThreads } = {},
): ExecutorFactory {
  const cores = pin ? [...allowedCores()] : [];
  return (options) => {
    const lent = cores.splice(0, options.threads);
    return WorkerPool.create({ ...options, spare, cores: lent, onEnd: () => cores.unshift(...lent) });
  };
}

function pinIsWanted(): boolean {
  const isReadable = Deno.permissions.querySync({ name: "env", variable: "LACUNA_PIN" }).state === "granted";
  return isReadable && Deno.env.get("LACUNA_PIN") === "1";
}

/** An executor on worker threads. Make it with `WorkerPool.create` and end it with `dispose`. */
export class WorkerPool implements Executor {
  readonly machine: Machine;
  readonly workers: number;
  readonly arena: Arena;
  readonly #control: Int32Array;
  readonly #silenceMs: number;
  readonly #onEnd: (() => void) | undefined;
  readonly #threads: Thread[] = [];
  readonly #table = new KernelTable();
  #pinned = false;
  /** Ends of the `serve` calls under way; empty when the workers listen for control calls. */
  #serving: Promise<boolean>[] = [];
  #queue: Promise<unknown> = Promise.resolve();
  #disposal: Promise<void> | undefined;
  #failure: Error | undefined;
  /** Whoever waits for the workers now; told when one fails. */
  readonly #waiting = new Set<(error: Error) => void>();

  private constructor(options: PoolOptions) {
    this.machine = options.machine;
    this.workers = checkThreads(options.threads);
    this.arena = options.arena;
    this.#silenceMs = options.silenceMs ?? 60_000;
    this.#onEnd = options.onEnd;
    this.#control = new Int32Array(new SharedArrayBuffer(controlBytes(this.workers)));
  }

  /** Starts the workers. */
  static async create(options: PoolOptions): Promise<WorkerPool> {
    const pool = new WorkerPool(options);
    const control = pool.#control.buffer as SharedArrayBuffer;
    const { workers, arena: { memory } } = pool;
    for (let index = 0; index < workers; index++) {
      const worker = options.spare?.take() ?? startThread(index);
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        pool.#fail(`worker ${index} died: ${event.message}`);
      });
      pool.#threads.push({ worker, control: comlink.wrap<WorkerControl>(worker) });
    }
    try {
      const pinned = await pool.#ask((thread, index) =>
        thread.setUp({ index, workers, memory, control, core: options.cores?.[index] })
      );
      pool.#pinned = pinned.every((isPinned) => isPinned);
    } catch (error) {
      await pool.dispose();
      throw error;
    }
    return pool;
  }

  /** Whether each worker stays on a core of its own. */
  get pinned(): boolean {
    return this.#pinned;
  }

  /** Makes kernels callable in every worker. */
  link(kernels: readonly Kernel[]): Promise<ReadonlyMap<string, number>> {
    return this.#enqueue(async () => {
      const fresh = this.#table.unknown(kernels);
      if (fresh.length > 0) {
        const image = this.machine.assemble(fresh);
        await this.#recall();
        await this.#ask((thread) => thread.link(image));
        this.#table.admit(fresh);
      }
      return this.#table.numbers;
    });
  }

  /** Runs a program on the workers it was made for. Calls queue up: one program runs at a time. */
  run(program: Program): Promise<void> {
    return this.#enqueue(async () => {
      this.#serve();
      const control = this.#control;
      const before = Atomics.load(control, Control.finished);
      const team = program.entries.length;
      program.entries.forEach((entry, index) => Atomics.store(control, entryIndex(index), entry));
      Atomics.store(control, Control.team, team);
      this.#command(Command.run, team);
      while (Atomics.load(control, Control.finished) === before) {
        const change = Atomics.waitAsync(control, Control.finished, before);
        if (change.async) await this.#watch(change.value, () => this.#threads.keys());
      }
    });
  }

  /** Gives each worker the next argument as it gets free. A task that throws fails the pool. */
  perform<A, R>(task: Task<A, R>, tasks: readonly A[]): Promise<R[]> {
    return this.#enqueue(async () => {
      if (tasks.length === 0) return [];
      await this.#recall();
      const results: R[] = [];
      let next = 0;
      await this.#ask(async (thread) => {
        while (next < tasks.length) {
          const index = next++;
          results[index] = await thread.perform(task.name, tasks[index]) as R;
        }
      });
      return results;
    });
  }

  /** Stops the workers. Calls made before are finished first; later ones fail. Calling it again does nothing. */
  dispose(): Promise<void> {
    return this.#disposal ??= this.#end();
  }

  async #end(): Promise<void> {
    await this.#queue;
    await this.#recall().catch(() => {}); // A failed pool has told its callers; its workers are stopped all the same.
    this.#fail("the pool is disposed");
    for (const { worker, control } of this.#threads) {
      control[comlink.releaseProxy]();
      worker.terminate();
    }
    this.#threads.length = 0;
    this.#onEnd?.();
  }

  #enqueue<T>(task: () => Promise<T>): Promise<T> {
    if (this.#disposal) return Promise.reject(this.#failure ?? new Error("Cannot run: the pool is disposed"));
    const result = this.#queue.then(() => {
      if (this.#failure) throw this.#failure;
      return task();
    });
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Gives a command to the first so many workers. */
  #command(command: number, workers: number): void {
    Atomics.store(this.#control, Control.command, command);
    for (let worker = 0; worker < workers; worker++) {
      Atomics.add(this.#control, epochIndex(worker), 1);
      Atomics.notify(this.#control, epochIndex(worker));
    }
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
    this.#command(Command.recall, this.workers);
    const serving = this.#serving;
    await this.#answers(serving);
    this.#serving = [];
  }

  /** Makes a control call to every worker. A worker that cannot do what it is asked fails the pool. */
  #ask<T>(call: (thread: comlink.Remote<WorkerControl>, index: number) => Promise<T>): Promise<T[]> {
    return this.#answers(this.#threads.map(({ control }, index) => {
      const answer = call(control, index);
      answer.catch((error) => this.#fail(`worker ${index} failed: ${errorMessage(error)}`));
      return answer;
    }));
  }

  /** Waits for an answer of each worker. */
  #answers<T>(answers: readonly Promise<T>[]): Promise<T[]> {
    const pending = new Set(answers.keys());
    answers.forEach((answer, index) => answer.then(() => pending.delete(index), () => {}));
    return this.#watch(Promise.all(answers), () => pending);
  }

  /**
   * Waits for a promise or for the pool's failure, whichever is first, and fails the pool when one of the workers
   * waited for is silent too long. (`Promise.race` against one long-lived promise would keep every finished wait
   * alive.)
   */
  #watch<T>(promise: Promise<T>, pending: () => Iterable<number>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const end = () => {
        clearInterval(timer);
        this.#waiting.delete(fail);
      };
      const fail = (error: Error) => {
        end();
        reject(error);
      };
      // Checks are counted, not hours: a process that was stopped for a while blames nobody.
      const seen = this.#threads.map(() => ({ pulse: -1, checks: 0 }));
      const check = () => {
        for (const index of pending()) {
          const pulse = Atomics.load(this.#control, pulseIndex(index));
          const last = seen[index];
          last.checks = pulse === last.pulse ? last.checks + 1 : 0;
          last.pulse = pulse;
          if (last.checks === pulseChecks) {
            this.#fail(`worker ${index} died: no sign of life for ${this.#silenceMs} ms`);
          }
        }
      };
      const timer = setInterval(check, this.#silenceMs / pulseChecks);
      this.#waiting.add(fail);
      promise.then((value) => {
        end();
        resolve(value);
      }, fail);
      if (this.#failure) fail(this.#failure);
    });
  }

  /** Remembers the first failure, frees whoever waits at a barrier, and rejects the run under way. */
  #fail(reason: string): void {
    if (this.#failure) return;
    this.#failure = new Error(`Cannot run: ${reason}`);
    Atomics.compareExchange(this.#control, Control.aborted, 0, -1);
    wakeAll(this.#control, this.workers);
    for (const reject of this.#waiting) reject(this.#failure);
  }
}
