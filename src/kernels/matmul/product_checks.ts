/**
 * Products on the GPU against plain loops: for tests.
 * @module
 */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { gelu } from "../gelu/reference.ts";
import type { BufferRange, Shader } from "../shader.ts";
import { runCalls, testGpu } from "../shader_conformance.ts";
import { partialsBytes, productCalls } from "./wgsl.ts";
import type { MatmulChoice } from "./wgsl_choice.ts";
import type { Product, ProductPrecision } from "./wgsl_product.ts";

/** A product with nothing but its operands. */
export const plain = {
  aTransposed: false,
  bTransposed: false,
  bias: false,
  addend: false,
  activation: "none",
} as const;

/** Tokens × features × depth in each order, in whole `vec4f`s and not, with depths that no step divides. */
export const products: readonly Product[] = [
  { ...plain, rows: 33, columns: 12, depth: 20, bTransposed: true },
  {
    ...plain,
    rows: 133,
    columns: 140,
    depth: 36,
    bTransposed: true,
    bias: true,
    addend: true,
    activation: "gelu",
  },
  { ...plain, rows: 5, columns: 131, depth: 7, bTransposed: true, bias: true, addend: true },
  { ...plain, rows: 64, columns: 72, depth: 32, addend: true },
  { ...plain, rows: 3, columns: 67, depth: 41 },
  { ...plain, rows: 132, columns: 76, depth: 64, aTransposed: true },
  { ...plain, rows: 71, columns: 1, depth: 35, aTransposed: true },
];

/** What a product is of. */
export interface ProductOperands {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly bias?: Float32Array;
  readonly addend?: Float32Array;
}

/** Normal numbers. */
export function normalOperands(
  { rows, columns, depth, bias, addend }: Product,
  seed: number,
): ProductOperands {
  const random = new RandomStream(randomKey(seed, "product", rows));
  const normals = (count: number) => Float32Array.from({ length: count }, () => random.normal());
  return {
    a: normals(rows * depth),
    b: normals(depth * columns),
    ...(bias && { bias: normals(columns) }),
    ...(addend && { addend: normals(rows * columns) }),
  };
}

/** The product in float64 of operands as `precision` rounds them, and Σ_k |A·B| for error bounds. */
function productReference(
  { rows, columns, depth, aTransposed, bTransposed, activation }: Product,
  { a, b, bias, addend }: ProductOperands,
  precision: ProductPrecision,
): { readonly result: Float64Array; readonly magnitudes: Float64Array } {
  const rounded = (value: number) => precision === "fp16" ? Math.f16round(value) : value;
  const result = new Float64Array(rows * columns);
  const magnitudes = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      let magnitude = 0;
      for (let k = 0; k < depth; k++) {
        const term = rounded(a[aTransposed ? k * rows + i : i * depth + k]) *
          rounded(b[bTransposed ? j * depth + k : k * columns + j]);
        sum += term;
        magnitude += Math.abs(term);
      }
      const biased = sum + (bias ? bias[j] : 0);
      const activated = activation === "gelu" ? gelu(biased) : biased;
      result[i * columns + j] = activated + (addend ? addend[i * columns + j] : 0);
      magnitudes[i * columns + j] = magnitude;
    }
  }
  return { result, magnitudes };
}

/** Makes of a shader one that the GPU of the tests can run. */
export type ShaderChange = (shader: Shader) => Shader;

/** Runs a product in a chosen way; undefined where there is no GPU. */
async function runProduct(
  product: Product,
  choice: MatmulChoice,
  { a, b, bias, addend }: ProductOperands,
  change: ShaderChange,
): Promise<Float32Array | undefined> {
  const gpu = await testGpu();
  if (!gpu) return undefined;
  const arrays = [a, b, bias, addend].filter((array) => array !== undefined);
  const sizes: number[] = [];
  const place = (byteLength: number): BufferRange => ({
    buffer: sizes.push(byteLength) - 1,
    byteOffset: 256,
    byteLength,
  });
  const operands = arrays.map((array) => place(array.byteLength));
  const result = place(product.rows * product.columns * 4);
  const [partials] = partialsBytes(product, choice).map(place);
  const calls = productCalls(product, choice, { operands, result, partials }, gpu.target)
    .map((call) => ({ ...call, shader: change(call.shader) }));
  const contents = new Map(arrays.map((array, buffer) => [buffer, new Uint32Array(array.buffer)]));
  const [words] = await runCalls(gpu, calls, sizes, contents, [result], 0x7fa1b2c3);
  return new Float32Array(words.buffer, words.byteOffset, words.length);
}

/** Checks a product done in a chosen way against plain loops, and gives it. */
export async function checkProduct(
  product: Product,
  choice: MatmulChoice,
  operands = normalOperands(product, 7),
  change: ShaderChange = (shader) => shader,
): Promise<Float32Array | undefined> {
  const { configuration: { name, precision }, shares } = choice;
  const found = await runProduct(product, choice, operands, change);
  if (!found) return undefined;
  const { result, magnitudes } = productReference(product, operands, precision);
  result.forEach((wanted, index) => {
    const value = found[index];
    // Half a unit in the last place for each term and its sum, and what the epilogue's erf may be off by.
    const bound = 6e-8 * (product.depth + 2) * magnitudes[index] + 2e-6 * (1 + Math.abs(wanted));
    assert(
      Object.is(value, wanted) || Math.abs(value - wanted) <= bound && Number.isFinite(wanted),
      `${name}, ${shares} shares, ${
        JSON.stringify(product)
      }: element ${index} is ${value}, wanted ${wanted} within ${bound}`,
    );
  });
  return found;
}
