/**
 * Choosing the mask of one matrix on a worker, and zeroing what it prunes.
 * @module
 */
import type { Task } from "../plan/executor.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { magnitude } from "../pruning/magnitude.ts";
import { pruneMasks, zeroPruned } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import type { MatrixPlace } from "./compact_task.ts";

/** A matrix to prune. */
export interface PruneRequest extends Pick<MatrixPlace, "rows" | "depth" | "states" | "mask"> {
  readonly name: string;
  readonly pattern: Pattern;
  readonly sparsity: number;
}

/** Prunes by magnitude; what is pruned already stays so. */
export const task: Task<PruneRequest, void> = {
  name: "pruneMatrix",
  run(memory, { name, rows, depth, states, mask: at, pattern, sparsity }) {
    const mask = new Uint32Array(memory.buffer, at, bitsetWords(rows * depth));
    const values = new Float32Array(memory.buffer, states[0], rows * depth);
    const masks = pruneMasks([{ name, rows, columns: depth, values }], {
      method: magnitude,
      pattern,
      scope: "layer",
      sparsity,
      previous: new Map([[name, mask.slice()]]),
    });
    mask.set(masks.get(name)!);
    zeroPruned(mask, states.map((address) => new Float32Array(memory.buffer, address, rows * depth)));
  },
};
