/** Phases on a trainer: who is pruned, by what, to what, and what the trainer makes of it. */
import assert from "node:assert/strict";
import { presetConfig } from "../../models/presets.ts";
import { poolFactory } from "../../workers/pool.ts";
import { InputError } from "../core/errors.ts";
import type { EncodedExample } from "../data/batches.ts";
import { selectMachine } from "../machines/mod.ts";
import { type ExecutorFactory, InlineExecutor } from "../plan/executor.ts";
import { hasBit, popcount } from "../pruning/bitset.ts";
import { checkPattern, type Pattern } from "../pruning/pattern.ts";
import type { PruningPhase } from "../pruning/phase.ts";
import { constantSchedule, pruningSchedule } from "../pruning/schedule.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { allPrunable } from "../pruning/targets.ts";
import { sparsePatternOf } from "./compact.ts";
import type { ParameterSlot } from "./parameters.ts";
import { refreshMasks, trainingPatternOf } from "./prune.ts";
import { classifier } from "./tasks/classification.ts";
import { Trainer } from "./trainer.ts";

const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 100, maximumPositions: 16, labels: ["a", "b"] }),
  ...{ hiddenSize: 48, heads: 3, intermediateSize: 96, layers: 2 },
};

const inline: ExecutorFactory = ({ machine, threads, arena }) =>
  Promise.resolve(new InlineExecutor(machine, threads, arena));

async function makeTrainer(
  pattern: Pattern = "unstructured",
  createExecutor = inline,
): Promise<Trainer<EncodedExample>> {
  const trainer = await Trainer.create({
    model: classifier(config),
    machine: selectMachine(),
    workers: 2,
    createExecutor,
    maximumSequences: 2,
    maximumTokens: 16,
    seed: 1,
    optimizer: { name: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-6, amsgrad: false },
    maximumNorm: 1,
    pattern,
  });
  trainer.initialise();
  return trainer;
}

const step = (trainer: Trainer<EncodedExample>, number: number) => {
  const ids = Int32Array.of(1, 7, 9, 30, 2);
  const batch = [{ ids, typeIds: new Uint8Array(5), label: number % 2 }];
  return trainer.step([batch], number, { learningRate: 1e-2, weightDecay: 0 });
};

const oneShot = (finalSparsity: number) =>
  pruningSchedule("one-shot", { initialSparsity: 0, finalSparsity, begin: 0, end: 0, every: 1 });

const phase = (changes: Partial<PruningPhase>): PruningPhase => ({
  method: { name: "magnitude" },
  pattern: "unstructured",
  scope: "layer",
  targets: [allPrunable],
  schedule: oneShot(0.5),
  ...changes,
});

const prunable = ({ layout }: Trainer<EncodedExample>) => layout.slots.filter(({ name }) => isPrunable(name));
const maskOf = (trainer: Trainer<EncodedExample>, { offset, length }: ParameterSlot) =>
  trainer.mask.slice(offset / 32, offset / 32 + Math.ceil(length / 32));
const zerosOf = (trainer: Trainer<EncodedExample>, slot: ParameterSlot) =>
  slot.length - popcount(maskOf(trainer, slot));

/** Weights and the optimiser's states are zero where the mask is. */
function assertZeroed(trainer: Trainer<EncodedExample>): void {
  for (const slot of prunable(trainer)) {
    const mask = maskOf(trainer, slot);
    for (const array of [trainer.weights, ...trainer.states.values()]) {
      for (let i = 0; i < slot.length; i++) {
        if (!hasBit(mask, i)) assert.equal(array[slot.offset + i], 0, `${slot.name}[${i}]`);
      }
    }
  }
}

Deno.test("phases prune their own targets, each in its pattern, scope and sparsity", async () => {
  const trainer = await makeTrainer();
  const queries = "re:.*query";
  await step(trainer, 1);
  await trainer.settle();
  await refreshMasks(trainer, phase({ targets: [queries], pattern: "2:4" }), 0);
  const reached = await refreshMasks(
    trainer,
    phase({ targets: ["re:.*output.dense"], pattern: "[4,8]", scope: "global", schedule: oneShot(0.75) }),
    0,
  );
  const slots = prunable(trainer);
  let [pruned, weights, ofOutputs, inOutputs] = [0, 0, 0, 0];
  for (const slot of slots) {
    const mask = maskOf(trainer, slot);
    const zeros = zerosOf(trainer, slot);
    pruned += zeros;
    weights += slot.length;
    if (slot.name.includes("query")) {
      for (let group = 0; group < slot.length; group += 4) {
        const kept = [0, 1, 2, 3].filter((i) => hasBit(mask, group + i)).length;
        assert.equal(kept, 2, `${slot.name}, group at ${group}`);
      }
    } else if (slot.name.includes("output.dense")) {
      ofOutputs += slot.length;
      inOutputs += zeros;
      const columns = slot.shape[1];
      for (let i = 0; i < slot.length; i++) {
        const [row, column] = [Math.floor(i / columns), i % columns];
        const first = (row - row % 4) * columns + column - column % 8;
        assert.equal(hasBit(mask, i), hasBit(mask, first), `${slot.name}[${row}, ${column}]`);
      }
    } else assert.equal(zeros, 0, slot.name);
  }
  assert.equal(inOutputs / ofOutputs, 0.75);
  assert.equal(reached, pruned / weights);
  assertZeroed(trainer);
  await trainer.dispose();
});

