/**
 * Products on tensor cores. No adapter that tests meet has them: Dawn checks the shaders as they are, and what they compute is run
 * with matrices that are places in memory, and loops that multiply them.
 */
import assert from "node:assert/strict";
import { checkShaders, openDawn } from "../../webgpu/dawn.ts";
import type { Shader, ShaderTarget, SubgroupMatrixSize } from "../shader.ts";
import { testGpu } from "../shader_conformance.ts";
import { shaderInHalves } from "../wgsl_halves.ts";
import { checkProduct, plain, products } from "./product_checks.ts";
import { productCalls } from "./wgsl.ts";
import { chooseMatmulConfiguration, matmulCandidates } from "./wgsl_choice.ts";
import {
  configurationInvocations,
  configurationWorkgroupBytes,
  matmulConfigurations,
  type MatrixConfiguration,
} from "./wgsl_configurations.ts";
import type { Product } from "./wgsl_product.ts";

const square: SubgroupMatrixSize = { rows: 16, columns: 16, depth: 16 };
const wide: SubgroupMatrixSize = { rows: 8, columns: 16, depth: 16 };
const tall: SubgroupMatrixSize = { rows: 16, columns: 8, depth: 8 };

const h100: ShaderTarget = {
  isSoftware: false,
  maxInvocations: 1024,
  maxWorkgroupBytes: 48 << 10,
  maxWorkgroupsPerDimension: 65535,
  maxBindingBytes: 2 ** 31 - 4,
  subgroupSize: 32,
  subgroupMatrices: [tall, square],
  f16: true,
  columnGrain: 32,
};

function matrixConfigurations(target: ShaderTarget): MatrixConfiguration[] {
  return matmulConfigurations(target, "fp16").filter((configuration) => configuration.kind === "matrix");
}

const range = { buffer: 0, byteOffset: 0, byteLength: 4 };
const ranges = { operands: [range, range], result: range, partials: range };

/** The shaders of every configuration and kind of product, with the depth divided where it may be. */
function* shadersFor(target: ShaderTarget): Generator<Shader> {
  for (const configuration of matrixConfigurations(target)) {
    for (const product of products) {
      const isDivisible = product.aTransposed;
      for (const shares of isDivisible ? [1, 2] : [1]) {
        for (const { shader } of productCalls(product, { configuration, shares }, ranges, target)) {
          yield shader;
        }
      }
    }
  }
}

/** The shader with all that it reads and writes in float16. */
function inHalves(shader: Shader): Shader {
  return shaderInHalves(shader, shader.bindings.filter((use) => use !== "uniform").map(() => true));
}

for (const matrix of [square, wide, tall]) {
  Deno.test(`Dawn takes the products of matrices of ${Object.values(matrix).join("×")}`, async () => {
    const dawn = await openDawn();
    const target = { ...h100, subgroupMatrices: [matrix] };
    assert.equal(matrixConfigurations(target).length, 6);
    // With the limits of the null backend, whose workgroups have 16 KiB, whole pipelines; of all, the code.
    const small = { ...target, maxWorkgroupBytes: dawn.target.maxWorkgroupBytes };
    assert.ok(matrixConfigurations(small).length >= 2);
    const shaders = [...shadersFor(small)];
    await checkShaders(dawn, shaders);
    await checkShaders(dawn, shaders.map(inHalves));
    for (const { key, code } of shadersFor(target)) {
      const { messages } = await dawn.device.createShaderModule({ code }).getCompilationInfo();
      assert.deepEqual(messages.map(({ message }) => message), [], key);
    }
    dawn.device.destroy();
  });
}

Deno.test("Dawn refuses matrices whose sizes do not fit together", async () => {
  const dawn = await openDawn();
  const small = { ...h100, maxWorkgroupBytes: dawn.target.maxWorkgroupBytes, subgroupMatrices: [tall] };
  const [shader] = shadersFor(small);
  const code = shader.code.replace("subgroup_matrix_right<f16, 8, 8>", "subgroup_matrix_right<f16, 16, 8>");
  assert.notEqual(code, shader.code);
  await assert.rejects(checkShaders(dawn, [{ ...shader, code }]), /does not compile: [^\n]*no matching call/);
  dawn.device.destroy();
});

/**
 * The shader without subgroups. A matrix that was loaded is where it lies in its tile (offset, steps from row to row and from column
 * to column), for tiles stay as they are until all have multiplied; a sum is its place in workgroup memory, where each lane of its
 * subgroup sees to every 32nd element.
 */
