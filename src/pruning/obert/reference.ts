/**
 * oBERT by its definitions, in f64: inverses in full, once by the paper's rank-one updates.
 * @module
 */

/** A square matrix, row-major. */
export type Square = Float64Array;

/** F = (1/m) Σ g gᵀ + damp · I over m gradients. */
export function fisherMatrix(gradients: readonly ArrayLike<number>[], damp: number): Square {
  const size = gradients[0].length;
  const matrix = new Float64Array(size * size);
  for (const gradient of gradients) {
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) matrix[i * size + j] += gradient[i] * gradient[j] / gradients.length;
    }
  }
  for (let i = 0; i < size; i++) matrix[i * size + i] += damp;
  return matrix;
}

/** A⁻¹ by Gauss–Jordan elimination with the largest pivot of each column. */
export function invert(matrix: Square): Square {
  const size = Math.sqrt(matrix.length);
  const rows = Array.from({ length: size }, (_, row) => [
    ...matrix.subarray(row * size, (row + 1) * size),
    ...Array.from({ length: size }, (_, column) => Number(row === column)),
  ]);
  for (let column = 0; column < size; column++) {
    let pivot = column;
    for (let row = column; row < size; row++) {
      if (Math.abs(rows[row][column]) > Math.abs(rows[pivot][column])) pivot = row;
    }
    [rows[column], rows[pivot]] = [rows[pivot], rows[column]];
    const head = rows[column][column];
    rows[column] = rows[column].map((value) => value / head);
    for (let row = 0; row < size; row++) {
      if (row === column) continue;
      const factor = rows[row][column];
      rows[row] = rows[row].map((value, at) => value - factor * rows[column][at]);
    }
  }
  return Float64Array.from(rows.flatMap((row) => row.slice(size)));
}

/**
 * F⁻¹ by one rank-one update a gradient (Woodbury), beginning with I / damp:
 *
 *     F⁻¹ ← F⁻¹ − (F⁻¹ g)(F⁻¹ g)ᵀ / (m + gᵀ F⁻¹ g)
 */
export function inverseByUpdates(gradients: readonly ArrayLike<number>[], damp: number): Square {
  const size = gradients[0].length;
  const inverse = new Float64Array(size * size);
  for (let i = 0; i < size; i++) inverse[i * size + i] = 1 / damp;
  for (const gradient of gradients) {
    const product = times(inverse, gradient);
    let denominator = gradients.length;
    for (let i = 0; i < size; i++) denominator += gradient[i] * product[i];
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) inverse[i * size + j] -= product[i] * product[j] / denominator;
    }
  }
  return inverse;
}

/** A · x */
export function times(matrix: Square, x: ArrayLike<number>): Float64Array {
  return Float64Array.from(x, (_, row) => {
    let sum = 0;
    for (let column = 0; column < x.length; column++) sum += matrix[row * x.length + column] * x[column];
    return sum;
  });
}

/** ½ w_Qᵀ (F⁻¹_QQ)⁻¹ w_Q, and the change −F⁻¹[:, Q] (F⁻¹_QQ)⁻¹ w_Q of all weights, for the unit Q. */
export function surgeon(
  inverse: Square,
  weights: ArrayLike<number>,
  unit: readonly number[],
): { cost: number; change: Float64Array } {
  const size = weights.length;
  const part = Float64Array.from(unit.flatMap((row) => unit.map((column) => inverse[row * size + column])));
  const solution = times(invert(part), unit.map((at) => weights[at]));
  const cost = unit.reduce((sum, at, index) => sum + weights[at] * solution[index] / 2, 0);
  const spread = new Float64Array(size);
  unit.forEach((at, index) => spread[at] = -solution[index]);
  return { cost, change: times(inverse, spread) };
}

/** ½ δwᵀ F δw: what a change of the weights costs in the quadratic model. */
export function quadraticCost(fisher: Square, change: Float64Array): number {
  return times(fisher, change).reduce((sum, value, at) => sum + value * change[at] / 2, 0);
}

/** The matrix that `factorFisher`'s result stands for: Rᵀ · R. */
export function inverseOfFactor(factor: ArrayLike<number>, offset: number, size: number): Square {
  const inverse = new Float64Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let i = 0; i <= row; i++) {
      for (let j = 0; j <= row; j++) {
        inverse[i * size + j] += factor[offset + row * size + i] * factor[offset + row * size + j];
      }
    }
  }
  return inverse;
}
