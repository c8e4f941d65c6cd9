/**
 * Choosing the masks of matrices that are ranked together, on a worker, and zeroing what they prune.
 * @module
 */
import type { Task } from "../plan/executor.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { magnitude } from "../pruning/magnitude.ts";
import { pruneMasks, zeroPruned } from "../pruning/method.ts";
import { blockGrid, type Pattern } from "../pruning/pattern.ts";
import { gatheredScores, type ScoreUnit } from "../pruning/scores.ts";
import type { MatrixPlace } from "./compact_task.ts";

/** Matrices to prune. */
export interface PruneRequest {
  /** One, or all that share a sparsity. */
  readonly matrices: readonly PlacedMatrix[];
  readonly pattern: Pattern;
  /** Of all of them together. */
  readonly sparsity: number;
  /** What scores are about, where matrices have them. */
  readonly unit?: ScoreUnit;
  /** Whether what is pruned already stays so. */
  readonly monotone: boolean;
}

/** A matrix and where it lies. */
export interface PlacedMatrix extends Pick<MatrixPlace, "rows" | "depth" | "states" | "mask"> {
  readonly name: string;
  /** Ranks by the f32 at this address, in bytes from the arena's start, and not by the magnitudes of the weights. */
  readonly scores?: number;
}

/** Renews masks. */
export const task: Task<PruneRequest, void> = {
  name: "pruneMatrix",
  run({ buffer }, { matrices, pattern, sparsity, unit, monotone }) {
    const placed = new Map(matrices.map((matrix) => {
      const { name, rows, depth, mask, states } = matrix;
      const weights = states.map((address) => new Float32Array(buffer, address, rows * depth));
      return [name, { ...matrix, mask: new Uint32Array(buffer, mask, bitsetWords(rows * depth)), weights }];
    }));
    const method = unit === undefined ? magnitude : gatheredScores((name) => {
      const { rows, depth, scores } = placed.get(name)!;
      const units = unit === "block"
        ? blockGrid(pattern, { rows, columns: depth })
        : { rows, columns: depth };
      return new Float32Array(buffer, scores!, units.rows * units.columns);
    }, unit);
    const masks = pruneMasks(
      Array.from(placed, ([name, { rows, depth, weights }]) => ({
        ...{ name, rows, columns: depth },
        values: weights[0],
      })),
      {
        method,
        pattern,
        scope: "global",
        sparsity,
        previous: monotone ? new Map(Array.from(placed, ([name, { mask }]) => [name, mask])) : undefined,
      },
    );
    for (const [name, { mask, weights }] of placed) {
      mask.set(masks.get(name)!);
      zeroPruned(mask, weights);
    }
  },
};
