/**
 * Pruning patterns: which weights of a [outputs, inputs] matrix are pruned together.
 *
 * A pattern cuts the matrix into blocks of `rows` outputs × `columns` inputs. Blocks are numbered row-major over the
 * grid of blocks. Where a dimension is not a multiple of the block's, the last block is smaller.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { bitsetWords } from "./bitset.ts";

/** Outputs × inputs of a block. */
export interface BlockShape {
  readonly rows: number;
  readonly columns: number;
}

/** `unstructured`: each weight for itself. `4x1`: 4 outputs × 1 input, one load of an input serves 4 outputs. */
export const blockShapes = {
  "unstructured": { rows: 1, columns: 1 },
  "4x1": { rows: 4, columns: 1 },
} as const satisfies Record<Pattern, BlockShape>;

/** Name of a pattern: `unstructured` prunes weights one by one, `4x1` four outputs of an input together. */
export type Pattern = "unstructured" | "4x1";

/** The pattern of that name. Throws InputError if there is none. */
export function parsePattern(name: string): Pattern {
  if (Object.hasOwn(blockShapes, name)) return name as Pattern;
  throw new InputError(
    `Unknown pruning pattern ${name}: wanted one of ${Object.keys(blockShapes).join(", ")}`,
  );
}

/** Size of a matrix in weights. */
export interface MatrixShape {
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly columns: number;
}

/** The grid of blocks a pattern makes of a matrix. */
export function blockGrid(pattern: Pattern, { rows, columns }: MatrixShape): MatrixShape {
  const block = blockShapes[pattern];
  return { rows: Math.ceil(rows / block.rows), columns: Math.ceil(columns / block.columns) };
}

/** The mask of the weights, from the mask of the blocks: a weight is kept if its block is. */
export function expandBlockMask(blocks: Uint32Array, pattern: Pattern, matrix: MatrixShape): Uint32Array {
  if (pattern === "unstructured") return blocks;
  const block: BlockShape = blockShapes[pattern];
  const grid = blockGrid(pattern, matrix);
  const weights = new Uint32Array(bitsetWords(matrix.rows * matrix.columns));
  for (let row = 0, index = 0; row < matrix.rows; row++) {
    const gridRow = Math.floor(row / block.rows) * grid.columns;
    for (let column = 0; column < matrix.columns; column++, index++) {
      const unit = gridRow + Math.floor(column / block.columns);
      weights[index >>> 5] |= ((blocks[unit >>> 5] >>> (unit & 31)) & 1) << (index & 31);
    }
  }
  return weights;
}

/** The mask of the blocks, from the mask of the weights: a block is kept if any of its weights is. */
export function collapseToBlocks(weights: Uint32Array, pattern: Pattern, matrix: MatrixShape): Uint32Array {
  if (pattern === "unstructured") return weights;
  const block: BlockShape = blockShapes[pattern];
  const grid = blockGrid(pattern, matrix);
  const blocks = new Uint32Array(bitsetWords(grid.rows * grid.columns));
  for (let row = 0, index = 0; row < matrix.rows; row++) {
    const gridRow = Math.floor(row / block.rows) * grid.columns;
    for (let column = 0; column < matrix.columns; column++, index++) {
      const unit = gridRow + Math.floor(column / block.columns);
      blocks[unit >>> 5] |= ((weights[index >>> 5] >>> (index & 31)) & 1) << (unit & 31);
    }
  }
  return blocks;
}
