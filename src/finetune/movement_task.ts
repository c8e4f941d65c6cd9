/**
 * Choosing masks by movement scores on a worker: what is pruned falls asleep, what returns wakes.
 * @module
 */
import type { Task } from "../plan/executor.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { pruneMasks, type PruningScope } from "../pruning/method.ts";
import { exchangeWeights, thresholdMask } from "../pruning/movement.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { gatheredScores } from "../pruning/scores.ts";
import type { MatrixPlace } from "./compact_task.ts";

/** A matrix with its scores. Addresses are bytes from the arena's start. */
export interface MovingMatrix extends MatrixPlace {
  readonly name: string;
  /** Each rows · depth f32. */
  readonly scores: number;
  readonly dormant: number;
}

/** How much is to be pruned: a share of the blocks, or what is below a threshold. */
export type MovementTarget =
  | { readonly scope: PruningScope; readonly sparsity: number }
  | { readonly threshold: number };

/** Matrices to prune; of scope `global`, all of them. */
export interface MovementTaskRequest {
  readonly matrices: readonly MovingMatrix[];
  readonly pattern: Pattern;
  readonly target: MovementTarget;
}

/** Renews masks, and moves weights between their place and where they sleep. */
export const task: Task<MovementTaskRequest, void> = {
  name: "moveWeights",
  run({ buffer }, { matrices, pattern, target }) {
    const views = matrices.map(({ name, rows, depth, states, mask, scores, dormant }) => {
      const view = (address: number) => new Float32Array(buffer, address, rows * depth);
      const [values, ...moments] = states.map(view);
      return {
        matrix: { name, rows, columns: depth, values },
        mask: new Uint32Array(buffer, mask, bitsetWords(rows * depth)),
        scores: view(scores),
        dormant: view(dormant),
        moments,
      };
    });
    const scoresOf = new Map(views.map(({ matrix, scores }) => [matrix.name, scores]));
    const masks = "threshold" in target
      ? new Map(
        views.map(({ matrix, scores }) => [
          matrix.name,
          thresholdMask(matrix, scores, pattern, target.threshold),
        ]),
      )
      : pruneMasks(views.map(({ matrix }) => matrix), {
        method: gatheredScores((name) => scoresOf.get(name)!, "weight"),
        pattern,
        ...target,
      });
    for (const { matrix: { name, values }, mask, dormant, moments } of views) {
      mask.set(masks.get(name)!);
      exchangeWeights(mask, values, dormant, moments);
    }
  },
};