Deno.test("workers prune the same, and leave what is no target alone", async () => {
  const masks: Uint32Array[] = [];
  for (const executor of [inline, poolFactory()]) {
    const trainer = await makeTrainer("unstructured", executor);
    await refreshMasks(trainer, phase({ targets: ["re:.*key"], pattern: "1x4" }), 0);
    await refreshMasks(trainer, phase({ targets: ["re:.*intermediate"], pattern: "1:2" }), 0);
    await refreshMasks(trainer, phase({ targets: ["re:.*output"], scope: "global" }), 0);
    masks.push(trainer.mask.slice());
    assertZeroed(trainer);
    await trainer.dispose();
  }
  assert.deepEqual(masks[1], masks[0]);
});

Deno.test("every pattern trains on: pruned weights stay zero, whichever kernels run", async () => {
  for (const pattern of ["1x4", "2:4", "1:4", "[8,1]", "[4,8]", "[16,16]"] as const) {
    const trainer = await makeTrainer(pattern);
    const slots = prunable(trainer);
    checkPattern(pattern, slots.map(({ name, shape: [rows, columns] }) => ({ name, rows, columns })));
    const sparsity = pattern === "2:4" ? 0.5 : 0.75;
    const reached = await refreshMasks(trainer, phase({ pattern, schedule: oneShot(sparsity) }), 0);
    // 9 blocks of 16 × 16 in a matrix: 7 of them.
    assert.ok(Math.abs(reached - sparsity) < 0.03, `${pattern}: ${reached}`);
    const masks = slots.map((slot) => maskOf(trainer, slot));
    for (const number of [1, 2, 3]) assert.ok(Number.isFinite((await step(trainer, number)).loss));
    assert.equal(trainer.sparseMatrices > 0, pattern !== "2:4", `${pattern}: ${trainer.sparseMatrices}`);
    await trainer.settle();
    assertZeroed(trainer);
    assert.deepEqual(slots.map((slot) => maskOf(trainer, slot)), masks);
    await trainer.dispose();
  }
});

Deno.test("a ramp of N:M grows and ends exact", async () => {
  const trainer = await makeTrainer();
  const schedule = pruningSchedule("cubic", {
    ...{ initialSparsity: 0.1, finalSparsity: 0.5, begin: 0, end: 4, every: 1 },
  });
  let before = trainer.mask.slice();
  const reached: number[] = [];
  for (let number = 0; number <= 4; number++) {
    await trainer.settle();
    reached.push(await refreshMasks(trainer, phase({ pattern: "2:4", schedule }), number));
    assert.ok(trainer.mask.every((word, index) => (word & ~before[index]) === 0));
    before = trainer.mask.slice();
    await step(trainer, number + 1);
  }
  // 0.49375 is as near as makes an end.
  const wanted = [0.1, 0.33125, 0.45, 0.5, 0.5];
  reached.forEach((sparsity, number) => assert.ok(Math.abs(sparsity - wanted[number]) < 1e-3, `${reached}`));
  assert.equal(reached.at(-1), 0.5);
  await trainer.dispose();
});

Deno.test("constant holds the zeros of the weights, and refuses a model without any", async () => {
  const trainer = await makeTrainer();
  const constant = phase({ method: { name: "constant" }, schedule: constantSchedule(0) });
  await assert.rejects(refreshMasks(trainer, constant, 0), (error: Error) => {
    assert.ok(error instanceof InputError);
    assert.match(
      error.message,
      /^Pruning method constant finds no zero among the \d+ weights of its targets: /,
    );
    return true;
  });
  const [first, second] = prunable(trainer);
  trainer.parameter(first).fill(0, 100, 300);
  trainer.parameter(second).fill(0, 5, 10);
  await refreshMasks(trainer, { ...constant, targets: [first.name] }, 0);
  assert.equal(zerosOf(trainer, first), 200);
  assert.equal(zerosOf(trainer, second), 0, "no target");
  await step(trainer, 1);
  await trainer.settle();
  assert.ok(trainer.parameter(first).subarray(100, 300).every((value) => value === 0));
  assert.ok(trainer.parameter(second).subarray(5, 10).some((value) => value !== 0));
  await trainer.dispose();
});

Deno.test("refreshMasks leaves methods with scores to others", async () => {
  const trainer = await makeTrainer();
  const movement = phase({ method: { name: "movement", scoreLearningRate: 1e-2 } });
  await assert.rejects(refreshMasks(trainer, movement, 0), /by movement without scores/);
  await trainer.dispose();
});

Deno.test("trainers know blocks of whole groups of four outputs, where all phases have them", () => {
  assert.equal(sparsePatternOf("4x1"), "4x1");
  assert.equal(sparsePatternOf("[8,3]", "4x1"), "4x1");
  for (const patterns of [[], ["1x4"], ["2:4"], ["[6,2]"], ["4x1", "unstructured"]] as Pattern[][]) {
    assert.equal(sparsePatternOf(...patterns), "unstructured");
  }
  assert.equal(trainingPatternOf([phase({ pattern: "[4,4]" }), phase({ pattern: "4x1" })]), "4x1");
  const constant = phase({ pattern: "4x1", method: { name: "constant" } });
  assert.equal(trainingPatternOf([phase({ pattern: "4x1" }), constant]), "unstructured");
});
