/**
 * Choosing the mask of one matrix on a worker, and zeroing what it prunes.
 * @module
 */
import type { Task } from "../plan/executor.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { magnitude } from "../pruning/magnitude.ts";
import { pruneMasks, zeroPruned } from "../pruning/method.ts";
import { blockGrid, type Pattern } from "../pruning/pattern.ts";
import { gatheredScores, type ScoreUnit } from "../pruning/scores.ts";
import type { MatrixPlace } from "./compact_task.ts";

/** A matrix to prune. */
export interface PruneRequest extends Pick<MatrixPlace, "rows" | "depth" | "states" | "mask"> {
  readonly name: string;
  readonly pattern: Pattern;
  readonly sparsity: number;
  /** Ranks by these f32, in bytes from the arena's start, and not by the magnitudes of the weights. */
  readonly scores?: { readonly address: number; readonly unit: ScoreUnit };
  /** Whether what is pruned already stays so. */
  readonly monotone: boolean;
}

/** Renews a mask; undefined stands for a matrix that is left alone. */
export const task: Task<PruneRequest | undefined, void> = {
  name: "pruneMatrix",
  run(memory, request) {
    if (!request) return;
    const { name, rows, depth, states, mask: at, pattern, sparsity, scores, monotone } = request;
    const shape = { rows, columns: depth };
    const mask = new Uint32Array(memory.buffer, at, bitsetWords(rows * depth));
    const values = new Float32Array(memory.buffer, states[0], rows * depth);
    const method = scores
      ? gatheredScores(() => {
        const units = scores.unit === "block" ? blockGrid(pattern, shape) : shape;
        return new Float32Array(memory.buffer, scores.address, units.rows * units.columns);
      }, scores.unit)
      : magnitude;
    const masks = pruneMasks([{ ...shape, name, values }], {
      method,
      pattern,
      scope: "layer",
      sparsity,
      previous: monotone ? new Map([[name, mask.slice()]]) : undefined,
    });
    mask.set(masks.get(name)!);
    zeroPruned(mask, states.map((address) => new Float32Array(memory.buffer, address, rows * depth)));
  },
};
