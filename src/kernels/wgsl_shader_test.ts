/** What all shaders owe: column counts are no part of their code, and large grids change nothing. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../core/random.ts";
import { elementCount, indices, rows, tiled, type ValueType } from "../graph/graph.ts";
import type { NumberArray } from "../graph/operation.ts";
import { addShaders } from "./add/wgsl.ts";
import { embeddingGradientShaders, embeddingShaders } from "./embedding/wgsl.ts";
import { gatherValuesShaders } from "./gather/wgsl.ts";
import {
  layerNormGradientShaders,
  layerNormParameterGradientShaders,
  layerNormShaders,
} from "./layer_norm/wgsl.ts";
import { meanSquaredErrorShaders } from "./mean_squared_error/wgsl.ts";
import { normals } from "./operands.ts";
import { selectColumnsGradientShaders, selectColumnsShaders } from "./select_columns/wgsl.ts";
import type { ShaderLowering, ShaderOperand, ShaderTarget } from "./shader.ts";
import { runLowering, testGpu } from "./shader_conformance.ts";
import { softmaxCrossEntropyShaders } from "./softmax_cross_entropy/wgsl.ts";
import { sumColumnsShaders } from "./sum_columns/wgsl.ts";
import { featureVector } from "./wgsl_shader.ts";
import { teamLanes } from "./wgsl_team.ts";

const features = 40;
const vector = rows(features);
const table = rows(9, features);

/** A lowering with its attributes and its operands for so many columns. */
interface Example {
  readonly lowering: ShaderLowering;
  readonly attributes: (columns: number) => unknown;
  readonly types: (matrix: ValueType, list: ValueType) => (ValueType | undefined)[];
}

function example<A>(
  lowering: ShaderLowering<A>,
  types: Example["types"],
  attributes: (columns: number) => A = () => ({} as A),
): Example {
  return { lowering: lowering as ShaderLowering, attributes, types };
}

const statistics = ({ shape: [, columns] }: ValueType) => rows(2, columns);

const examples: readonly Example[] = [
  example(addShaders, (matrix) => [matrix, matrix]),
  example(gatherValuesShaders, (_, list) => [vector, list]),
  example(sumColumnsShaders, (matrix) => [matrix]),
  example(
    layerNormShaders,
    (matrix) => [matrix, matrix, vector, vector],
    () => ({ epsilon: 1e-5, training: true }),
  ),
  example(layerNormGradientShaders, (matrix) => [matrix, matrix, statistics(matrix), vector]),
  example(layerNormParameterGradientShaders, (matrix) => [matrix, matrix, statistics(matrix)]),
  example(selectColumnsShaders, (matrix, list) => [matrix, list]),
  example(selectColumnsGradientShaders, (matrix, list) => [matrix, list], (columns) => ({ columns })),
  example(embeddingShaders, (_, list) => [table, table, table, list, list, list]),
  example(embeddingGradientShaders, (matrix, list) => [matrix, list], () => ({ rows: 9 })),
  example(
    softmaxCrossEntropyShaders,
    (matrix, list) => [matrix, list, vector, matrix],
    () => ({ hardness: 0.5, labelSmoothing: 0.1, temperature: 2 }),
  ),
  example(
    meanSquaredErrorShaders,
    (matrix, list) => [matrix, list, matrix, matrix],
    () => ({ hardness: 0.5 }),
  ),
];

const target: ShaderTarget = {
  isSoftware: false,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxWorkgroupsPerDimension: 65535,
  maxBindingBytes: 2 ** 27,
  f16: false,
  columnGrain: 32,
};

/** The calls for so many columns. */
function callsFor({ lowering, attributes: attributesFor, types }: Example, columns: number) {
  const attributes = attributesFor(columns);
  const inputTypes = types(tiled(features, columns), indices(columns));
  const outputTypes = lowering.operation.infer(inputTypes, attributes);
  const range = { buffer: 0, byteOffset: 0, byteLength: 16 };
  const operand = (type: ValueType): ShaderOperand => ({ type, parts: [range], rowsPerPart: type.shape[0] });
  return lowering.lower({
    attributes,
    inputs: inputTypes.map((type) => type && operand(type)),
    outputs: outputTypes.map(operand),
    scratch: (lowering.scratchBytes?.({ attributes, inputTypes, outputTypes }, target) ?? []).map(() =>
      range
    ),
    target,
  });
}

Deno.test("no column count is part of a shader", () => {
  for (const one of examples) {
    const shadersOf = (columns: number) =>
      new Map(callsFor(one, columns).map(({ shader }) => [shader.key, shader.code]));
    const { name } = one.lowering.operation;
    assert.deepEqual(shadersOf(1024), shadersOf(4096), name);
  }
});

Deno.test("a grid of two dimensions, with workgroups too many, gives the bits of a grid of one", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const columns = 288;
  for (const { lowering, attributes: attributesFor, types } of examples) {
    const random = new RandomStream(randomKey(columns));
    const inputTypes = types(tiled(features, columns), indices(columns));
    const inputs = inputTypes.map((type) =>
      type?.dtype === "i32"
        ? Int32Array.from({ length: elementCount(type) }, () => random.below(9))
        : type && normals(random, type)
    );
    const run = (maxWorkgroupsPerDimension: number): Promise<NumberArray[]> =>
      runLowering(
        { ...gpu, target: { ...gpu.target, maxWorkgroupsPerDimension } },
        lowering,
        attributesFor(columns),
        inputs,
        inputTypes,
      );
    assert.deepEqual(await run(4), await run(65535), lowering.operation.name);
  }
});

Deno.test("teams are powers of two whose lanes have four elements at most, until a workgroup is full", () => {
  const lanes = [1, 4, 5, 32, 37, 192, 1024, 30522].map(teamLanes);
  assert.deepEqual(lanes, [1, 1, 2, 8, 16, 64, 256, 256]);
});

Deno.test("features come in fours where they can", () => {
  assert.deepEqual(featureVector(768), { type: "vec4f", count: 192 });
  assert.deepEqual(featureVector(6), { type: "f32", count: 6 });
});
