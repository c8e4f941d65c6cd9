/**
 * The matrix product as shaders see it: one form for the linear layer and both of its gradients.
 *
 *     result[i, j] = act(Σ_k A[i, k] · B[k, j] + bias[j]) + addend[i, j]
 *
 * | product            | result    | A                       | B                          |
 * | ------------------ | --------- | ----------------------- | -------------------------- |
 * | linear layer       | y [C, N]  | x [C, K]                | W [N, K], transposed       |
 * | gradient of x      | dX [C, K] | dY [C, N]               | W [N, K]                   |
 * | gradient of weight | dW [N, K] | dY [C, N], transposed   | x [C, K]                   |
 * @module
 */
import type { Activation } from "./reference.ts";

/** Sizes and options of a product. Matrices are row-major. */
export interface Product {
  /** Rows of the result, I. */
  readonly rows: number;
  /** Columns of the result, J. */
  readonly columns: number;
  /** Terms of each sum, K. */
  readonly depth: number;
  /** Whether A lies [depth, rows] in memory instead of [rows, depth]. */
  readonly aTransposed: boolean;
  /** Whether B lies [columns, depth] in memory instead of [depth, columns]. */
  readonly bTransposed: boolean;
  readonly bias: boolean;
  readonly addend: boolean;
  readonly activation: Activation;
}

/**
 * What operands are rounded to before they are multiplied. Sums are float32 in both cases, and the product of two float16 numbers
 * fits a float32, so rounding the operands is all that `fp16` changes: the arithmetic of tensor cores. Operands beyond
 * ±65504 become infinite.
 */
export type ProductPrecision = "fp32" | "fp16";

/** What the code of a product depends on: not its sizes, which vary from batch to batch, but what they are multiples of. */
export interface ProductTraits extends Pick<Product, "aTransposed" | "bTransposed" | "activation"> {
  readonly bias: boolean;
  readonly addend: boolean;
  /** Whether the rows of A, of B and of the result in memory are whole `vec4f`s. */
  readonly aVectors: boolean;
  readonly bVectors: boolean;
  readonly resultVectors: boolean;
  /** Whether the depth is not a multiple of the depth step. */
  readonly depthTail: boolean;
}

/** The traits of a product that walks its depth in steps of `depthStep`. */
export function productTraits(product: Product, depthStep: number): ProductTraits {
  const { rows, columns, depth, aTransposed, bTransposed, bias, addend, activation } = product;
  return {
    aTransposed,
    bTransposed,
    bias,
    addend,
    activation,
    aVectors: (aTransposed ? rows : depth) % 4 === 0,
    bVectors: (bTransposed ? depth : columns) % 4 === 0,
    resultVectors: columns % 4 === 0,
    depthTail: depth % depthStep !== 0,
  };
}

/** Names the traits, in the letters of BLAS where it has some: `nt_v4v4v4_bias_gelu` is a linear layer before a GELU. */
export function traitsKey(traits: ProductTraits): string {
  const { aTransposed, bTransposed, aVectors, bVectors, resultVectors } = traits;
  const { bias, addend, activation, depthTail } = traits;
  return [
    `${aTransposed ? "t" : "n"}${bTransposed ? "t" : "n"}`,
    [aVectors, bVectors, resultVectors].map((vectors) => vectors ? "v4" : "v1").join(""),
    bias && "bias",
    activation !== "none" && activation,
    addend && "addend",
    depthTail && "tail",
  ].filter(Boolean).join("_");
}
