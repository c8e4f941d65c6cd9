/**
 * The sum over columns as plain loops, in float64; Float64Array in, Float64Array out.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";

/** sums[n] = Σ_c x[n, c] for a row-major [rows, columns] matrix. */
export function sumColumnsReference(
  rows: number,
  columns: number,
  x: NumberArray,
): Float32Array | Float64Array {
  const sums = x instanceof Float64Array ? new Float64Array(rows) : new Float32Array(rows);
  for (let n = 0; n < rows; n++) {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += x[n * columns + c];
    sums[n] = sum;
  }
  return sums;
}
