/**
 * How a sparse matrix is cut for the caches: the inputs a panel has and the rows a block has.
 *
 * Neither changes a result: every output is summed over its inputs in ascending order whatever the cuts.
 *
 * A kernel call walks a block of rows over a panel of inputs, then over the next panel. A panel of activations that
 * stays in the first-level cache serves all rows of the block from there; but every visit of a row to a panel costs a
 * mispredicted end of loop and a pass over y. Dense-equivalent GFLOP/s of one core, AVX-512, 48 KiB of first-level
 * cache, tiles of 64 columns, [768, 768] with single weights stored:
 *
 * | inputs of a panel | 64   | 128  | 192  | 256  | 384  | 768  |
 * | ----------------- | ---- | ---- | ---- | ---- | ---- | ---- |
 * | 80 % zeros        | 370  | 434  | 444  | 419  | 375  | 326  |
 * | 90 % zeros        | 601  | 803  | 856  | 821  | 757  | 675  |
 * | 95 % zeros        | 696  | 1379 | 1432 | 1453 | 1425 | 1340 |
 * | 90 %, 16 columns  | 149  | 272  | 351  | 402  | 432  | 358  |
 * | 90 %, 4x1 blocks  | 1289 | 1439 | 1526 | 1589 | 1643 | 1691 |
 *
 * The more rows share a loaded panel the better: 48, 96, 192 and 384 rows give 855, 901, 955 and 940 at 90 % zeros.
 *
 * Weights are packed once for long and short runs, so the panel is a compromise: twice the cache, 384 inputs here. In
 * whole models, whose weights come from beyond the second level, that was measured against panels of 768 inputs and
 * blocks of 48 rows as 6 % (BERT-base) and 3 % (MiniLM) less time in sparse layers for 128 tokens and 3 % less for 16;
 * panels of 256 would gain another 4 % for 128 tokens and lose 20 % for 16. A search at load would have to settle the
 * same conflict, so there is none.
 * @module
 */
import { defaultPanelInputs, type SparsePattern } from "../kernels/sparse_matmul/pack.ts";

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

/** Rows that a loaded panel should serve. */
const wantedRows = 192;

/** Least rows of a block that is cut so that workers can share evenly: below, loading panels shows. */
const leastRows = 96;

/** First-level caches that the activations of a panel would fill, in tiles of the usual width. */
const cachesPerPanel = 2;

/** Cuts a matrix. */
export function chooseBlocking(matrix: MatrixToCut, target: CacheTarget): Blocking {
  return { panelInputs: choosePanel(matrix, target), blockRows: chooseRows(matrix.rows, target.workers) };
}

function choosePanel({ pattern, depth }: MatrixToCut, target: CacheTarget): number {
  // Blocks load an input once for four rows, and four lanes ask for so little that the second level keeps up.
  if (pattern === "4x1" || target.lanes < 8) return defaultPanelInputs(depth);
  const limit = Math.max(1, Math.floor(cachesPerPanel * target.levelOneBytes / (4 * target.tile)));
  return Math.min(defaultPanelInputs(depth), Math.ceil(depth / Math.ceil(depth / limit)));
}

/** Blocks in a multiple of the workers, two for each where that leaves enough rows, so that uneven rows even out. */
function chooseRows(rows: number, workers: number): number {
  const blocks = Math.max(1, rows / wantedRows, Math.min(2 * workers, rows / leastRows));
  const shared = Math.ceil(blocks / workers) * workers;
  return Math.max(4, Math.ceil(rows / shared / 4) * 4);
}
