/**
 * Pruning patterns: which weights of a [outputs, inputs] matrix are pruned together, or only so many of.
 *
 * A pattern of blocks cuts the matrix into blocks of `rows` outputs × `columns` inputs, numbered row-major over the grid of
 * blocks. Where a dimension is not a multiple of the block's, the last block is smaller; runs refuse such matrices
 * (`checkPattern`). A pattern N:M prunes single weights, and so that N of M consecutive inputs of an output are left.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { bitsetWords } from "./bitset.ts";

/**
 * Canonical name of a pattern, from `parsePattern`: `unstructured` prunes weights one by one; `4x1` four outputs of an input
 * together, `1x4` four inputs of an output, `[r,c]` r outputs × c inputs; `N:M` keeps N of M consecutive inputs of an output.
 */
export type Pattern = "unstructured" | "4x1" | "1x4" | `${number}:${number}` | `[${number},${number}]`;

/** Outputs × inputs of a block. */
export interface BlockShape {
  readonly rows: number;
  readonly columns: number;
}

/** Of `size` consecutive inputs of an output, `kept` are kept. */
export interface WeightGroup {
  readonly kept: number;
  readonly size: number;
}

const named = { "unstructured": [1, 1], "4x1": [4, 1], "1x4": [1, 4] } as const;

/** SparseML's names. */
const aliases: Readonly<Record<string, Pattern>> = { block4: "1x4", tensorrt: "2:4" };

/** A group of N:M has its weights in the bits of one word. */
const largestGroup = 32;

/** All that `parsePattern` takes, for help and messages. */
export const patternForms =
  `unstructured, 4x1, 1x4 (block4), [outputs,inputs] of a block such as [8,1], or N:M such as 2:4 (tensorrt) with ` +
  `N < M ≤ ${largestGroup}`;

/** The pattern of that name, by its canonical name. Throws InputError if there is none. */
export function parsePattern(name: string): Pattern {
  if (Object.hasOwn(named, name)) return name as Pattern;
  if (Object.hasOwn(aliases, name)) return aliases[name];
  const [, kept, size] = (/^([1-9]\d*):([1-9]\d*)$/.exec(name) ?? []).map(Number);
  if (kept < size && size <= largestGroup) return `${kept}:${size}`;
  const [, rows, columns] = (/^\[\s*([1-9]\d*)\s*,\s*([1-9]\d*)\s*\]$/.exec(name) ?? []).map(Number);
  if (Number.isSafeInteger(rows * columns)) {
    const same = Object.entries(named).find(([, shape]) => shape[0] === rows && shape[1] === columns);
    return same ? same[0] as Pattern : `[${rows},${columns}]`;
  }
  throw new InputError(
    `Unknown pruning pattern ${name}: wanted ${patternForms}`,
  );
}

/** The blocks of a pattern; those of N:M are single weights. */
export function blockShape(pattern: Pattern): BlockShape {
  if (Object.hasOwn(named, pattern)) {
    const [rows, columns] = named[pattern as keyof typeof named];
    return { rows, columns };
  }
  const [, rows, columns] = (/^\[(\d+),(\d+)\]$/.exec(pattern) ?? [0, 1, 1]).map(Number);
  return { rows, columns };
}

/** N and M; undefined for a pattern of blocks. */
export function weightGroup(pattern: Pattern): WeightGroup | undefined {
  const found = /^(\d+):(\d+)$/.exec(pattern);
  return found ? { kept: Number(found[1]), size: Number(found[2]) } : undefined;
}

/** The share of weights that a pattern can prune at most: 1 − N/M, or 1. */
export function highestSparsity(pattern: Pattern): number {
  const group = weightGroup(pattern);
  return group ? 1 - group.kept / group.size : 1;
}

/** How far from 1 − N/M a sparsity asked for may be, as in SparseML; the slack is for numbers such as 0.51. */
export const groupTolerance = 0.01 + 1e-9;

/** Throws InputError where N:M is to end at a sparsity that is not 1 − N/M within 0.01. */
export function checkFinalSparsity(pattern: Pattern, sparsity: number): void {
  if (!weightGroup(pattern)) return;
  const wanted = highestSparsity(pattern);
  if (Math.abs(sparsity - wanted) <= groupTolerance) return;
  throw new InputError(
    `Cannot prune to sparsity ${sparsity} in the pattern ${pattern}: wanted ${Number(wanted.toFixed(4))}`,
  );
}

/** Size of a matrix in weights. */
export interface MatrixShape {
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly columns: number;
}

/** Throws InputError at the first matrix that a pattern does not divide into whole blocks or groups. */
export function checkPattern(
  pattern: Pattern,
  matrices: Iterable<MatrixShape & { readonly name: string }>,
): void {
  const block = blockShape(pattern);
  const inputs = weightGroup(pattern)?.size ?? block.columns;
  for (const { name, rows, columns } of matrices) {
    if (rows % block.rows === 0 && columns % inputs === 0) continue;
    throw new InputError(
      `Cannot prune ${name} [${rows}, ${columns}] in the pattern ${pattern}: wanted ` +
        (rows % block.rows ? `outputs in multiples of ${block.rows}` : `inputs in multiples of ${inputs}`),
    );
  }
}

/** The grid of blocks a pattern makes of a matrix. */
export function blockGrid(pattern: Pattern, { rows, columns }: MatrixShape): MatrixShape {
  const block = blockShape(pattern);
  return { rows: Math.ceil(rows / block.rows), columns: Math.ceil(columns / block.columns) };
}

/** The mask of the weights, from the mask of the blocks: a weight is kept if its block is. */
export function expandBlockMask(blocks: Uint32Array, pattern: Pattern, matrix: MatrixShape): Uint32Array {
  const block = blockShape(pattern);
  if (block.rows * block.columns === 1) return blocks;
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
  const block = blockShape(pattern);
  if (block.rows * block.columns === 1) return weights;
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
