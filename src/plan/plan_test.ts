/** Plans are checked without running anything: order, lifetimes, aliases, shares. */
import assert from "node:assert/strict";
import { bertInputs, buildBert } from "../../models/bert.ts";
import { presetConfig } from "../../models/presets.ts";
import { differentiate, liveNodes } from "../graph/autodiff.ts";
import { byteLength, Graph, rows, tiled, type Value } from "../graph/graph.ts";
import type { Target } from "../graph/operation.ts";
import { add } from "../kernels/add/operation.ts";
import { gelu } from "../kernels/gelu/operation.ts";
import { matmul } from "../kernels/matmul/operation.ts";
import { sparseMatmulInputGradient } from "../kernels/sparse_matmul/gradient.ts";
import { sparseMatmul } from "../kernels/sparse_matmul/operation.ts";
import { packSparse } from "../kernels/sparse_matmul/pack.ts";
import { packedTypes } from "../kernels/sparse_matmul/types.ts";
import { tanh } from "../kernels/tanh/operation.ts";
import { fuseAddIntoMatmul } from "./fusion.ts";
import { describePlan, type Plan, planGraph } from "./plan.ts";

const target: Target = { lanes: 4, vectorRegisters: 16, tile: 16, workers: 2 };

function bind(graph: Graph): Map<Value, number> {
  let address = 1 << 20;
  return new Map([...graph.parameters.values(), ...graph.inputs.values()].map((value) => {
    const entry: [Value, number] = [value, address];
    address += Math.ceil(byteLength(value.type) / 64) * 64;
    return entry;
  }));
}

function trainingPlan(workers = 2): Plan {
  const graph = new Graph();
  const config = presetConfig("bert-tiny", { vocabularySize: 100, maximumPositions: 32 });
  const { loss } = buildBert(graph, config, { columns: 64, sequences: 16, mode: "train" });
  for (const [name, gradient] of differentiate(graph, loss!)) graph.output(name, gradient);
  return planGraph(graph, { target: { ...target, workers }, bindings: bind(graph), base: 1 << 24 });
}

Deno.test("planGraph gives values that live at the same time different memory", () => {
  const { buffers } = trainingPlan();
  let shared = 0;
  buffers.forEach((a, i) => {
    for (const b of buffers.slice(0, i)) {
      const overlap = a.address < b.address + byteLength(b.type) &&
        b.address < a.address + byteLength(a.type);
      if (!overlap) continue;
      // Values of one buffer (in-place results) are listed with the lifetime of the buffer, at the same address.
      const together = a.firstPhase <= b.lastPhase && b.firstPhase <= a.lastPhase;
      assert.ok(!together || a.address === b.address, `${a.name} and ${b.name} overlap`);
      if (!together) shared++;
    }
  });
  assert.ok(shared > 0, "no memory is reused");
});

Deno.test("planGraph runs a node only in a phase after its operands", () => {
  const graph = new Graph();
  const x = graph.input("x", tiled(8, 16));
  const a = graph.apply(gelu, {}, [x])[0];
  const b = graph.apply(gelu, {}, [x])[0];
  const sum = graph.apply(add, {}, [a, b])[0];
  graph.output("sum", sum);
  const plan = planGraph(graph, { target, bindings: bind(graph), base: 0 });
  assert.deepEqual(plan.phases.map((phase) => phase.name), ["gelu_f32 + gelu_f32", "add_f32"]);
});

Deno.test("planGraph runs a node only in a phase after the value it waits for, without reading it", () => {
  const graph = new Graph();
  const x = graph.input("x", tiled(8, 16));
  const a = graph.apply(gelu, {}, [x])[0];
  const late = graph.apply(tanh, {}, [x], a)[0];
  graph.output("a", a);
  graph.output("late", late);
  const plan = planGraph(graph, { target, bindings: bind(graph), base: 0 });
  assert.deepEqual(plan.phases.map((phase) => phase.name), ["gelu_f32", "tanh_f32"]);
});

Deno.test("planGraph puts the prologue before the graph and counts its phases", () => {
  const graph = new Graph();
  graph.output("y", graph.apply(gelu, {}, [graph.input("x", tiled(8, 16))])[0]);
  const idle = (name: string) => ({ name, calls: [[], []] });
  const request = {
    target,
    bindings: bind(graph),
    base: 0,
    prologue: [idle("a"), idle("b")],
    epilogue: [idle("c")],
  };
  const plan = planGraph(graph, request);
  assert.deepEqual(plan.phases.map((phase) => phase.name), ["a", "b", "gelu_f32", "c"]);
  assert.equal(plan.buffers[0].firstPhase, 2);
});

