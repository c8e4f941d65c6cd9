/** A tiny BERT trained with lazy steps of its word table, as a trainer puts them together, against dense steps. */
import assert from "node:assert/strict";
import { bertInputs, buildBert } from "../../../models/bert.ts";
import { presetConfig } from "../../../models/presets.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { packBatch } from "../../data/batches.ts";
import { differentiate } from "../../graph/autodiff.ts";
import { byteLength, elementCount, Graph, indices, type Value } from "../../graph/graph.ts";
import { selectMachine } from "../../machines/mod.ts";
import { Arena } from "../../plan/arena.ts";
import { InlineExecutor, prepare } from "../../plan/executor.ts";
import { planGraph } from "../../plan/plan.ts";
import { DistinctRows, distinctRowsGradient } from "../embedding/distinct_rows.ts";
import { globalNormPartials, globalNormSteps } from "../global_norm/steps.ts";
import { firstBitDifference } from "../run_operation.ts";
import { catchUpSteps, flushSteps, type LazyTable, StepHistory, updateRowsSteps } from "./lazy.ts";
import { updateRule } from "./optimizers.ts";
import { type UpdateRange, updateSteps } from "./steps.ts";

const rule = updateRule({ name: "adamw", beta1: 0.9, beta2: 0.99, epsilon: 1e-8, amsgrad: false });
const scalarCount = rule.scalars.length;

const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 300, maximumPositions: 16 }),
  ...{ hiddenSize: 16, heads: 2, intermediateSize: 32 },
};
const words = "bert.embeddings.word_embeddings.weight";
const [columns, sequences, steps] = [32, 16, 60];

