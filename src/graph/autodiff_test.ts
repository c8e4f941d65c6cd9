/** Checkpoints: the same gradients, as bits, in less memory. The rules themselves are checked by `models/bert_test.ts`. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { bertInputs, buildBert } from "../../models/bert.ts";
import { presetConfig } from "../../models/presets.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { makeBatchViews, packBatch } from "../data/batches.ts";
import { gelu } from "../kernels/gelu/operation.ts";
import { firstBitDifference } from "../kernels/run_operation.ts";
import { availableMachines, type Machine } from "../machines/mod.ts";
import { Arena } from "../plan/arena.ts";
import { InlineExecutor, prepare } from "../plan/executor.ts";
import { type Plan, planBytes, planGraph } from "../plan/plan.ts";
import { programBytes } from "../plan/program.ts";
import { differentiate, liveNodes } from "./autodiff.ts";
import { byteLength, elementCount, Graph, tiled, type Value } from "./graph.ts";
import { interpret } from "./interpreter.ts";
import type { NumberArray } from "./operation.ts";

const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 50, maximumPositions: 16 }),
  ...{ hiddenSize: 8, heads: 2, intermediateSize: 12, layers: 4 },
};

/** A training graph that keeps the hidden states of some layers, and the gradients by parameter name. */
function trainingGraph(layers: readonly number[], columns: number, sequences: number) {
  const graph = new Graph();
  const { loss, hidden } = buildBert(graph, config, { columns, sequences, mode: "train" });
  const forward = graph.nodes.length;
  const gradients = differentiate(graph, loss!, { checkpoints: layers.map((layer) => hidden[layer]) });
  for (const [name, gradient] of gradients) graph.output(name, gradient);
  return { graph, gradients, forward };
}

/** Random weights, and a batch of three sequences. */
function makeFeeds(graph: Graph, columns: number, sequences: number): Map<string, NumberArray> {
  const random = new RandomStream(randomKey(3, "checkpoints"));
  const views = makeBatchViews({ columns, sequences });
  const batch = [5, 9, 2].map((length, label) => ({
    ids: Int32Array.from({ length }, () => random.below(50)),
    typeIds: new Uint8Array(length),
    label: label % 2,
  }));
  packBatch(batch, views);
  const feeds = new Map<string, NumberArray>(
    Object.entries({ ...views, [bertInputs.seed]: Int32Array.of(12, 34) }),
  );
  for (const [name, { type }] of graph.parameters) {
    feeds.set(name, Float32Array.from({ length: elementCount(type) }, () => 0.3 * random.normal()));
  }
  return feeds;
}

Deno.test("differentiate gives the same gradients, bit for bit, whatever the checkpoints", () => {
  const [columns, sequences] = [16, 4];
  const run = (layers: readonly number[]) => {
    const { graph, gradients } = trainingGraph(layers, columns, sequences);
    const values = interpret(graph, makeFeeds(graph, columns, sequences));
    return new Map(Array.from(gradients, ([name, { id }]) => [name, values.get(id)!]));
  };
  const expected = run([]);
  fc.assert(
    fc.property(fc.shuffledSubarray([0, 1, 2, 3]), (layers) => {
      const found = run(layers);
      assert.deepEqual([...found.keys()], [...expected.keys()]);
      for (const [name, gradient] of expected) {
        assert.ok(gradient.some((value) => value !== 0), name);
        assert.equal(firstBitDifference(found.get(name)!, gradient), -1, name);
      }
    }),
    { numRuns: 16 },
  );
});

Deno.test("differentiate runs again what lies before the last checkpoint, and nothing after it", () => {
  const plain = liveNodes(trainingGraph([], 16, 4).graph).length;
  const { forward } = trainingGraph([], 16, 4);
  const extra = (layers: readonly number[]) => liveNodes(trainingGraph(layers, 16, 4).graph).length - plain;
  // Embedding, LayerNorm and dropout, then 9 nodes a layer: 5 products, attention, dropout, LayerNorm, GELU. The last
  // product, its dropout and its LayerNorm only run again when another layer of the stretch comes after them.
  assert.equal(extra([0]), 3 + 9);
  assert.equal(extra([0, 1, 2]), 3 + 3 * 9);
  assert.equal(extra([2]), 3 + 2 * 12 + 9);
  assert.ok(extra([0, 1, 2, 3]) < forward);
});

