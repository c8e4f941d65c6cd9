/**
 * Pruning in two halves: a method scores blocks, `pruneMasks` turns scores into masks of an exact sparsity.
 *
 * Methods differ only in the scores (magnitude here; movement and second-order methods bring what they accumulated
 * during training as state of their own object), so everything about exactness and scope is written once, here.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { bitsetWords } from "./bitset.ts";
import { blockGrid, collapseToBlocks, expandBlockMask, type MatrixShape, type Pattern } from "./pattern.ts";
import { selectMask, selectMasks } from "./select.ts";

/** A weight matrix [rows = outputs, columns = inputs], row-major, with its checkpoint name. */
export interface PrunableMatrix extends MatrixShape {
  readonly name: string;
  readonly values: Float32Array;
}

/** Scores of the blocks of a matrix, numbered as in `pattern.ts`. */
export interface BlockScores {
  readonly values: Float32Array;
  /** Rank by |value|. */
  readonly absolute?: boolean;
}

/** Says how much each block of a matrix matters; the blocks of least score are pruned. */
export interface PruningMethod {
  readonly name: string;
  score(matrix: PrunableMatrix, pattern: Pattern): BlockScores;
}

/** `layer`: every matrix reaches the sparsity on its own. `global`: all are ranked together and differ in sparsity. */
export type PruningScope = "layer" | "global";

/** What `pruneMasks` is asked for. */
export interface PruningRequest {
  readonly method: PruningMethod;
  readonly pattern: Pattern;
  readonly scope: PruningScope;
  /** Share of the blocks to prune, 0 to 1. */
  readonly sparsity: number;
  /**
   * Masks of the weights so far, by name. What is pruned there stays pruned, even where that exceeds `sparsity`.
   * Methods that let weights return pass none.
   */
  readonly previous?: ReadonlyMap<string, Uint32Array>;
}

/**
 * One mask per matrix, by name: bit i is 1 where weight i (row-major) is kept.
 *
 * Exactly round(sparsity · blocks) blocks are pruned, of each matrix or of all together. For `unstructured` that is
 * the number of weights; for `4x1` it is too where the rows are a multiple of 4. Ties go by `selectMasks`.
 * Throws InputError for a sparsity outside [0, 1] and for scores that are not numbers.
 */
export function pruneMasks(
  matrices: readonly PrunableMatrix[],
  request: PruningRequest,
): Map<string, Uint32Array> {
  const { method, pattern, scope, sparsity, previous } = request;
  if (!(sparsity >= 0 && sparsity <= 1)) {
    throw new InputError(`Cannot prune to sparsity ${sparsity}: wanted a number from 0 to 1`);
  }
  const countOf = (blocks: number) => Math.round(sparsity * blocks);
  const scoresOf = (matrix: PrunableMatrix) => {
    const mask = previous?.get(matrix.name);
    checkSizes(matrix, mask);
    return {
      name: matrix.name,
      ...method.score(matrix, pattern),
      previous: mask && collapseToBlocks(mask, pattern, matrix),
    };
  };
  const blocksOf = (matrix: PrunableMatrix) => {
    const grid = blockGrid(pattern, matrix);
    return grid.rows * grid.columns;
  };

  const total = matrices.reduce((sum, matrix) => sum + blocksOf(matrix), 0);
  const blockMasks = scope === "global"
    ? selectMasks(matrices.map(scoresOf), countOf(total))
    : matrices.map((matrix) => selectMask(scoresOf(matrix), countOf(blocksOf(matrix))));
  return new Map(matrices.map((matrix, index) => {
    const mask = expandBlockMask(blockMasks[index], pattern, matrix);
    // A mask of another pattern may have pruned part of a block that is kept now.
    previous?.get(matrix.name)?.forEach((word, at) => mask[at] &= word);
    return [matrix.name, mask];
  }));
}

function checkSizes({ name, rows, columns, values }: PrunableMatrix, mask: Uint32Array | undefined): void {
  const count = rows * columns;
  if (values.length !== count || (mask && mask.length !== bitsetWords(count))) {
    throw new RangeError(
      `Cannot prune ${name} [${rows}, ${columns}]: it has ${values.length} values` +
        (mask ? ` and a mask of ${mask.length} words` : ""),
    );
  }
}

/** Sets the elements whose bit is 0 to 0, in arrays of one length. */
export function zeroPruned(mask: Uint32Array, arrays: readonly Float32Array[]): void {
  for (let word = 0; word < mask.length; word++) {
    const bits = mask[word];
    if (bits === 0xffffffff) continue;
    const end = Math.min(32, arrays[0].length - 32 * word);
    for (let bit = 0; bit < end; bit++) {
      if (bits >>> bit & 1) continue;
      for (const array of arrays) array[32 * word + bit] = 0;
    }
  }
}
