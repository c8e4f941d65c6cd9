/**
 * Choosing masks by the magnitudes of the weights on a worker, and zeroing what they prune.
 * @module
 */
import type { Task } from "../plan/executor.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { magnitude } from "../pruning/magnitude.ts";
import { pruneMasks, zeroPruned } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import type { MatrixPlace } from "./compact_task.ts";

/** Matrices to prune. */
export interface PruneRequest {
  /** One, or all that are ranked together. */
  readonly matrices: readonly PlacedMatrix[];
  readonly pattern: Pattern;
  /** Of all of them together. */
  readonly sparsity: number;
}

/** A matrix and where it lies. */
export interface PlacedMatrix extends Pick<MatrixPlace, "rows" | "depth" | "states" | "mask"> {
  readonly name: string;
}

/** Renews masks: what is pruned already stays so. */
export const task: Task<PruneRequest, void> = {
  name: "pruneMatrix",
  run({ buffer }, { matrices, pattern, sparsity }) {
    const placed = new Map(matrices.map(({ name, rows, depth, mask, states }) => {
      const weights = states.map((address) => new Float32Array(buffer, address, rows * depth));
      const matrix = { name, rows, columns: depth, values: weights[0] };
      return [name, { matrix, mask: new Uint32Array(buffer, mask, bitsetWords(rows * depth)), weights }];
    }));
    const masks = pruneMasks(Array.from(placed.values(), ({ matrix }) => matrix), {
      method: magnitude,
      pattern,
      scope: "global",
      sparsity,
      previous: new Map(Array.from(placed, ([name, { mask }]) => [name, mask])),
    });
    for (const [name, { mask, weights }] of placed) {
      mask.set(masks.get(name)!);
      zeroPruned(mask, weights);
    }
  },
};
