/**
 * Bringing a compact matrix back into row-major order with its zeros, on a worker: what `compact_task.ts` did, undone.
 * @module
 */
import { Scratch } from "../core/scratch.ts";
import { putStored } from "../kernels/sparse_matmul/training_structure.ts";
import type { Task } from "../plan/executor.ts";
import type { MatrixPlace } from "./compact_task.ts";

/** A matrix to expand. */
export interface ExpandRequest extends Pick<MatrixPlace, "rows" | "depth" | "states"> {
  /** Address of the places of its values. */
  readonly positions: number;
  /** Stored values. */
  readonly count: number;
}

/** For the array at hand. */
const scratch = new Scratch();

/** See above. */
export const task: Task<ExpandRequest, void> = {
  name: "expandMatrix",
  run(memory, { rows, depth, states, positions, count }) {
    const places = new Int32Array(memory.buffer, positions, count);
    for (const address of states) {
      const values = scratch.copy(new Float32Array(memory.buffer, address, count));
      putStored(values, places, new Float32Array(memory.buffer, address, rows * depth));
    }
  },
};
