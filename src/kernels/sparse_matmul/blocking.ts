/**
 * How a sparse matrix is cut for the caches: the inputs a panel has and the rows a block has.
 *
 * Neither changes a result: every output is summed over its inputs in ascending order whatever the cuts.
 *
 * A kernel call walks the rows of a block over a panel of inputs, then over the next panel. A panel of activations
 * that stays in the first-level cache serves all rows of the block from there; but every visit of a row to a panel costs
 * a pass over y. Dense-equivalent GFLOP/s of one core at 90 % zeros, AVX-512, 48 KiB of first-level cache, four layers
 * of BERT-base in turn, so that weights come from beyond the second level and no branch is known from the run before:
 *
 * | inputs of a panel              | 96   | 128  | 192  | 384  | 768  |
 * | ------------------------------ | ---- | ---- | ---- | ---- | ---- |
 * | 128 columns, blocks of 96 rows | 735  | 752  | 739  | 714  | 670  |
 * | 16 columns, blocks of 96 rows  | 339  | 352  | 379  | 331  | 346  |
 * | 128 columns, 4x1, 192 rows     |      |      |      | 1297 | 1366 |
 *
 * Single weights in panels of 128 inputs ran at 704, 752 and 747 with blocks of 48, 96 and 192 rows; 4x1 blocks at 1314,
 * 1328 and 1366.
 * @module
 */
import { defaultPanelInputs, type SparsePattern } from "./pack.ts";

/** A matrix about to be packed. */
export interface MatrixToCut {
  /** What is stored or left out together. */
  readonly pattern: SparsePattern;
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly depth: number;
}

/** What runs it. */
export interface CacheTarget {
  /** f32 lanes of a vector. */
  readonly lanes: number;
  /** Columns of the usual tile. */
  readonly tile: number;
  /** Workers that share a layer. */
  readonly workers: number;
  /** First-level data cache of a core. */
  readonly levelOneBytes: number;
}

/** The cuts, as `structureOfBitmask` takes them. */
export interface Blocking {
  /** Inputs of a panel. */
  readonly panelInputs: number;
  /** Rows of an output block, a multiple of 4. */
  readonly blockRows: number;
}

/** Rows that a loaded panel should serve. With many of single weights, their results push it out of the cache. */
const wantedRows = { "unstructured": 96, "4x1": 192 } as const;

/** Least rows of a block that is cut so that workers can share evenly: below, loading panels shows. */
const leastRows = 96;

/** First-level caches that the activations of a panel would fill, in tiles of the usual width. */
const cachesPerPanel = 1;

/** Cuts a matrix. */
export function chooseBlocking(matrix: MatrixToCut, target: CacheTarget): Blocking {
  return { panelInputs: choosePanel(matrix, target), blockRows: chooseRows(matrix, target) };
}

function choosePanel({ pattern, depth }: MatrixToCut, target: CacheTarget): number {
  // Blocks load an input once for four rows, and four lanes ask for so little that the second level keeps up.
  if (pattern === "4x1" || target.lanes < 8) return defaultPanelInputs(depth);
  const limit = Math.max(1, Math.floor(cachesPerPanel * target.levelOneBytes / (4 * target.tile)));
  return Math.min(defaultPanelInputs(depth), Math.ceil(depth / Math.ceil(depth / limit)));
}

/** Blocks in a multiple of the workers, two for each where that leaves enough rows, so that uneven rows even out. */
function chooseRows({ pattern, rows }: MatrixToCut, { workers }: CacheTarget): number {
  const blocks = Math.max(1, rows / wantedRows[pattern], Math.min(2 * workers, rows / leastRows));
  const shared = Math.ceil(blocks / workers) * workers;
  return Math.max(4, Math.ceil(rows / shared / 4) * 4);
}
