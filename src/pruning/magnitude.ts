/**
 * Magnitude pruning: a weight matters as much as it is large (Zhu and Gupta, arXiv 1710.01878).
 * @module
 */
import type { BlockScores, PrunableMatrix, PruningMethod } from "./method.ts";
import { blockShape, type Pattern } from "./pattern.ts";
import { blockMeans } from "./scores.ts";

/** Scores a block by the mean of |w| over its weights, as SparseML does: in whole blocks that ranks as the L1 norm. */
export const magnitude: PruningMethod = {
  name: "magnitude",
  score(matrix: PrunableMatrix, pattern: Pattern): BlockScores {
    const block = blockShape(pattern);
    if (block.rows * block.columns === 1) return { values: matrix.values, absolute: true };
    return { values: blockMeans(matrix.values, pattern, matrix, { absolute: true }) };
  },
};
