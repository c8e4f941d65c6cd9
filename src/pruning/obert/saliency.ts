/**
 * Optimal Brain Surgeon by blocks (oBERT, Kurtic et al., arXiv 2203.07259): what it costs to prune weights when the others
 * make up for them, and how they do.
 *
 * With the quadratic model ½ δwᵀ F δw of the loss, pruning a unit Q costs ½ w_Qᵀ (F⁻¹_QQ)⁻¹ w_Q (of a single weight:
 * w² / 2 F⁻¹_qq), and the best change of all weights is −F⁻¹[:, Q] (F⁻¹_QQ)⁻¹ w_Q.
 *
 * Of several units the paper sums up the changes, each as if it were pruned alone. That is nearly the best while few weights of
 * a Fisher block go at a time. Where many do that depend on each other the changes add up to too much, so that the weights may
 * end worse than left alone; taking all of them for one unit (`jointly`) is best in the quadratic model always.
 * @module
 */
import type { FisherPlaces } from "./places.ts";

/** A Fisher block with what belongs to it. Arrays are of the whole matrix. */
export interface FisherBlock {
  /** The factor R of F⁻¹ = Rᵀ·R: lower triangle from `offset`, as `factorFisher` leaves it. */
  readonly factor: Float32Array | Float64Array;
  readonly offset: number;
  /** Weights by place; the block's begin at `place`. */
  readonly weights: Float32Array | Float64Array;
  readonly place: number;
  /** Units in the block; the last block of a matrix may have fewer than the others. */
  readonly units: number;
}

/** Memory for what goes on inside. */
export class SaliencyScratch {
  readonly inverse: Float64Array;
  readonly solution: Float64Array;
  readonly change: Float64Array;
  readonly product: Float64Array;

  constructor({ size }: Pick<FisherPlaces, "size">) {
    this.inverse = new Float64Array(size * size);
    this.solution = new Float64Array(size);
    this.change = new Float64Array(size);
    this.product = new Float64Array(size);
  }
}

/** The i-th Fisher block of a matrix. */
export function fisherBlock(
  { size, units, unitsPerBlock }: FisherPlaces,
  index: number,
  { factor, weights }: Pick<FisherBlock, "factor" | "weights">,
): FisherBlock {
  return {
    factor,
    offset: index * size * size,
    weights,
    place: index * size,
    units: Math.min(unitsPerBlock, units - index * unitsPerBlock),
  };
}

/** Writes what it costs to prune each unit of a block to `scores`, from `first` on. */
export function scoreUnits(
  block: FisherBlock,
  { unitSize, size }: Pick<FisherPlaces, "unitSize" | "size">,
  scores: Float32Array | Float64Array,
  first: number,
  scratch: SaliencyScratch,
): void {
  const { weights, place, units } = block;
  for (let unit = 0; unit < units; unit++) {
    const members = placesOf(unit, unitSize);
    solve(block, members, size, scratch);
    scores[first + unit] = members.reduce((sum, at, i) =>
      sum + weights[place + at] * scratch.solution[i], 0) / 2;
  }
}

/**
 * Prunes units of a block, and changes its other weights to make up for them. `isRemoved` says by the unit's number in the
 * block which are pruned now. Weights that were pruned before, and were when the factor was made, stay 0.
 *
 * `jointly`: the weights make up for all of the units together, instead of the sum over each of them alone.
 */
export function removeUnits(
  block: FisherBlock,
  { unitSize, size }: Pick<FisherPlaces, "unitSize" | "size">,
  isRemoved: (unit: number) => boolean,
  jointly: boolean,
  scratch: SaliencyScratch,
): void {
  const { factor, offset, weights, place, units } = block;
  const { change, product, solution } = scratch;
  const removed: number[][] = [];
  for (let unit = 0; unit < units; unit++) {
    if (isRemoved(unit)) removed.push(placesOf(unit, unitSize));
  }
  if (removed.length === 0) return;
  const first = removed[0][0];
  change.fill(0);
  for (const members of jointly ? [removed.flat()] : removed) {
    solve(block, members, size, scratch);
    members.forEach((at, i) => change[at] = solution[i]);
  }
  // change = Rᵀ · (R · change): R's columns before the first that is asked for meet zeros.
  for (let row = first; row < size; row++) {
    let sum = 0;
    for (let column = first; column <= row; column++) {
      sum += factor[offset + row * size + column] * change[column];
    }
    product[row] = sum;
  }
  change.fill(0);
  for (let row = first; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      change[column] += factor[offset + row * size + column] * product[row];
    }
  }
  for (let at = 0; at < size; at++) weights[place + at] -= change[at];
  for (const at of removed.flat()) weights[place + at] = 0;
}

/** The places of a unit in its block. */
function placesOf(unit: number, unitSize: number): number[] {
  return Array.from({ length: unitSize }, (_, i) => unit * unitSize + i);
}

/** solution = (F⁻¹_QQ)⁻¹ w_Q for places Q of the block, in rising order. */
function solve(
  { factor, offset, weights, place }: FisherBlock,
  members: readonly number[],
  size: number,
  { inverse, solution }: SaliencyScratch,
): void {
  const count = members.length;
  for (let i = 0; i < count; i++) {
    const a = members[i];
    for (let j = 0; j <= i; j++) {
      const b = members[j];
      let sum = 0;
      // R is lower triangular: column a begins at row a ≥ b.
      for (let at = offset + a * size; at < offset + size * size; at += size) {
        sum += factor[at + a] * factor[at + b];
      }
      inverse[i * count + j] = sum;
    }
    solution[i] = weights[place + a];
  }
  solveSymmetric(inverse, solution, count);
}

/** x = A⁻¹ x for a positive definite A, of which the lower triangle is given and destroyed: A = L·D·Lᵀ. */
function solveSymmetric(a: Float64Array, x: Float64Array, size: number): void {
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < row; column++) {
      // a[row][k] holds L·D until the row is done.
      let sum = a[row * size + column];
      for (let k = 0; k < column; k++) sum -= a[row * size + k] * a[column * size + k];
      a[row * size + column] = sum;
    }
    for (let column = 0; column < row; column++) {
      const scaled = a[row * size + column];
      const factor = scaled / a[column * size + column];
      a[row * size + row] -= scaled * factor;
      a[row * size + column] = factor;
      x[row] -= factor * x[column];
    }
  }
  for (let row = size - 1; row >= 0; row--) {
    x[row] /= a[row * size + row];
    for (let below = row + 1; below < size; below++) x[row] -= a[below * size + row] * x[below];
  }
}