Deno.test("planGraph leaves out nodes that no output depends on", () => {
  const graph = new Graph();
  const x = graph.input("x", tiled(8, 16));
  graph.apply(gelu, {}, [x]);
  graph.output("kept", graph.apply(gelu, {}, [x])[0]);
  assert.equal(liveNodes(graph).length, 1);
});

Deno.test("planGraph does not reuse an operand in place while another node of the phase reads it", () => {
  const graph = new Graph();
  const x = graph.apply(gelu, {}, [graph.input("input", tiled(8, 16))])[0];
  const left = graph.apply(add, {}, [x, x])[0];
  const right = graph.apply(gelu, {}, [x])[0];
  graph.output("left", left);
  graph.output("right", right);
  const plan = planGraph(graph, { target, bindings: bind(graph), base: 0 });
  const addresses = new Set(plan.buffers.map(({ address }) => address));
  assert.equal(addresses.size, 3, describePlan(plan));
});

Deno.test("planGraph names a parameter without an address", () => {
  const graph = new Graph();
  const weight = graph.parameter("layer.weight", rows(4, 8));
  const x = graph.input("x", tiled(8, 16));
  const attributes = { transposed: false, activation: "none" } as const;
  graph.output("y", graph.apply(matmul, attributes, [x, weight, undefined, undefined])[0]);
  assert.throws(
    () => planGraph(graph, { target, bindings: new Map([[x, 0]]), base: 0 }),
    /parameter layer\.weight has no address/,
  );
});

Deno.test("fuseAddIntoMatmul turns a sum with a product into an addend, and leaves shared products alone", () => {
  const graph = new Graph();
  const x = graph.input("x", tiled(8, 16));
  const r = graph.input("r", tiled(4, 16));
  const weight = graph.parameter("w", rows(4, 8));
  const attributes = { transposed: false, activation: "none" } as const;
  const product = graph.apply(matmul, attributes, [x, weight, undefined, undefined])[0];
  const fused = graph.apply(add, {}, [r, product])[0];
  const shared = graph.apply(matmul, attributes, [x, weight, undefined, undefined])[0];
  const kept = graph.apply(add, {}, [r, shared])[0];
  graph.output("fused", fused);
  graph.output("kept", kept);
  graph.output("shared", shared);
  const nodes = fuseAddIntoMatmul(graph.nodes, graph.outputs.values());
  assert.deepEqual(nodes.map((node) => node.operation.name), ["matmul", "matmul", "add"]);
  assert.equal(nodes[0].inputs[3], r);
  assert.equal(nodes[0].outputs[0], fused);
});

Deno.test("fuseAddIntoMatmul fuses into sparse products and their gradients, at the operand that each adds", () => {
  const graph = new Graph();
  const { structure } = packSparse(new Float32Array(32).fill(1), [4, 8], { pattern: "4x1" });
  const types = packedTypes(structure);
  const x = graph.input("x", tiled(8, 16));
  const y = graph.input("y", tiled(4, 16));
  const [values, indices] = [graph.parameter("w", types.values), graph.input("indices", types.indices)];
  const products = (["none", "gelu"] as const).map((activation) =>
    graph.apply(sparseMatmul, { structure, activation }, [x, values, indices])[0]
  );
  products.forEach((product, i) => graph.output(`sum ${i}`, graph.apply(add, {}, [y, product])[0]));
  const back = graph.apply(sparseMatmulInputGradient, { structure }, [y, values, indices])[0];
  graph.output("gradient", graph.apply(add, {}, [x, back])[0]);
  const nodes = fuseAddIntoMatmul(graph.nodes, graph.outputs.values());
  const found = nodes.map(({ operation, inputs }) => [operation.name, inputs.at(-1)]);
  assert.deepEqual(found, [
    ["sparseMatmul", indices],
    ["sparseMatmul", y],
    ["add", products[1]],
    ["sparseMatmulInputGradient", x],
  ]);
  assert.deepEqual(nodes.map(({ inputs }) => inputs.length), [3, 5, 2, 4]);
});

Deno.test("a plan gives every worker a share of the work of each large phase", () => {
  const plan = trainingPlan(3);
  const matmuls = plan.phases.filter((phase) => phase.name.includes("matmul"));
  assert.ok(matmuls.length > 10);
  const idle = matmuls.filter((phase) => phase.calls.some((calls) => calls.length === 0));
  assert.ok(idle.length < matmuls.length / 2, `${idle.length} of ${matmuls.length} leave a worker idle`);
});

Deno.test("describePlan prints a line per phase", () => {
  const plan = trainingPlan();
  const text = describePlan(plan);
  assert.match(text, /phases, 2 workers/);
  for (const [index, phase] of plan.phases.entries()) assert.ok(text.includes(`${index}  ${phase.name}:`));
  assert.ok(text.includes(bertInputs.tokenIds) === false);
});
