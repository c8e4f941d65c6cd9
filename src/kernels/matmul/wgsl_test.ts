/**
 * Every way to compute a product on the GPU, also those that this GPU would not take, against plain loops; and the choice.
 * @module
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { BufferRange, ShaderTarget } from "../shader.ts";
import { testGpu } from "../shader_conformance.ts";
import { checkProduct, normalOperands, plain, products } from "./product_checks.ts";
import { partialsBytes, productCalls } from "./wgsl.ts";
import { chooseMatmulConfiguration, matmulCandidates } from "./wgsl_choice.ts";
import {
  configurationInvocations,
  configurationWorkgroupBytes,
  type MatmulConfiguration,
  matmulConfigurations,
} from "./wgsl_configurations.ts";
import type { Product } from "./wgsl_product.ts";

const h100: ShaderTarget = {
  isSoftware: false,
  maxInvocations: 1024,
  maxWorkgroupBytes: 48 << 10,
  maxWorkgroupsPerDimension: 65535,
  maxBindingBytes: 2 ** 31 - 4,
  f16: true,
  columnGrain: 32,
};

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

Deno.test("every configuration agrees with plain loops, and the bits of one kind are the same", async (t) => {
  const gpu = await testGpu();
  if (!gpu) return;
  const operands = normalOperands(awkward, 3);
  const first = new Map<string, Float32Array>();
  for (const configuration of matmulConfigurations(gpu.target)) {
    await t.step(configuration.name, async () => {
      const found = await checkProduct(awkward, { configuration, shares: 1 }, operands);
      const { kind } = configuration;
      // Others than software never take a direct one.
      if (kind === "direct" && !gpu.target.isSoftware) return;
      const wanted = first.getOrInsertComputed(kind, () => found!);
      assert.deepEqual(found, wanted);
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

Deno.test("software takes large blocks for what is worth their compilation", () => {
  const software = { ...h100, isSoftware: true };
  const blockOf = (rows: number) => {
    const product = { ...plain, rows, columns: 128, depth: 128 };
    const { kind, blockRows, blockColumns } = chooseMatmulConfiguration(product, software).configuration;
    return [kind, blockRows, blockColumns];
  };
  assert.deepEqual([32, 64].map(blockOf), [["direct", 4, 4], ["direct", 16, 8]]);
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
