/**
 * Training of a pruned BERT on its stored weights alone against training of the same model with dense matrices full of
 * zeros: the references in float64, then the kernels.
 */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { makeBatchViews, packBatch } from "../src/data/batches.ts";
import { differentiate } from "../src/graph/autodiff.ts";
import { byteLength, elementCount, Graph, type Value, type ValueType } from "../src/graph/graph.ts";
import { interpret } from "../src/graph/interpreter.ts";
import type { NumberArray } from "../src/graph/operation.ts";
import type { SparsePattern } from "../src/kernels/sparse_matmul/pack.ts";
import {
  putStored,
  takeStored,
  type TrainingStructure,
  trainingStructure,
} from "../src/kernels/sparse_matmul/training_structure.ts";
import { availableMachines, type Machine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { InlineExecutor, prepare } from "../src/plan/executor.ts";
import { planBytes, planGraph } from "../src/plan/plan.ts";
import { isPrunable } from "../src/pruning/sparsity.ts";
import { buildBert } from "./bert.ts";
import { sparseInputs } from "./encoder.ts";
import type { BertConfig } from "./config.ts";
import { parseBertConfig } from "./config.ts";

const config: BertConfig = {
  ...parseBertConfig({
    model_type: "bert",
    vocab_size: 30,
    hidden_size: 16,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    // No multiple of four: blocks of 4x1 end in one of two rows.
    intermediate_size: 38,
    max_position_embeddings: 12,
    type_vocab_size: 2,
  }, "test"),
  labels: ["a", "b", "c"],
};
const [columns, sequences] = [32, 16];

/** A training graph whose gradients are outputs, and the values it is fed with. */
interface Model {
  readonly graph: Graph;
  readonly loss: Value;
  readonly gradients: ReadonlyMap<string, Value>;
  readonly feeds: ReadonlyMap<string, NumberArray>;
}

function finish(graph: Graph, loss: Value, feeds: ReadonlyMap<string, NumberArray>): Model {
  const gradients = differentiate(graph, loss);
  for (const [name, gradient] of gradients) graph.output(`gradient of ${name}`, gradient);
  return { graph, loss, gradients, feeds };
}

function batchFeeds(random: RandomStream): Map<string, NumberArray> {
  const views = makeBatchViews({ columns, sequences });
  const examples = [7, 1, 12].map((length, label) => ({
    ids: Int32Array.from({ length }, () => Math.floor(random.uniform() * config.vocabularySize)),
    typeIds: new Int32Array(length),
    label,
  }));
  packBatch(examples, views);
  return new Map<string, NumberArray>(Object.entries({ ...views, seed: Int32Array.of(5, 6) }));
}

/** The dense model with zeros, the sparse one, and where the stored weights of the latter belong. */
function makePair(pattern: SparsePattern): {
  readonly dense: Model;
  readonly sparse: Model;
  readonly layers: ReadonlyMap<string, TrainingStructure>;
} {
  const random = new RandomStream(randomKey(1, pattern));
  const batch = batchFeeds(random);
  const options = { columns, sequences, mode: "train" } as const;
  const dense = new Graph();
  const denseLoss = buildBert(dense, config, options).loss!;
  const denseFeeds = new Map(batch);
  const sparseFeeds = new Map(batch);
  const layers = new Map<string, TrainingStructure>();
  for (const [name, { type }] of dense.parameters) {
    const weight = Float32Array.from({ length: elementCount(type) }, () => 0.3 * random.normal());
    denseFeeds.set(name, weight);
    if (!isPrunable(name)) {
      sparseFeeds.set(name, weight);
      continue;
    }
    const [rows, depth] = type.shape;
    const cut = { panelInputs: 9, blockRows: 12 };
    const mask = blockMask(random, pattern, rows, depth);
    const layer = trainingStructure({ rows, depth, mask, pattern, cut, transposedCut: cut });
    const values = new Float32Array(layer.positions.length);
    takeStored(weight, layer.positions, values);
    putStored(values, layer.positions, weight);
    layers.set(name, layer);
    sparseFeeds.set(name, values);
    const inputs = sparseInputs(name);
    sparseFeeds.set(inputs.indices, layer.indices);
    if (layer.transposed) {
      sparseFeeds.set(inputs.transposedIndices, layer.transposed.indices);
      sparseFeeds.set(inputs.permutation, layer.transposed.permutation);
    }
  }
  const sparse = new Graph();
  const structures = new Map(Array.from(layers, ([name, { structure }]) => [name, structure]));
  const transposed = new Map(
    Array.from(layers).flatMap(([name, { transposed }]) => transposed ? [[name, transposed.structure]] : []),
  );
  const sparseLoss = buildBert(sparse, config, { ...options, sparse: structures, transposed }).loss!;
  return {
    dense: finish(dense, denseLoss, denseFeeds),
    sparse: finish(sparse, sparseLoss, sparseFeeds),
    layers,
  };
}

/** A third of the blocks, the first group of rows empty. */
function blockMask(random: RandomStream, pattern: SparsePattern, rows: number, depth: number): Uint32Array {
  const height = pattern === "4x1" ? 4 : 1;
  const mask = new Uint32Array(Math.ceil(rows * depth / 32));
  for (let first = height; first < rows; first += height) {
    for (let input = 0; input < depth; input++) {
      if (random.uniform() < 2 / 3) continue;
      for (let row = first; row < Math.min(rows, first + height); row++) {
        const bit = row * depth + input;
        mask[bit >>> 5] |= 1 << (bit & 31);
      }
    }
  }
  return mask;
}

/** Loss and gradients by the references in float64. */
function interpreted({ graph, loss, gradients, feeds }: Model): Map<string, NumberArray> {
  const values = interpret(
    graph,
    new Map(
      Array.from(
        feeds,
        ([name, array]) => [name, array instanceof Float32Array ? Float64Array.from(array) : array],
      ),
    ),
  );
  const results = new Map<string, NumberArray>([["loss", values.get(loss.id)!]]);
  for (const [name, gradient] of gradients) results.set(name, values.get(gradient.id)!);
  return results;
}

/** The same by the kernels of a machine. */
async function computed(
  { graph, gradients, feeds }: Model,
  machine: Machine,
): Promise<Map<string, NumberArray>> {
  const arena = new Arena(16 << 20);
  const bindings = new Map<Value, number>();
  for (const value of [...graph.parameters.values(), ...graph.inputs.values()]) {
    const address = arena.allocate(byteLength(value.type), value.name);
    bindings.set(value, address);
    view(arena, value.type, address).set(feeds.get(value.name)!);
  }
  const { lanes, vectorRegisters } = machine;
  const target = { lanes, vectorRegisters, tile: 16, workers: 2 };
  const plan = planGraph(graph, { target, bindings, base: arena.usedBytes });
  arena.allocate(planBytes(plan), "activations");
  const executor = new InlineExecutor(machine, target.workers, arena);
  await executor.run(await prepare(executor, plan));
  const read = (name: string) => {
    const { type, address } = plan.outputs.get(name)!;
    return view(arena, type, address).slice();
  };
  const results = new Map<string, NumberArray>([["loss", read("loss")]]);
  for (const name of gradients.keys()) results.set(name, read(`gradient of ${name}`));
  return results;
}

function view(
  arena: Arena,
  { dtype, shape }: ValueType,
  address: number,
): Float32Array | Int32Array | Uint8Array {
  const count = shape.reduce((product, size) => product * size, 1);
  if (dtype === "u8") return arena.bytes(address, count);
  return dtype === "i32" ? arena.int32(address, count) : arena.float32(address, count);
}

/** Checks results of the sparse model against those of the dense one, whose gradients are read where weights are stored. */
function compare(
  where: string,
  found: ReadonlyMap<string, NumberArray>,
  expected: ReadonlyMap<string, NumberArray>,
  layers: ReadonlyMap<string, TrainingStructure>,
  tolerance: number,
): void {
  assert.deepEqual([...found.keys()].sort(), [...expected.keys()].sort());
  for (const [name, values] of found) {
    const dense = expected.get(name)!;
    const positions = layers.get(name)?.positions;
    const wanted = positions
      ? Float64Array.from(positions, (position) => position < 0 ? 0 : dense[position])
      : Float64Array.from(dense);
    assert.equal(values.length, wanted.length, name);
    const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
    values.forEach((value, i) => {
      if (Math.abs(value - wanted[i]) <= tolerance * largest) return;
      assert.fail(`${where}: ${name} element ${i} is ${value}, wanted ${wanted[i]}`);
    });
  }
}

for (const pattern of ["unstructured", "4x1"] as const) {
  Deno.test(`a BERT pruned ${pattern} has the loss and the gradients of its dense twin, dropout included`, async (t) => {
    const { dense, sparse, layers } = makePair(pattern);
    assert.equal(layers.size, 12);
    const operations = new Set(sparse.graph.nodes.map(({ operation }) => operation.name));
    assert.equal(operations.has("gatherValues"), pattern === "unstructured");
    assert.equal(operations.has("sparseMatmulInputGradient"), pattern === "4x1");
    const expected = interpreted(dense);
    compare("references", interpreted(sparse), expected, layers, 1e-9);
    for (const machine of availableMachines()) {
      await t.step(machine.isa, async () => {
        compare(machine.isa, await computed(sparse, machine), expected, layers, 2e-5);
      });
    }
  });
}
