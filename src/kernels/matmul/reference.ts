/**
 * Matrix products as plain loops: the definition, and the oracle of the kernels.
 *
 * Sums are formed in float64 whatever the operands; the result is Float64Array when the first operand is,
 * so that gradients can be checked by central differences.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";
import { gelu } from "../gelu/reference.ts";

/** Applied to a product plus bias, before the addend. */
export type Activation = "none" | "gelu";

/** Sizes and options of `matmulReference`. */
export interface MatmulShape {
  /** Output features, N. */
  readonly rows: number;
  /** Input features, K. */
  readonly depth: number;
  readonly columns: number;
  /** Whether the weight is stored [depth, rows] instead of [rows, depth]. */
  readonly transposed: boolean;
  readonly activation: Activation;
}

/** An array for results as precise as `like`. */
export function resultArray(like: NumberArray, length: number): Float32Array | Float64Array {
  return like instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}

/** y[n, c] = act(Σ_k op(weight)[n, k] · x[k, c] + bias[n]) + addend[n, c]; matrices row-major. */
export function matmulReference(
  { rows, depth, columns, transposed, activation }: MatmulShape,
  x: NumberArray,
  weight: NumberArray,
  bias: NumberArray | undefined,
  addend: NumberArray | undefined,
): Float32Array | Float64Array {
  const y = resultArray(x, rows * columns);
  const [rowStride, depthStride] = transposed ? [1, rows] : [depth, 1];
  for (let n = 0; n < rows; n++) {
    for (let c = 0; c < columns; c++) {
      let sum = bias ? bias[n] : 0;
      for (let k = 0; k < depth; k++) sum += weight[n * rowStride + k * depthStride] * x[k * columns + c];
      const activated = activation === "gelu" ? gelu(sum) : sum;
      y[n * columns + c] = activated + (addend ? addend[n * columns + c] : 0);
    }
  }
  return y;
}

/** gradWeight[n, k] = Σ_c gradY[n, c] · x[k, c]; matrices row-major. */
export function matmulWeightGradientReference(
  rows: number,
  depth: number,
  columns: number,
  gradY: NumberArray,
  x: NumberArray,
): Float32Array | Float64Array {
  const gradWeight = resultArray(gradY, rows * depth);
  for (let n = 0; n < rows; n++) {
    for (let k = 0; k < depth; k++) {
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += gradY[n * columns + c] * x[k * columns + c];
      gradWeight[n * depth + k] = sum;
    }
  }
  return gradWeight;
}
