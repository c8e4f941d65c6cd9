/**
 * What scores are made of: means over blocks, and scores that were gathered elsewhere.
 * @module
 */
import type { BlockScores, PruningMethod } from "./method.ts";
import { blockGrid, blockShape, type MatrixShape, type Pattern } from "./pattern.ts";

/**
 * The mean over the weights of each block, of the values or of their magnitudes. The mean is fair to the smaller blocks at
 * the end of a matrix that the pattern does not divide.
 */
export function blockMeans(
  values: Float32Array,
  pattern: Pattern,
  { rows, columns }: MatrixShape,
  { absolute }: { readonly absolute: boolean },
): Float32Array {
  const block = blockShape(pattern);
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
          const value = values[row * columns + column];
          sum += absolute ? Math.abs(value) : value;
        }
      }
      means[unit] = sum / ((rowEnd - rowBegin) * (columnEnd - columnBegin));
    }
  }
  return means;
}

/** What a score is about: a weight, row-major in its matrix, or a block of the pattern, as numbered in `pattern.ts`. */
export type ScoreUnit = "weight" | "block";

/**
 * Ranks by scores that a method gathered during training: those of weights by their mean over each block, those of blocks as
 * they are. Signs count: the most negative score is pruned first.
 */
export function gatheredScores(
  scoresOf: (name: string) => Float32Array,
  unit: ScoreUnit,
): PruningMethod {
  return {
    name: "gathered",
    score(matrix, pattern): BlockScores {
      const values = scoresOf(matrix.name);
      const block = blockShape(pattern);
      if (unit === "block" || block.rows * block.columns === 1) return { values };
      return { values: blockMeans(values, pattern, matrix, { absolute: false }) };
    },
  };
}
