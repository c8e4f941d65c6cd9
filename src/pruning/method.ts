/**
 * Pruning in two halves: a method scores blocks, `pruneMasks` turns scores into masks of an exact sparsity.
 *
 * Methods differ only in the scores (magnitude here; movement and second-order methods bring what they accumulated
 * during training as state of their own object), so everything about exactness and scope is written once, here.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { bitsetWords, popcount } from "./bitset.ts";
import {
  blockGrid,
  collapseToBlocks,
  expandBlockMask,
  groupTolerance,
  highestSparsity,
  type MatrixShape,
  type Pattern,
  weightGroup,
} from "./pattern.ts";
import { type ScoreList, selectMasks } from "./select.ts";
import { sparedWeights } from "./weight_groups.ts";

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
 * Exactly round(sparsity · blocks) blocks are pruned, of each matrix or of all together. For patterns of single weights that
 * is the number of weights, and for blocks it is too where they divide the matrix. Ties go by `selectMasks`.
 *
 * N:M on the way to its sparsity prunes the weights of least score too, but never more than M − N of a group: those that
 * the end will prune, were scores to stay. Within 0.01 of 1 − N/M exactly M − N of every group are pruned.
 *
 * Throws InputError for a sparsity outside [0, 1] or above that of N:M, and for scores that are not numbers.
 */
export function pruneMasks(
  matrices: readonly PrunableMatrix[],
  request: PruningRequest,
): Map<string, Uint32Array> {
  const { pattern, scope, sparsity, previous } = request;
  checkSparsity(sparsity, pattern);
  const select = (group: readonly PrunableMatrix[]) => {
    const lists = group.map((matrix) => scoreList(matrix, request));
    return selectMasks(lists, prunedCount(lists, sparsity, pattern));
  };
  const blockMasks = scope === "global" ? select(matrices) : matrices.flatMap((matrix) => select([matrix]));
  return new Map(matrices.map((matrix, index) => {
    const mask = expandBlockMask(blockMasks[index], pattern, matrix);
    // A mask of another pattern may have pruned part of a block that is kept now.
    previous?.get(matrix.name)?.forEach((word, at) => mask[at] &= word);
    return [matrix.name, mask];
  }));
}

/** The blocks of a matrix as they compete. */
function scoreList(matrix: PrunableMatrix, { method, pattern, previous }: PruningRequest): ScoreList {
  const { name } = matrix;
  const mask = previous?.get(name);
  checkSizes(matrix, mask);
  const grid = blockGrid(pattern, matrix);
  const scores = method.score(matrix, pattern);
  if (scores.values.length !== grid.rows * grid.columns) {
    throw new RangeError(
      `Cannot prune ${name} [${matrix.rows}, ${matrix.columns}]: there are ${scores.values.length} scores ` +
        `of ${grid.rows * grid.columns} blocks`,
    );
  }
  const list = { name, ...scores, previous: mask && collapseToBlocks(mask, pattern, matrix) };
  const group = weightGroup(pattern);
  return group ? { ...list, spared: sparedWeights(list, matrix, group) } : list;
}

/** How many blocks of lists that compete are pruned. */
function prunedCount(lists: readonly ScoreList[], sparsity: number, pattern: Pattern): number {
  const sum = (count: (list: ScoreList) => number) => lists.reduce((all, list) => all + count(list), 0);
  const blocks = sum(({ values }) => values.length);
  const spared = sum(({ spared }) => spared ? popcount(spared) : 0);
  return Math.min(blocks - spared, countToPrune(pattern, sparsity, blocks));
}

/** How many of so many blocks a sparsity asks for: all, of which N:M lets only some, at the end of its way. */
export function countToPrune(pattern: Pattern, sparsity: number, blocks: number): number {
  const isWhole = weightGroup(pattern) && sparsity >= highestSparsity(pattern) - groupTolerance;
  return isWhole ? blocks : Math.round(sparsity * blocks);
}

function checkSparsity(sparsity: number, pattern: Pattern): void {
  if (!(sparsity >= 0 && sparsity <= 1)) {
    throw new InputError(`Cannot prune to sparsity ${sparsity}: wanted a number from 0 to 1`);
  }
  const highest = highestSparsity(pattern);
  if (sparsity > highest + groupTolerance) {
    throw new InputError(
      `Cannot prune to sparsity ${sparsity} in the pattern ${pattern}: wanted at most ${
        Number(highest.toFixed(4))
      }`,
    );
  }
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
