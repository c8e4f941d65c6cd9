/**
 * The sparse product as plain loops over the stored weights, in float64; Float64Array in, Float64Array out.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";
import { gelu } from "../gelu/reference.ts";
import { type Activation, resultArray } from "../matmul/reference.ts";
import { forEachPosition, type PackedStructure, valueCount } from "./pack.ts";

/** Packed weights as two operands. */
export interface PackedOperands {
  readonly structure: PackedStructure;
  /** The stored weights. */
  readonly values: NumberArray;
  readonly indices: Uint8Array;
}

/**
 * y[n, c] = act(bias[n] + Σ weight[n, k] · x[k, c] over stored weights) + addend[n, c]; matrices row-major.
 *
 * A weight that is not stored contributes nothing, even where x is NaN or infinite; a zero inside a stored 4x1 block
 * multiplies like any weight.
 */
export function sparseMatmulReference(
  { structure, values, indices }: PackedOperands,
  activation: Activation,
  columns: number,
  x: NumberArray,
  bias: NumberArray | undefined,
  addend: NumberArray | undefined,
): Float32Array | Float64Array {
  const sums = Float64Array.from(
    { length: structure.rows * columns },
    (_, i) => bias?.[Math.floor(i / columns)] ?? 0,
  );
  forEachPosition(indices, structure, (row, input, position) => {
    const weight = values[position];
    for (let c = 0; c < columns; c++) sums[row * columns + c] += weight * x[input * columns + c];
  });
  const y = resultArray(x, sums.length);
  sums.forEach((sum, i) => y[i] = (activation === "gelu" ? gelu(sum) : sum) + (addend ? addend[i] : 0));
  return y;
}

/**
 * gradValues[e] = Σ_c gradY[row(e), c] · x[input(e), c] for every stored weight e, in packed order; 0 for values that
 * belong to no row. Matrices row-major.
 */
export function sparseWeightGradientReference(
  structure: PackedStructure,
  columns: number,
  gradY: NumberArray,
  x: NumberArray,
  indices: Uint8Array,
): Float32Array | Float64Array {
  const gradValues = resultArray(gradY, valueCount(structure));
  forEachPosition(indices, structure, (row, input, position) => {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += gradY[row * columns + c] * x[input * columns + c];
    gradValues[position] = sum;
  });
  return gradValues;
}

/** gradX[k, c] = Σ weight[n, k] · gradY[n, c] over stored weights + addend[k, c]; matrices row-major. */
export function sparseInputGradientReference(
  { structure, values, indices }: PackedOperands,
  columns: number,
  gradY: NumberArray,
  addend: NumberArray | undefined,
): Float32Array | Float64Array {
  const sums = Float64Array.from({ length: structure.depth * columns }, (_, i) => addend ? addend[i] : 0);
  forEachPosition(indices, structure, (row, input, position) => {
    const weight = values[position];
    for (let c = 0; c < columns; c++) sums[input * columns + c] += weight * gradY[row * columns + c];
  });
  const gradX = resultArray(gradY, sums.length);
  gradX.set(sums);
  return gradX;
}
