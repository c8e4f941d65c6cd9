/**
 * Where the time of a program goes, by operation: an executor that runs all calls on the calling thread and times each.
 *
 * One worker, so that no call waits for another and times add up to the whole. A reading of the clock costs some tens of
 * nanoseconds, calls some microseconds and more.
 * @module
 */
import type { Kernel } from "../src/kernels/kernel.ts";
import { type LinkedKernel, linkImage } from "../src/machines/mod.ts";
import { InlineExecutor, KernelTable } from "../src/plan/executor.ts";
import type { Program } from "../src/plan/program.ts";

/** Time of one operation. */
export interface OperationTime {
  /** The kernel's name without types and sizes: `matmul_weight_gradient`. */
  readonly operation: string;
  /** Calls of its kernels. */
  readonly calls: number;
  readonly ms: number;
}

/**
 * The operation of a kernel: its key up to the types, sizes and constants. A transposed matrix product is an operation
 * of its own: forward passes multiply by the weights, backward passes by their transposes.
 */
export function operationOfKey(key: string): string {
  const name = key.replace(/_(?=f32(?:_|$)|tile\d|\d).*$/, "");
  return key.includes("_transposed") ? `${name}_transposed` : name;
}

/** Runs programs on the calling thread, worker after worker, and adds up the time of every kernel. */
export class TimingExecutor extends InlineExecutor {
  readonly #table = new KernelTable();
  readonly #linked: LinkedKernel[] = [];
  readonly #keys: string[] = [];
  #calls = new Float64Array(0);
  #ms = new Float64Array(0);

  override link(kernels: readonly Kernel[]): Promise<ReadonlyMap<string, number>> {
    const fresh = this.#table.unknown(kernels);
    if (fresh.length > 0) {
      this.#linked.push(...linkImage(this.machine.assemble(fresh), this.arena.memory));
      this.#keys.push(...fresh.map(({ key }) => key));
      this.#table.admit(fresh);
    }
    return Promise.resolve(this.#table.numbers);
  }

  override run(program: Program): Promise<void> {
    this.#makeRoom();
    const words = new Int32Array(this.arena.memory.buffer);
    const positions = program.entries.map((entry) => entry / 4 + 1);
    for (let phase = 0; phase < program.phaseNames.length; phase++) {
      for (let worker = 0; worker < this.workers; worker++) {
        positions[worker] = this.#runPhase(words, positions[worker]);
      }
    }
    return Promise.resolve();
  }

  /** Forgets the times so far. */
  reset(): void {
    this.#calls.fill(0);
    this.#ms.fill(0);
  }

  /** Times since the last reset, the longest first. */
  times(): OperationTime[] {
    const sums = new Map<string, { calls: number; ms: number }>();
    this.#calls.forEach((calls, kernel) => {
      if (calls === 0) return;
      const operation = operationOfKey(this.#keys[kernel]);
      const sum = sums.getOrInsertComputed(operation, () => ({ calls: 0, ms: 0 }));
      sum.calls += calls;
      sum.ms += this.#ms[kernel];
    });
    return Array.from(sums, ([operation, sum]) => ({ operation, ...sum })).sort((a, b) => b.ms - a.ms);
  }

  #makeRoom(): void {
    const kernels = this.#keys.length;
    if (this.#ms.length === kernels) return;
    const [calls, ms] = [new Float64Array(kernels), new Float64Array(kernels)];
    calls.set(this.#calls);
    ms.set(this.#ms);
    [this.#calls, this.#ms] = [calls, ms];
  }

  /** As `runPhase` in `src/plan/executor.ts`, with a clock. */
  #runPhase(words: Int32Array, position: number): number {
    const end = position + 1 + 2 * words[position];
    let before = performance.now();
    for (let call = position + 1; call < end; call += 2) {
      const kernel = words[call];
      this.#linked[kernel](words[call + 1]);
      const after = performance.now();
      this.#calls[kernel]++;
      this.#ms[kernel] += after - before;
      before = after;
    }
    return end;
  }
}
