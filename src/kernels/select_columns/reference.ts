/**
 * Selecting columns of a matrix, and the gradient, as plain loops: the definition. Matrices are row-major.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";

/** y[f, s] = x[f, columns[s]], 0 where columns[s] is −1. x is [features, xColumns]. */
export function selectColumnsReference(
  x: NumberArray,
  columns: NumberArray,
  features: number,
  xColumns: number,
): NumberArray {
  const y = zerosLike(x, features * columns.length);
  for (let feature = 0; feature < features; feature++) {
    columns.forEach((column: number, s: number) => {
      if (column >= 0) y[feature * columns.length + s] = x[feature * xColumns + column];
    });
  }
  return y;
}

/** gradX[f, c] = Σ gradY[f, s] over the s, in order, with columns[s] = c. gradX is [features, xColumns]. */
export function selectColumnsGradientReference(
  gradY: NumberArray,
  columns: NumberArray,
  features: number,
  xColumns: number,
): NumberArray {
  const gradX = zerosLike(gradY, features * xColumns);
  for (let feature = 0; feature < features; feature++) {
    columns.forEach((column: number, s: number) => {
      if (column >= 0) gradX[feature * xColumns + column] += gradY[feature * columns.length + s];
    });
  }
  return gradX;
}

function zerosLike(source: NumberArray, length: number): NumberArray {
  return source instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}
