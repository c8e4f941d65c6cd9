/** Whole graphs on the GPU against the interpreter, and before the strict eyes of Dawn. */
import assert from "node:assert/strict";
import { bertInputs, buildBert } from "../../models/bert.ts";
import { presetConfig } from "../../models/presets.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { makeBatchViews, packBatch } from "../data/batches.ts";
import { differentiate } from "../graph/autodiff.ts";
import { elementCount, Graph, tiled } from "../graph/graph.ts";
import { interpret } from "../graph/interpreter.ts";
import type { NumberArray } from "../graph/operation.ts";
import { add } from "../kernels/add/operation.ts";
import { gelu } from "../kernels/gelu/operation.ts";
import type { Shader } from "../kernels/shader.ts";
import { testGpu } from "../kernels/shader_conformance.ts";
import { checkShaders, openDawn } from "./dawn.ts";
import { DeviceExecutor, openDeviceExecutor } from "./device_executor.ts";
import { lowerings } from "./lowerings.ts";
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

/** Loss, logits and all gradients of a small BERT, with dropout and layers that run again. */
function bertCase(): Case {
  const columns = 64;
  const sequences = 32;
  const config = {
    ...presetConfig("bert-tiny", { vocabularySize: 50, maximumPositions: 32 }),
    ...{ hiddenSize: 24, heads: 2, intermediateSize: 40, layers: 3 },
  };
  const graph = new Graph();
  const { loss, hidden } = buildBert(graph, config, { columns, sequences, mode: "train" });
  for (const [name, gradient] of differentiate(graph, loss!, { checkpoints: hidden.slice(0, 2) })) {
    graph.output(`gradient of ${name}`, gradient);
  }
  const random = new RandomStream(randomKey(3));
  const views = makeBatchViews({ columns, sequences });
  const batch = [5, 19, 2, 21].map((length, index) => ({
    ids: Int32Array.from({ length }, () => random.below(50)),
    typeIds: Uint8Array.from({ length }, (_, position) => Number(position > length / 2)),
    label: index % 2,
  }));
  packBatch(batch, views);
  const feeds = new Map<string, NumberArray>(
    Object.entries({ ...views, [bertInputs.seed]: Int32Array.of(12, 34) }),
  );
  for (const [name, { type }] of graph.parameters) {
    feeds.set(name, Float32Array.from({ length: elementCount(type) }, () => 0.3 * random.normal()));
  }
  return { graph, feeds };
}

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

/** Whether there are operations without shaders: it says which. */
function missing({ graph }: Case): boolean {
  const names = graph.nodes.map(({ operation }) => operation.name).filter((name) => !lowerings.has(name));
  if (names.length > 0) console.log(`not tested: there are no shaders for ${[...new Set(names)].join(", ")}`);
  return names.length > 0;
}

const cases = [["elementwise", elementwiseCase, 2e-6], ["BERT", bertCase, 1e-4]] as const;

for (const [name, make, tolerance] of cases) {
  const isMissing = missing(make());
  for (const isSoftware of [true, false]) {
    const device = isSoftware ? "a CPU that plays a GPU" : "a GPU";
    Deno.test({
      name: `the ${name} graph, with shaders for ${device}, gives what the interpreter gives`,
      ignore: !hasGpu || isMissing,
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

    Deno.test({
      name: `the ${name} graph, with shaders for ${device}, passes the checks of Dawn`,
      ignore: isMissing,
      async fn() {
        const { graph } = make();
        const gpu = await openDawn();
        const target = { ...gpu.target, isSoftware };
        const values = [...graph.parameters.values(), ...graph.inputs.values()];
        const bindings = new Map(values.map((value, buffer) => [
          value,
          operandAt(value.name, value.type, { buffer }, target),
        ]));
        const { calls } = planShaders(graph, { target, bindings });
        await checkShaders(gpu, calls.map(({ shader }) => shader));
        gpu.device.destroy();
      },
    });
  }
}

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
