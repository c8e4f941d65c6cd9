/** Whole graphs on the GPU against the interpreter, and before the strict eyes of Dawn. */
import assert from "node:assert/strict";
import { type BertGraph, bertInputs, buildBert } from "../../models/bert.ts";
import { buildMaskedLm, maskedLmInputs } from "../../models/bert_masked_lm.ts";
import type { BertConfig } from "../../models/config.ts";
import type { EncoderOptions } from "../../models/encoder.ts";
import { presetConfig } from "../../models/presets.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { makeBatchViews, packBatch } from "../data/batches.ts";
import { differentiate } from "../graph/autodiff.ts";
import { elementCount, Graph, tiled } from "../graph/graph.ts";
import { interpret } from "../graph/interpreter.ts";
import type { NumberArray } from "../graph/operation.ts";
import { add } from "../kernels/add/operation.ts";
import { gelu } from "../kernels/gelu/operation.ts";
import type { Shader, ShaderTarget } from "../kernels/shader.ts";
import { testGpu } from "../kernels/shader_conformance.ts";
import { checkShaders, openDawn } from "./dawn.ts";
import { DeviceExecutor, openDeviceExecutor } from "./device_executor.ts";
import { operandAt } from "./operands.ts";
import { runGraph } from "./run_graph.ts";
import { planShaders } from "./shader_plan.ts";

const hasGpu = await testGpu() !== undefined;

interface Case {
  readonly graph: Graph;
  readonly feeds: ReadonlyMap<string, NumberArray>;
}

/** Sums of sums, so that values live for different times. */
function elementwiseCase(): Case {
  const graph = new Graph();
  const type = tiled(12, 32);
  const values = [graph.input("x", type), graph.parameter("w", type)];
  for (let i = 0; i < 9; i++) {
    const activated = graph.apply(gelu, {}, [values.at(-1)])[0];
    values.push(graph.apply(add, {}, [activated, values.at(-2 - i % 3) ?? values[0]])[0]);
  }
  graph.output("middle", values[5]);
  graph.output("last", values.at(-1)!);
  const random = new RandomStream(randomKey(5));
  const draw = () => Float32Array.from({ length: elementCount(type) }, () => random.normal());
  return { graph, feeds: new Map([["x", draw()], ["w", draw()]]) };
}

const [columns, sequences, guesses, vocabularySize] = [64, 32, 32, 200];

/** All outputs and gradients of a small model, with dropout and layers that run again. */
function modelCase(build: (graph: Graph, config: BertConfig, options: EncoderOptions) => BertGraph): Case {
  const config = {
    ...presetConfig("bert-tiny", { vocabularySize, maximumPositions: 32 }),
    ...{ hiddenSize: 24, heads: 2, intermediateSize: 40, layers: 3 },
  };
  const graph = new Graph();
  const { loss, hidden } = build(graph, config, { columns, sequences, mode: "train" });
  for (const [name, gradient] of differentiate(graph, loss!, { checkpoints: hidden.slice(0, 2) })) {
    graph.output(`gradient of ${name}`, gradient);
  }
  const random = new RandomStream(randomKey(3));
  const views = makeBatchViews({ columns, sequences });
  const batch = [5, 19, 2, 21].map((length, index) => ({
    ids: Int32Array.from({ length }, () => random.below(vocabularySize)),
    typeIds: Uint8Array.from({ length }, (_, position) => Number(position > length / 2)),
    label: index % 2,
  }));
  packBatch(batch, views);
  const padded = (list: readonly number[]) => Int32Array.from({ length: guesses }, (_, i) => list[i] ?? -1);
  const feeds = new Map<string, NumberArray>(Object.entries({
    ...views,
    [bertInputs.seed]: Int32Array.of(12, 34),
    [maskedLmInputs.maskedColumns]: padded([1, 3, 7, 22, 30, 41]),
    [maskedLmInputs.maskedTokens]: padded([0, 199, 17, 17, 120, 8]),
  }));
  for (const [name, { type }] of graph.parameters) {
    feeds.set(name, Float32Array.from({ length: elementCount(type) }, () => 0.3 * random.normal()));
  }
  return { graph, feeds };
}

const classifierCase = () => modelCase(buildBert);
const maskedLmCase = () =>
  modelCase((graph, config, options) => buildMaskedLm(graph, config, { ...options, guesses }));

/** Numbers as the interpreter computes them in float64. */
function wanted({ graph, feeds }: Case): Map<string, NumberArray> {
  const wide = new Map(Array.from(feeds, ([name, array]) => [
    name,
    array instanceof Float32Array ? Float64Array.from(array) : array,
  ]));
  const values = interpret(graph, wide);
  return new Map(Array.from(graph.outputs, ([name, { id }]) => [name, values.get(id)!]));
}

