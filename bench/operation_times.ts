/**
 * Where the time of a program goes, by operation: an executor that runs all calls on the calling thread and times each.
 *
 * One worker, so that no call waits for another and times add up to the whole. A reading of the clock costs some tens of
 * nanoseconds, calls some microseconds and more.
 * @module
 */
import type { Kernel } from "../src/kernels/kernel.ts";
import type { LinkedKernel } from "../src/machines/mod.ts";
import { InlineExecutor } from "../src/plan/executor.ts";

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
 *
 * The sparse products of single weights share a name. Their gradient of x is the forward kernel on a packing of the
 * transpose, and for a square matrix both have one key. 4x1 blocks have a kernel for that gradient,
 * `sparse_matmul_input_gradient`.
 */
export function operationOfKey(key: string): string {
  if (key.startsWith("sparse_matmul_f32_unstructured_")) return "sparse_matmul: forward and of x";
  if (key.startsWith("sparse_matmul_f32_")) return "sparse_matmul: forward";
  const name = key.replace(/_(?=f32(?:_|$)|tile\d|\d).*$/, "");
  return key.includes("_transposed") ? `${name}_transposed` : name;
}

/** Calls of one kernel since the last reset. */
interface KernelTime {
  readonly key: string;
  calls: number;
  ms: number;
}

/** Runs programs on the calling thread, worker after worker, and adds up the time of every kernel. */
export class TimingExecutor extends InlineExecutor {
  readonly #kernels: KernelTime[] = [];

  protected override wrap({ key }: Kernel, call: LinkedKernel): LinkedKernel {
    const time: KernelTime = { key, calls: 0, ms: 0 };
    this.#kernels.push(time);
    return (argumentsAddress) => {
      const start = performance.now();
      call(argumentsAddress);
      time.ms += performance.now() - start;
      time.calls++;
    };
  }

  /** Forgets the times so far. */
  reset(): void {
    for (const time of this.#kernels) time.calls = time.ms = 0;
  }

  /** Times since the last reset, the longest first. */
  times(): OperationTime[] {
    const sums = new Map<string, { calls: number; ms: number }>();
    for (const { key, calls, ms } of this.#kernels) {
      if (calls === 0) continue;
      const sum = sums.getOrInsertComputed(operationOfKey(key), () => ({ calls: 0, ms: 0 }));
      sum.calls += calls;
      sum.ms += ms;
    }
    return Array.from(sums, ([operation, sum]) => ({ operation, ...sum })).sort((a, b) => b.ms - a.ms);
  }
}
