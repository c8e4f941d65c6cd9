/**
 * Every way to compute a product on the GPU, also those that this GPU would not take, against plain loops; and the choice.
 * @module
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import { gelu } from "../gelu/reference.ts";
import type { BufferRange, ShaderTarget } from "../shader.ts";
import { runCalls, testGpu } from "../shader_conformance.ts";
import { partialsBytes, productCalls } from "./wgsl.ts";
import { chooseMatmulConfiguration, matmulCandidates, type MatmulChoice } from "./wgsl_choice.ts";
import {
  configurationInvocations,
  configurationWorkgroupBytes,
  type MatmulConfiguration,
  matmulConfigurations,
} from "./wgsl_configurations.ts";
import type { Product, ProductPrecision } from "./wgsl_product.ts";

const h100: ShaderTarget = {
  isSoftware: false,
  maxInvocations: 1024,
  maxWorkgroupBytes: 48 << 10,
  maxWorkgroupsPerDimension: 65535,
  maxBindingBytes: 2 ** 31 - 4,
  f16: true,
  columnGrain: 32,
};

const plain = {
  aTransposed: false,
  bTransposed: false,
  bias: false,
  addend: false,
  activation: "none",
} as const;

/** Tokens × features × depth in each order, in whole `vec4f`s and not, with depths that no step divides. */
const products: readonly Product[] = [
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

/** Several tiles of 128 × 128 with an edge on each side. */
const awkward: Product = {
  ...plain,
  rows: 133,
  columns: 140,
  depth: 44,
  bTransposed: true,
  bias: true,
  addend: true,
};

interface ProductOperands {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly bias?: Float32Array;
  readonly addend?: Float32Array;
}

function normalOperands({ rows, columns, depth, bias, addend }: Product, seed: number): ProductOperands {
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

/** Runs a product in a chosen way; undefined where there is no GPU. */
async function runProduct(
  product: Product,
  choice: MatmulChoice,
  { a, b, bias, addend }: ProductOperands,
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
  const calls = productCalls(product, choice, { operands, result, partials }, gpu.target);
  const contents = new Map(arrays.map((array, buffer) => [buffer, new Uint32Array(array.buffer)]));
  const [words] = await runCalls(gpu, calls, sizes, contents, [result], 0x7fa1b2c3);
  return new Float32Array(words.buffer, words.byteOffset, words.length);
}

/** Checks a product done in a chosen way, and gives it. */
async function checkProduct(
  product: Product,
  choice: MatmulChoice,
  operands = normalOperands(product, 7),
): Promise<Float32Array | undefined> {
  const { configuration: { name, precision }, shares } = choice;
  const found = await runProduct(product, choice, operands);
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

/** The configurations that software compiles fastest, of each kind: every trait of a product is tried in these. */
function quick({ tileRows, tileColumns }: MatmulConfiguration): boolean {
  return tileRows * tileColumns === 32 * 32;
}

for (const precision of ["fp32", "fp16"] as const) {
  Deno.test(`small tiles in ${precision} agree with plain loops for every kind of product`, async (t) => {
    const gpu = await testGpu();
    if (!gpu || precision === "fp16" && !gpu.target.f16) return;
    for (const configuration of matmulConfigurations(gpu.target, precision).filter(quick)) {
      await t.step(configuration.name, async () => {
        for (const product of products) await checkProduct(product, { configuration, shares: 1 });
      });
    }
  });
}

Deno.test("every configuration agrees with plain loops, the tiled ones to the same bits", async (t) => {
  const gpu = await testGpu();
  if (!gpu) return;
  const operands = normalOperands(awkward, 3);
  let first: Float32Array | undefined;
  for (const configuration of matmulConfigurations(gpu.target)) {
    await t.step(configuration.name, async () => {
      const found = await checkProduct(awkward, { configuration, shares: 1 }, operands);
      if (configuration.kind === "tiled") assert.deepEqual(first ??= found, found);
    });
  }
});

Deno.test("a divided depth agrees with plain loops, also with shares that are short or empty", async (t) => {
  const gpu = await testGpu();
  if (!gpu) return;
  const gradients = products.filter(({ aTransposed }) => aTransposed);
  for (const configuration of matmulConfigurations(gpu.target)) {
    if (configuration.kind === "direct") continue;
    await t.step(configuration.name, async () => {
      for (const product of quick(configuration) ? gradients : gradients.slice(0, 1)) {
        for (const shares of [2, 3, 8]) await checkProduct(product, { configuration, shares });
      }
    });
  }
});

Deno.test("tiles keep NaN and infinity in their own row or column", async (t) => {
  const gpu = await testGpu();
  if (!gpu) return;
  const product: Product = { ...plain, rows: 37, columns: 41, depth: 19, bTransposed: true };
  const operands = normalOperands(product, 5);
  operands.a[36 * 19 + 18] = Infinity;
  operands.a[2 * 19] = NaN;
  operands.b[40 * 19 + 18] = -Infinity;
  operands.b[7 * 19 + 3] = NaN;
  for (const configuration of matmulConfigurations(gpu.target).filter(quick)) {
    await t.step(configuration.name, async () => {
      await checkProduct(product, { configuration, shares: 1 }, operands);
    });
  }
});

Deno.test("keys name the code of shaders: equal keys are equal code, and different ones different code", () => {
  const codeOf = new Map<string, string>();
  const range: BufferRange = { buffer: 0, byteOffset: 0, byteLength: 4 };
  for (const precision of ["fp32", "fp16"] as const) {
    for (
      const product of [...products, ...products.map((one) => ({ ...one, depth: 2 * one.depth, rows: 32 }))]
    ) {
      const parts = { operands: [range, range], result: range, partials: range };
      for (const choice of matmulCandidates(product, h100, precision)) {
        for (const { shader: { key, code } } of productCalls(product, choice, parts, h100)) {
          assert.equal(codeOf.get(key) ?? code, code, key);
          codeOf.set(key, code);
        }
      }
    }
  }
  assert.equal(new Set(codeOf.values()).size, codeOf.size);
});

Deno.test("a choice fits the target, and divides the depth of weight gradients only", () => {
  const size = fc.integer({ min: 1, max: 40_000 });
  const least = { ...h100, maxInvocations: 256, maxWorkgroupBytes: 16 << 10, maxBindingBytes: 128 << 20 };
  fc.assert(fc.property(
    fc.record({ rows: size, columns: size, depth: size }),
    fc.boolean(),
    fc.constantFrom(h100, least),
    (sizes, aTransposed, target) => {
      const product = { ...plain, ...sizes, aTransposed };
      const choice = chooseMatmulConfiguration(product, target);
      const { configuration, shares } = choice;
      assert.equal(configuration.kind, "tiled");
      assert(configurationInvocations(configuration) <= target.maxInvocations);
      assert(configurationWorkgroupBytes(configuration) <= target.maxWorkgroupBytes);
      assert(shares === 1 || aTransposed);
      for (const bytes of partialsBytes(product, choice)) assert(bytes <= target.maxBindingBytes);
    },
  ));
});

Deno.test("the layers of BERT-base give an H100 work for all of its multiprocessors", () => {
  for (const tokens of [2048, 4096, 16384]) {
    for (const [features, depth] of [[768, 768], [3072, 768], [768, 3072]]) {
      const linear = { ...plain, rows: tokens, columns: features, depth, bTransposed: true };
      const gradient = { ...plain, rows: features, columns: depth, depth: tokens, aTransposed: true };
      for (const product of [linear, gradient]) {
        const { configuration: { tileRows, tileColumns }, shares } = chooseMatmulConfiguration(product, h100);
        const workgroups = Math.ceil(product.rows / tileRows) * Math.ceil(product.columns / tileColumns) *
          shares;
        assert(workgroups >= 96, `${JSON.stringify(product)}: ${workgroups} workgroups`);
      }
    }
  }
});

Deno.test("fp16 is refused where the GPU has none", () => {
  assert.throws(
    () => matmulConfigurations({ ...h100, f16: false }, "fp16"),
    /^UnsupportedError: Cannot multiply in fp16 on this GPU: wanted the feature shader-f16$/,
  );
});
