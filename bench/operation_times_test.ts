import assert from "node:assert/strict";
import { Graph, tiled } from "../src/graph/graph.ts";
import { gelu } from "../src/kernels/gelu/operation.ts";
import { selectMachine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { prepare } from "../src/plan/executor.ts";
import { planBytes, planGraph } from "../src/plan/plan.ts";
import { operationOfKey, TimingExecutor } from "./operation_times.ts";

Deno.test("operationOfKey says which sparse products share a line", () => {
  const names = {
    sparse_matmul_f32_unstructured_128x128_panel128_tile64_vectors4: "sparse_matmul: forward and of x",
    sparse_matmul_f32_4x1_128x128_panel768_bias_tile64_vectors4: "sparse_matmul: forward",
    sparse_matmul_input_gradient_f32_4x1_128x128_zero: "sparse_matmul_input_gradient",
    sparse_matmul_weight_gradient_f32_unstructured_128x128_entries4: "sparse_matmul_weight_gradient",
  };
  for (const [key, name] of Object.entries(names)) assert.equal(operationOfKey(key), name);
});

Deno.test("TimingExecutor times every call until it is reset, and rejects where executors do", async () => {
  const machine = selectMachine("wasm");
  const arena = new Arena(1 << 16);
  const graph = new Graph();
  const x = graph.input("x", tiled(16, 64));
  graph.output("y", graph.apply(gelu, {}, [x])[0]);
  const target = { lanes: machine.lanes, vectorRegisters: machine.vectorRegisters, tile: 64, workers: 1 };
  const bindings = new Map([[x, arena.allocate(16 * 64 * 4, "x")]]);
  const plan = planGraph(graph, { target, bindings, base: arena.usedBytes });
  arena.allocate(planBytes(plan), "plan");

  const executor = new TimingExecutor(machine, 1, arena);
  const program = await prepare(executor, plan);
  assert.deepEqual(executor.times(), []);
  for (const calls of [1, 2]) {
    await executor.run(program);
    const [time, ...others] = executor.times();
    assert.deepEqual(others, []);
    assert.equal(time.operation, "gelu");
    assert.equal(time.calls, calls);
    assert(time.ms >= 0);
  }
  executor.reset();
  assert.deepEqual(executor.times(), []);
  await executor.dispose();
  await assert.rejects(executor.run(program), /disposed/);
  await assert.rejects(executor.link(plan.kernels), /disposed/);
});
