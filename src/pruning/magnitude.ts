/**
 * Magnitude pruning: a weight matters as much as it is large (Zhu and Gupta, arXiv 1710.01878).
 * @module
 */
import { type BlockScores, type PrunableMatrix, type PruningMethod } from "./method.ts";
import { blockGrid, type BlockShape, blockShapes, type Pattern } from "./pattern.ts";

/**
 * Scores a block by the mean of |w| over its weights, as SparseML does: that ranks as the L1 norm, and is fair to the
 * smaller blocks at the end of a matrix that the pattern does not divide.
 */
export const magnitude: PruningMethod = {
  name: "magnitude",
  score(matrix: PrunableMatrix, pattern: Pattern): BlockScores {
    if (pattern === "unstructured") return { values: matrix.values, absolute: true };
    return { values: meanMagnitudes(matrix, pattern) };
  },
};

function meanMagnitudes({ rows, columns, values }: PrunableMatrix, pattern: Pattern): Float32Array {
  const block: BlockShape = blockShapes[pattern];
  const grid = blockGrid(pattern, { rows, columns });
  const means = new Float32Array(grid.rows * grid.columns);
  for (let gridRow = 0, unit = 0; gridRow < grid.rows; gridRow++) {
    const rowBegin = gridRow * block.rows;
    const rowEnd = Math.min(rows, rowBegin + block.rows);
    for (let gridColumn = 0; gridColumn < grid.columns; gridColumn++, unit++) {
      const columnBegin = gridColumn * block.columns;
      const columnEnd = Math.min(columns, columnBegin + block.columns);
      let sum = 0;
      for (let row = rowBegin; row < rowEnd; row++) {
        for (let column = columnBegin; column < columnEnd; column++) {
          sum += Math.abs(values[row * columns + column]);
        }
      }
      means[unit] = sum / ((rowEnd - rowBegin) * (columnEnd - columnBegin));
    }
  }
  return means;
}