function playedByLoops({ key, code, bindings }: Shader): Shader {
  if (!code.includes("subgroup_matrix")) return { key, code, bindings };
  const [, columns, rows] = code.match(/alias Sum = \w+<f32, (\d+), (\d+)>/)!;
  const [, depth] = code.match(/alias Left = \w+<f16, (\d+)/)!;
  const [, lanes] = code.match(/@workgroup_size\((\d+)\)/)!;
  const sums = code.match(/var sum\d+_\d+: Sum;/g)!.length;
  const elements = Number(rows) * Number(columns);
  let sum = 0;
  const played = code
    .replace(/enable (subgroups|chromium_experimental_subgroup_matrix);\n/g, "")
    .replace(/subgroup_matrix_(left|right)<[^>]+>/g, "vec3u")
    .replace(/subgroup_matrix_result<[^>]+>/, "u32")
    .replace(",\n  @builtin(subgroup_id) subgroup: u32", "")
    .replace("let firstA", "let subgroup = lane / 32u;\n  laneInside = lane % 32u;\n  let firstA")
    .replace(
      /var (sum\d+_\d+): Sum;/g,
      (_, name) => `var ${name} = (subgroup * ${sums}u + ${sum++}u) * ${elements}u;`,
    )
    .replace(/subgroupMatrixLoad<\w+, (\w+)>\(&\w+, /g, "place_$1(")
    .replaceAll("subgroupMatrixMultiplyAccumulate", "multiplyAccumulate")
    .replaceAll("subgroupMatrixStore<row_major>(&drained, ", "store(");
  return {
    key: `${key}_played`,
    bindings,
    code: `${played}
var<private> laneInside: u32;
var<workgroup> held: array<f32, ${Number(lanes) / 32 * sums * elements}>;
fn place_row_major(offset: u32, stride: u32) -> vec3u { return vec3u(offset, stride, 1u); }
fn place_col_major(offset: u32, stride: u32) -> vec3u { return vec3u(offset, 1u, stride); }
fn multiplyAccumulate(a: Left, b: Right, sum: Sum) -> Sum {
  for (var i = laneInside; i < ${elements}u; i += 32u) {
    let row = i / ${columns}u;
    let column = i % ${columns}u;
    for (var k = 0u; k < ${depth}u; k++) {
      held[sum + i] += f32(tileA[a.x + row * a.y + k * a.z]) * f32(tileB[b.x + k * b.y + column * b.z]);
    }
  }
  return sum;
}
fn store(offset: u32, sum: Sum, stride: u32) {
  for (var i = laneInside; i < ${elements}u; i += 32u) {
    drained[offset + i / ${columns}u * stride + i % ${columns}u] = held[sum + i];
  }
}`,
  };
}

const awkward: Product = { ...plain, rows: 77, columns: 69, depth: 43, addend: true };
/** Each way that operands lie, with edges on all sides: the linear layer, the gradients of its input and of its weight. */
const layouts: readonly Product[] = [
  { ...awkward, bTransposed: true, bias: true },
  { ...awkward, columns: 72 },
  { ...awkward, rows: 68, aTransposed: true, addend: false },
];

for (
  const [matrix, tile, run] of [
    [square, [32, 32], layouts],
    [square, [64, 64], [awkward]],
    [wide, [32, 32], [awkward]],
    [tall, [32, 32], [awkward]],
  ] as const
) {
  const name = `matrices of ${Object.values(matrix).join("×")} in tiles of ${tile.join("×")}`;
  Deno.test(`products by ${name}, played by loops, agree with the reference`, async () => {
    const gpu = await testGpu();
    if (!gpu) return;
    if (!gpu.target.f16) {
      return console.log("products of matrices are not run: the adapter has no shader-f16");
    }
    const target = { ...gpu.target, subgroupSize: 32, subgroupMatrices: [matrix] };
    const configuration = matrixConfigurations(target).find(({ tileRows, tileColumns }) =>
      tileRows === tile[0] && tileColumns === tile[1]
    )!;
    for (const product of run) {
      for (const shares of product.aTransposed ? [1, 3] : [1]) {
        await checkProduct(product, { configuration, shares }, undefined, playedByLoops);
      }
    }
  });
}

Deno.test("matrices are taken where fp16 is asked for and the GPU has them, and then for every product", () => {
  const linear = { ...plain, rows: 4096, columns: 768, depth: 768, bTransposed: true };
  const gradient = { ...plain, rows: 768, columns: 768, depth: 4096, aTransposed: true };
  for (const product of [linear, gradient, { ...linear, rows: 3, columns: 2 }]) {
    const { configuration, shares } = chooseMatmulConfiguration(product, h100, "fp16");
    assert.equal(configuration.kind, "matrix");
    assert.deepEqual((configuration as MatrixConfiguration).matrix, square);
    assert.ok(shares === 1 || product.aTransposed);
    assert.equal(chooseMatmulConfiguration(product, h100).configuration.kind, "tiled");
    for (const without of [{ subgroupMatrices: [] }, { subgroupSize: undefined }]) {
      const target = { ...h100, ...without };
      assert.equal(chooseMatmulConfiguration(product, target, "fp16").configuration.kind, "tiled");
    }
    const kinds = matmulCandidates(product, h100, "fp16").map(({ configuration: { kind } }) => kind);
    assert.deepEqual([...new Set(kinds)], ["matrix", "tiled", "direct"], "a sweep times all kinds");
  }
  const software = chooseMatmulConfiguration(linear, { ...h100, isSoftware: true }, "fp16");
  assert.equal(software.configuration.kind, "direct");
});

Deno.test("matrix configurations fit the limits of their target and its matrices", () => {
  for (const subgroupSize of [1, 8, 16, 32, 64, 128]) {
    for (const maxWorkgroupBytes of [16 << 10, 32 << 10, 48 << 10]) {
      for (const matrix of [square, wide, tall, { rows: 64, columns: 64, depth: 64 }]) {
        const target = { ...h100, subgroupSize, maxWorkgroupBytes, subgroupMatrices: [matrix] };
        const configurations = matrixConfigurations(target);
        assert.equal(configurations.length > 0, matrix.rows < 64, `${subgroupSize} lanes`);
        for (const configuration of configurations) {
          assert.ok(configurationInvocations(configuration) <= target.maxInvocations);
          assert.ok(configurationWorkgroupBytes(configuration) <= maxWorkgroupBytes);
          assert.equal(configurationInvocations(configuration) % subgroupSize, 0);
        }
      }
    }
  }
});
