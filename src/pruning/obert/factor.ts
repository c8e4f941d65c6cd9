/**
 * The inverse of a block of the damped empirical Fisher matrix, as a triangular factor.
 *
 * With F = L·Lᵀ (Cholesky) and R = L⁻¹, F⁻¹ = Rᵀ·R. R takes a third of the operations that F⁻¹ would, and those of m
 * rank-one updates of an inverse (Woodbury, as the paper has it) are m / size times as many as either; F is positive
 * definite by its damping, so nothing can fail but the arithmetic, which is in f64.
 * @module
 */

/** What makes a Fisher matrix of a sum of outer products. */
export interface FisherScale {
  /** 1 / gradients summed up. */
  readonly scale: number;
  /** Added to the diagonal; above 0. */
  readonly damp: number;
}

/** Writes into scratch memory of size² numbers, so that many blocks need one. */
export type Factorization = Float64Array;

/**
 * Replaces a block's sums by R: lower triangle, row-major, [size, size] from `offset` of `sums`. What lies above the
 * diagonal is neither read nor written. F = scale · sums + damp · I, without the rows and columns of the places whose
 * `isPruned` is not 0, which keep damp alone: as if their gradients had been 0.
 *
 * Gives false, and leaves the block undefined, when sums are not finite.
 */
export function factorFisher(
  sums: Float32Array | Float64Array,
  offset: number,
  size: number,
  { scale, damp }: FisherScale,
  isPruned: ArrayLike<number>,
  scratch: Factorization,
): boolean {
  for (let row = 0; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      const isCut = isPruned[row] !== 0 || isPruned[column] !== 0;
      scratch[row * size + column] = (isCut ? 0 : scale * sums[offset + row * size + column]) +
        (row === column ? damp : 0);
    }
  }
  if (!choleskyInPlace(scratch, size)) return false;
  invertLowerInPlace(scratch, size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      sums[offset + row * size + column] = scratch[row * size + column];
    }
  }
  return true;
}

/**
 * L over the lower triangle of F. False for what is not positive definite, NaN included. Here and below the inner loops change
 * one number after the other, instead of adding up one: sums would wait for themselves.
 */
function choleskyInPlace(a: Float64Array, size: number): boolean {
  for (let row = 0; row < size; row++) {
    const at = row * size;
    let pivot = a[at + row];
    for (let k = 0; k < row; k++) {
      const value = a[at + k] / a[k * size + k];
      a[at + k] = value;
      pivot -= value * value;
      for (let column = k + 1; column < row; column++) a[at + column] -= value * a[column * size + k];
    }
    if (!(pivot > 0 && pivot < Infinity)) return false;
    a[at + row] = Math.sqrt(pivot);
  }
  return true;
}

/** L⁻¹ over L: each row from L's row and the rows of the inverse above it. */
function invertLowerInPlace(a: Float64Array, size: number): void {
  for (let row = 0; row < size; row++) {
    const at = row * size;
    const diagonal = 1 / a[at + row];
    for (let k = 0; k < row; k++) {
      const value = -diagonal * a[at + k];
      a[at + k] = value * a[k * size + k];
      for (let column = 0; column < k; column++) a[at + column] += value * a[k * size + column];
    }
    a[at + row] = diagonal;
  }
}