/** Losses of all steps, and all parameters at the end. */
async function train(lazy: boolean, workers: number): Promise<Map<string, Float32Array>> {
  const machine = selectMachine();
  const { lanes, vectorRegisters } = machine;
  const target = { lanes, vectorRegisters, tile: lanes, workers };
  const arena = new Arena(2 ** 23);
  const place = (bytes: number) => arena.allocate(bytes, "test");

  // The graph, with its parameters and inputs bound.
  const graph = new Graph();
  const { loss } = buildBert(graph, config, { columns, sequences, mode: "train" });
  const gradients = differentiate(graph, loss!);
  const capacity = Math.min(columns, config.vocabularySize);
  const slots = graph.input("wordSlots", indices(columns));
  if (lazy) gradients.set(words, distinctRowsGradient(graph, gradients.get(words)!, slots, capacity));
  const bindings = new Map<Value, number>();
  for (const value of [...graph.parameters.values(), ...graph.inputs.values(), ...gradients.values()]) {
    bindings.set(value, place(byteLength(value.type)));
  }
  for (const [name, gradient] of gradients) graph.output(`gradient.${name}`, gradient);
  const address = (value: Value) => bindings.get(value)!;
  const floats = (value: Value) => arena.float32(address(value), elementCount(value.type));
  const random = new RandomStream(randomKey(5, "weights"));
  for (const value of graph.parameters.values()) {
    floats(value).forEach((_, index, array) => array[index] = 0.05 * random.normal());
  }

  // The optimiser: the word table lazily or like the others.
  const [scalars, norm] = [place(4 * scalarCount), place(8)];
  const moments = new Map(Array.from(gradients.keys(), (name) => {
    const bytes = byteLength(graph.parameters.get(name)!.type);
    return [name, [place(bytes), place(bytes)]];
  }));
  const ranges = Array.from(gradients, ([name, gradient]): UpdateRange => ({
    weights: address(graph.parameters.get(name)!),
    gradients: address(gradient),
    states: moments.get(name)!,
    scalars,
    count: elementCount(gradient.type),
  }));
  const norms = ranges.map(({ gradients, count }) => ({ address: gradients, count }));
  const partials = place(4 * globalNormPartials(norms));
  const historyCapacity = 25;
  const [firstMoment, secondMoment] = moments.get(words)!;
  const table: LazyTable = {
    weights: address(graph.parameters.get(words)!),
    firstMoment,
    secondMoment,
    rows: config.vocabularySize,
    features: config.hiddenSize,
    lastSteps: place(4 * config.vocabularySize),
    history: place(4 * historyCapacity * scalarCount),
    historyLength: place(4),
  };
  const list = { address: place(4 * capacity), capacity };
  const dense = gradients.keys().toArray().map((name, index) => ({ name, range: ranges[index] }))
    .filter(({ name }) => !lazy || name !== words).map(({ range }) => range);
  const clip = norm + 4;
  const epilogue = [
    ...globalNormSteps({ gradients: norms, partials, result: norm, maximumNorm: 0, workers }),
    ...updateSteps({ rule, ranges: dense, clip, workers }),
    ...(lazy
      ? updateRowsSteps({ table, list, gradients: address(gradients.get(words)!), clip, workers })
      : []),
  ];
  const prologue = lazy ? catchUpSteps({ table, list, workers }) : [];
  const executor = new InlineExecutor(machine, workers, arena);
  const base = place(2 ** 20);
  const plan = planGraph(graph, { target, bindings, base, prologue, epilogue });
  assert.ok(plan.activationBytes + plan.scratchBytes <= 2 ** 20);
  const program = await prepare(executor, plan);
  const flush = await prepare(
    executor,
    planGraph(new Graph(), { target, bindings: new Map(), base, epilogue: flushSteps({ table, workers }) }),
  );
  const history = new StepHistory(rule, {
    history: arena.float32(table.history, historyCapacity * scalarCount),
    historyLength: arena.int32(table.historyLength, 1),
  });
  const flushTable = async () => {
    await executor.run(flush);
    history.clear();
  };

  const integers = (name: string) => {
    const value = graph.inputs.get(name)!;
    return arena.int32(address(value), elementCount(value.type));
  };
  const views = {
    tokenIds: integers(bertInputs.tokenIds),
    positionIds: integers(bertInputs.positionIds),
    typeIds: integers(bertInputs.typeIds),
    offsets: integers(bertInputs.offsets),
    firstTokens: integers(bertInputs.firstTokens),
    labels: integers(bertInputs.labels),
  };
  const distinct = new DistinctRows(config.vocabularySize);
  const losses = new Float32Array(steps);
  for (let step = 1; step <= steps; step++) {
    const examples = Array.from({ length: 3 }, (_, label) => {
      const ids = Int32Array.from(
        { length: 3 + random.below(7) },
        () => Math.floor(300 * random.uniform() ** 3),
      );
      return { ids, typeIds: new Uint8Array(ids.length), label: label % 2 };
    });
    packBatch(examples, views);
    distinct.list(views.tokenIds, arena.int32(list.address, capacity), integers("wordSlots"));
    integers(bertInputs.seed).set([step, 9]);
    const block = rule.scalarsOf({ learningRate: 0.01 * (1 - step / 80), weightDecay: 0.1 }, step);
    arena.float32(scalars, scalarCount).set(block);
    if (lazy && history.isFull) await flushTable();
    if (lazy) history.begin(block);
    // A norm that overflows: the step is skipped.
    const classifier = floats(graph.parameters.get("classifier.weight")!);
    const before = classifier[0];
    if (step === 7) classifier[0] = Infinity;
    await executor.run(program);
    if (step === 7) classifier[0] = before;
    assert.equal(Number.isFinite(arena.float32(clip, 1)[0]), step !== 7);
    if (lazy) history.end(arena.float32(clip, 1)[0]);
    losses[step - 1] = arena.float32(plan.outputs.get("loss")!.address, 1)[0];
  }
  if (lazy) await flushTable();
  const parameters = Array.from(graph.parameters, ([name, value]) => [name, floats(value).slice()] as const);
  return new Map([["losses", losses], ...parameters]);
}

Deno.test("a BERT trained with lazy steps has the losses and weights of one trained with dense steps, as bits", async () => {
  const expected = await train(false, 1);
  assert.ok(expected.get("losses")!.filter(Number.isFinite).length === steps - 1);
  for (const workers of [1, 2, 3]) {
    const found = await train(true, workers);
    for (const [name, values] of expected) {
      assert.equal(firstBitDifference(found.get(name)!, values), -1, `${name}, ${workers} workers`);
    }
  }
});