Deno.test("differentiate names what cannot be a checkpoint", () => {
  const graph = new Graph();
  const { loss } = buildBert(graph, config, { columns: 16, sequences: 4, mode: "train" });
  const seed = graph.inputs.get(bertInputs.seed)!;
  assert.throws(() => differentiate(graph, loss!, { checkpoints: [seed] }), /Cannot checkpoint seed/);
  const late = graph.apply(gelu, {}, [graph.input("x", tiled(8, 16))])[0];
  assert.throws(
    () => differentiate(graph, loss!, { checkpoints: [late] }),
    /wanted values that the loss comes after/,
  );
});

function planOf(
  graph: Graph,
  machine: Machine,
  workers: number,
  bindings: Map<Value, number>,
  base: number,
): Plan {
  const { lanes, vectorRegisters } = machine;
  return planGraph(graph, { target: { lanes, vectorRegisters, tile: lanes, workers }, bindings, base });
}

for (const machine of availableMachines()) {
  Deno.test(`kernels give the same gradients, bit for bit, whatever the checkpoints, ${machine.isa}`, async () => {
    const [columns, sequences] = [32, 16];
    let expected: Map<string, Float32Array> | undefined;
    for (const [layers, workers] of [[[], 1], [[0, 1, 2], 2], [[1, 3], 3], [[0, 1, 2, 3], 1]] as const) {
      const { graph } = trainingGraph(layers, columns, sequences);
      const bindings = new Map<Value, number>();
      let base = 64;
      for (const value of [...graph.parameters.values(), ...graph.inputs.values()]) {
        bindings.set(value, base);
        base += Math.ceil(byteLength(value.type) / 64) * 64;
      }
      const plan = planOf(graph, machine, workers, bindings, base);
      const arena = new Arena(base + planBytes(plan) + programBytes(plan) + 4096);
      // Whatever is read before it is written is NaN, and so is the gradient then.
      arena.float32(0, arena.byteLength / 4).fill(NaN);
      arena.allocate(base + planBytes(plan), "values");
      const feeds = makeFeeds(graph, columns, sequences);
      for (const [{ name, type }, address] of bindings) {
        const count = elementCount(type);
        const view = type.dtype === "i32" ? arena.int32(address, count) : arena.float32(address, count);
        view.set(feeds.get(name)!);
      }
      const executor = new InlineExecutor(machine, workers, arena);
      await executor.run(await prepare(executor, plan));
      const found = new Map(Array.from(
        plan.outputs,
        ([name, { address, type }]) => [name, arena.float32(address, elementCount(type)).slice()],
      ));
      for (const gradient of found.values()) assert.ok(gradient.every(Number.isFinite));
      expected ??= found;
      for (const [name, gradient] of expected) {
        assert.equal(firstBitDifference(found.get(name)!, gradient), -1, `${name}, checkpoints ${layers}`);
      }
    }
  });
}

Deno.test("checkpoints bring BERT-base at 32 × 128 tokens from gigabytes to one layer and two states per layer", () => {
  const columns = 32 * 128;
  const base = presetConfig("bert-base");
  const activationBytes = (count: number) => {
    const graph = new Graph();
    const { loss, hidden } = buildBert(graph, base, { columns, sequences: 64, mode: "train" });
    const bindings = new Map<Value, number>();
    for (const value of [...graph.parameters.values(), ...graph.inputs.values()]) bindings.set(value, 0);
    for (const [name, gradient] of differentiate(graph, loss!, { checkpoints: hidden.slice(0, count) })) {
      graph.output(name, gradient);
      bindings.set(gradient, 0);
    }
    return planGraph(graph, {
      target: { lanes: 16, vectorRegisters: 32, tile: 64, workers: 2 },
      bindings,
      base: 0,
    }).activationBytes;
  };
  const state = 4 * base.hiddenSize * columns;
  const kept = activationBytes(0);
  const checkpointed = activationBytes(base.layers - 1);
  // A layer keeps 16 states' worth: q, k, v, context, two sums, two results, and the intermediate twice at 4 each.
  assert.ok(kept > 12 * 16 * state, `${kept} bytes`);
  // Besides, the gradients under way: at most 4 of the intermediate's size and 4 states.
  assert.ok(checkpointed < (2 * 12 + 16 + 8) * state, `${checkpointed} bytes`);
  assert.ok(activationBytes(base.layers) >= checkpointed, "keeping the last state as well saves nothing");
});
