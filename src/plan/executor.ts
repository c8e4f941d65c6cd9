/**
 * What runs programs: the worker pool in production, the calling thread in tests.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { Kernel } from "../kernels/kernel.ts";
import type { LinkedKernel, Machine } from "../machines/machine.ts";
import { linkImage } from "../machines/mod.ts";
import type { Plan } from "./plan.ts";
import { type Program, programBytes, writeProgram } from "./program.ts";
import type { Allocator, Arena } from "./arena.ts";

/**
 * Runs programs on an arena, one at a time: calls queue up. When a worker fails, the run under way and all later calls
 * reject with the reason. Several executors may share an arena and run at once, as long as none writes what another
 * uses.
 */
export interface Executor {
  readonly machine: Machine;
  readonly workers: number;
  readonly arena: Arena;
  /** Whether each worker stays on a core of its own. */
  readonly pinned: boolean;
  /** Makes the kernels callable; gives their numbers by key. Kernels known already cost nothing. */
  link(kernels: readonly Kernel[]): Promise<ReadonlyMap<string, number>>;
  /**
   * Runs every phase on every worker the program was made for, all or the first few, and resolves when the last is done.
   */
  run(program: Program): Promise<void>;
  /** Runs a task on each argument, spread over the workers as they get free; gives the results in order. */
  perform<A, R>(task: Task<A, R>, tasks: readonly A[]): Promise<R[]>;
  /** Stops the workers, after the calls made before; later calls reject. Calling it again does nothing. */
  dispose(): Promise<void>;
}

/**
 * Work on the arena that is no kernel: packing, choosing masks. A module exports it under the name `task`, and
 * `workers/tasks.ts` knows the module by the task's name.
 */
export interface Task<A, R> {
  readonly name: string;
  /** Works on what its argument names, and on nothing that another argument of the same call does. */
  run(memory: WebAssembly.Memory, argument: A): R | Promise<R>;
}

/**
 * Makes an executor on an arena, which may be filled while its workers start. `src` never imports the worker pool;
 * whoever calls in hands one of these over.
 */
export type ExecutorFactory = (options: {
  readonly machine: Machine;
  /** Workers that share a step. */
  readonly threads: number;
  readonly arena: Arena;
}) => Promise<Executor>;

/** A thread count given by a user, for plans and executors alike. Throws `InputError` for what is none. */
export function checkThreads(threads: number): number {
  if (Number.isInteger(threads) && threads >= 1 && threads <= 1024) return threads;
  throw new InputError(`threads is ${threads}: wanted a whole number from 1 to 1024`);
}

/** Links a plan's kernels and writes its program into memory of the allocator, the arena unless told. */
export async function prepare(
  executor: Executor,
  plan: Plan,
  allocator: Allocator = executor.arena,
): Promise<Program> {
  const numbers = await executor.link(plan.kernels);
  const address = allocator.allocate(programBytes(plan), "program");
  return writeProgram(plan, executor.arena.memory, address, (key) => numbers.get(key)!);
}

/** Numbers kernels in the order they are first asked for. */
export class KernelTable {
  readonly #numbers = new Map<string, number>();

  /** Numbers by key. */
  get numbers(): ReadonlyMap<string, number> {
    return this.#numbers;
  }

  /** The kernels that have no number yet, each once. */
  unknown(kernels: readonly Kernel[]): Kernel[] {
    const fresh = new Map(kernels.map((kernel) => [kernel.key, kernel]));
    return [...fresh.values()].filter(({ key }) => !this.#numbers.has(key));
  }

  /** Gives kernels the next numbers, in order. They are linked by now: a number that calls nothing is worse than none. */
  admit(fresh: readonly Kernel[]): void {
    for (const { key } of fresh) this.#numbers.set(key, this.#numbers.size);
  }
}

/** Replays one worker's part of one phase; gives the position after it. Shared by the workers and the executor below. */
export function runPhase(words: Int32Array, position: number, kernels: readonly LinkedKernel[]): number {
  const end = position + 1 + 2 * words[position];
  for (let call = position + 1; call < end; call += 2) kernels[words[call]](words[call + 1]);
  return end;
}

/** Runs all workers' calls one after another on the calling thread: for tests and tools. */
export class InlineExecutor implements Executor {
  readonly pinned = false;
  readonly #table = new KernelTable();
  readonly #linked: LinkedKernel[] = [];
  #isDisposed = false;

  constructor(readonly machine: Machine, readonly workers: number, readonly arena: Arena) {
    checkThreads(workers);
  }

  link(kernels: readonly Kernel[]): Promise<ReadonlyMap<string, number>> {
    return this.#attempt(() => {
      const fresh = this.#table.unknown(kernels);
      if (fresh.length > 0) {
        const linked = linkImage(this.machine.assemble(fresh), this.arena.memory);
        this.#linked.push(...linked.map((call, i) => this.wrap(fresh[i], call)));
        this.#table.admit(fresh);
      }
      return this.#table.numbers;
    });
  }

  /** What programs call for a kernel: the kernel itself, unless a tool that watches calls puts something around it. */
  protected wrap(_kernel: Kernel, call: LinkedKernel): LinkedKernel {
    return call;
  }

  run(program: Program): Promise<void> {
    return this.#attempt(() => {
      const words = new Int32Array(this.arena.memory.buffer);
      const positions = program.entries.map((entry) => entry / 4 + 1);
      for (let phase = 0; phase < program.phaseNames.length; phase++) {
        for (let worker = 0; worker < positions.length; worker++) {
          positions[worker] = runPhase(words, positions[worker], this.#linked);
        }
      }
    });
  }

  async perform<A, R>(task: Task<A, R>, tasks: readonly A[]): Promise<R[]> {
    const results: R[] = [];
    for (const each of tasks) results.push(await this.#attempt(() => task.run(this.arena.memory, each)));
    return results;
  }

  dispose(): Promise<void> {
    this.#isDisposed = true;
    return Promise.resolve();
  }

  /** Like every executor, it rejects and never throws. */
  #attempt<T>(task: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve) => {
      if (this.#isDisposed) throw new Error("Cannot run: the executor is disposed");
      resolve(task());
    });
  }
}