/** Compares arrays by their largest element, or a hundredth of the largest of all: gradients that are 0 are rounding errors. */
function assertClose(
  found: ReadonlyMap<string, NumberArray>,
  expected: ReadonlyMap<string, NumberArray>,
  tolerance: number,
): void {
  assert.deepEqual([...found.keys()], [...expected.keys()]);
  const largestOf = (array: NumberArray) => Math.max(...Array.from(array, Math.abs));
  const floor = Math.max(...Array.from(expected.values(), largestOf)) / 100;
  for (const [name, array] of expected) {
    const allowed = tolerance * Math.max(floor, largestOf(array));
    array.forEach((value: number, index: number) => {
      const result = found.get(name)![index];
      // Not `>`: a NaN must not pass.
      assert.ok(
        Math.abs(result - value) <= allowed,
        `${name}[${index}]: ${result}, wanted ${value} ± ${allowed}`,
      );
    });
  }
}

const cases = [
  ["elementwise", elementwiseCase, 2e-6],
  ["classifier's", classifierCase, 1e-4],
  ["masked language model's", maskedLmCase, 1e-4],
] as const;

const dawnTargets: Readonly<Record<string, Partial<ShaderTarget>>> = {
  "a CPU that plays a GPU": { isSoftware: true },
  "a GPU": { isSoftware: false },
  "a GPU with tensor cores, in float16": {
    isSoftware: false,
    activations: "f16",
    subgroupSize: 32,
    subgroupMatrices: [{ rows: 16, columns: 16, depth: 16 }],
  },
};

for (const [name, make, tolerance] of cases) {
  for (const isSoftware of [true, false]) {
    const device = isSoftware ? "a CPU that plays a GPU" : "a GPU";
    Deno.test({
      name: `the ${name} graph, with shaders for ${device}, gives what the interpreter gives`,
      ignore: !hasGpu,
      async fn() {
        const { graph, feeds } = make();
        const executor = await openDeviceExecutor({ allowSoftware: true });
        try {
          const target = { ...executor.target, isSoftware };
          const found = await runGraph(executor, graph, feeds, target);
          assertClose(found, wanted({ graph, feeds }), tolerance);
          assert.deepEqual(await runGraph(executor, graph, feeds, target), found, "the same bits again");
        } finally {
          await executor.dispose();
        }
      },
    });
  }

  for (const [device, changes] of Object.entries(dawnTargets)) {
    Deno.test({
      name: `the ${name} graph, with shaders for ${device}, passes the checks of Dawn`,
      async fn() {
        const { graph } = make();
        const gpu = await openDawn();
        const target = { ...gpu.target, ...changes };
        const values = [...graph.parameters.values(), ...graph.inputs.values()];
        const bindings = new Map(values.map((value, buffer) => [
          value,
          operandAt(value.name, value.type, { buffer }, target),
        ]));
        const { calls } = planShaders(graph, { target, bindings });
        const shaders = calls.map(({ shader }) => shader);
        const onTensorCores = shaders.some(({ code }) => code.includes("subgroupMatrixMultiplyAccumulate"));
        assert.equal(onTensorCores, "subgroupMatrices" in changes && name !== "elementwise");
        await checkShaders(gpu, shaders);
        gpu.device.destroy();
      },
    });
  }
}

Deno.test({
  name: "the classifier's graph runs where its word table is larger than a binding",
  ignore: !hasGpu,
  async fn() {
    const { graph, feeds } = classifierCase();
    const executor = await openDeviceExecutor({ allowSoftware: true });
    try {
      // The table has 200 · 24 floats; the next largest value 40 · 64.
      const found = await runGraph(executor, graph, feeds, { ...executor.target, maxBindingBytes: 12288 });
      assertClose(found, wanted({ graph, feeds }), 1e-4);
    } finally {
      await executor.dispose();
    }
  },
});

Deno.test("Dawn takes a whole program, and names the shader that it refuses", async () => {
  const { graph, feeds } = elementwiseCase();
  const gpu = await openDawn();
  const executor = new DeviceExecutor(gpu);
  await runGraph(executor, graph, feeds);
  // naga finds nothing wrong with it.
  const parted: Shader = {
    key: "parted",
    bindings: ["write"],
    code: `
@group(0) @binding(0) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  if (lane < 5u) { workgroupBarrier(); }
  result[lane] = 1.0;
}`,
  };
  await assert.rejects(
    checkShaders(gpu, [parted]),
    /^Error: shader parted does not compile: line 5: [^\n]*must only be called from uniform control flow/,
  );
  await executor.dispose();
});
