import assert from "node:assert/strict";
import { presetConfig } from "../../models/presets.ts";
import { poolFactory } from "../../workers/pool.ts";
import { InputError } from "../core/errors.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import type { EncodedExample } from "../data/batches.ts";
import { availableMachines, selectMachine } from "../machines/mod.ts";
import { type ExecutorFactory, InlineExecutor } from "../plan/executor.ts";
import { hasBit } from "../pruning/bitset.ts";
import { obertDefaults, type ObertOptions } from "../pruning/obert/options.ts";
import { fisherPlaces, gatherPlaces } from "../pruning/obert/places.ts";
import { fisherMatrix, invert, surgeon } from "../pruning/obert/reference.ts";
import { blockShape, type Pattern } from "../pruning/pattern.ts";
import type { PruningPhase } from "../pruning/phase.ts";
import { pruningSchedule } from "../pruning/schedule.ts";
import { allPrunable } from "../pruning/targets.ts";
import { obertRefresh, type ObertRequest } from "./obert.ts";
import { matricesOf, refreshMasks } from "./prune.ts";
import { classifier } from "./tasks/classification.ts";
import { tinyExamples, tinyTrainer } from "./tiny_trainer.ts";
import type { Trainer } from "./trainer.ts";

const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 50, maximumPositions: 16, labels: ["a", "b", "c"] }),
  ...{ hiddenSize: 16, heads: 2, intermediateSize: 32, layers: 1, initializerRange: 0.2 },
};

const inline: ExecutorFactory = ({ machine, threads, arena }) => {
  // Poison: whatever is read before it is written shows as NaN.
  new Uint32Array(arena.memory.buffer).fill(0x7fc0dead);
  return Promise.resolve(new InlineExecutor(machine, threads, arena));
};

const executors = { machine: selectMachine(), workers: 2, createExecutor: inline };

function batchesOf(count: number): EncodedExample[][] {
  const all = tinyExamples(4 * count);
  return Array.from({ length: count }, (_, batch) => all.slice(4 * batch, 4 * batch + 4));
}

async function makeTrainer(maximumSequences = 4): Promise<Trainer<EncodedExample>> {
  const trainer = await tinyTrainer(classifier(config), {
    ...executors,
    maximumSequences,
    maximumTokens: 10 * maximumSequences,
  });
  for (const state of trainer.states.values()) state.fill(0.5);
  // A tenth is pruned already.
  const random = new RandomStream(randomKey(4, "pruned"));
  for (const { values, mask } of matricesOf(trainer)) {
    for (let i = 0; i < values.length; i++) if (random.uniform() < 0.1) mask[i >> 5] &= ~(1 << (i & 31));
  }
  trainer.applyMask();
  return trainer;
}

const options: ObertOptions = { ...obertDefaults, gradients: 20, dampening: 1e-5 };
const batches = batchesOf(options.gradients);

async function prune(
  change: Partial<ObertRequest<EncodedExample>> = {},
): Promise<{ trainer: Trainer<EncodedExample>; sparsity: number; before: Float32Array }> {
  const trainer = await makeTrainer();
  const before = trainer.weights.slice();
  const sparsity = await obertRefresh(trainer, {
    names: new Set(matricesOf(trainer).map(({ name }) => name)),
    pattern: "unstructured",
    scope: "global",
    sparsity: 0.4,
    options,
    batches,
    executors,
    ...change,
  });
  return { trainer, sparsity, before };
}

/** The refresh by its definitions in f64, given which weights it pruned. */
async function checkAgainstReference(pattern: Pattern, jointly: boolean): Promise<void> {
  const changed = { ...options, blockSize: 40, jointly };
  const { trainer, sparsity, before } = await prune({ pattern, options: changed });
  assert.ok(Math.abs(sparsity - 0.4) < 0.06, `sparsity is ${sparsity}`);
  const fresh = await makeTrainer();
  const gradients: Float32Array[] = [];
  for (const batch of batches) {
    await fresh.gradient(batch);
    gradients.push(fresh.gradients.slice());
  }
  let [mostPruned, leastKept] = [-Infinity, Infinity];
  for (const slot of fresh.layout.slots.filter(({ offset }) => offset < fresh.layout.prunableLength)) {
    const mask = fresh.mask.subarray(slot.offset / 32);
    const newMask = trainer.mask.subarray(slot.offset / 32);
    const [rows, columns] = slot.shape;
    const places = fisherPlaces({ rows, columns }, blockShape(pattern), changed.blockSize);
    const { blocks, size, unitSize, unitsPerBlock, units } = places;
    const placed = (of: (index: number) => number) => {
      const values = Float32Array.from({ length: slot.length }, (_, index) => of(index));
      const target = new Float32Array(blocks * size);
      gatherPlaces(values, places, target);
      return target;
    };
    const weights = placed((index) => before[slot.offset + index]);
    const found = placed((index) => trainer.weights[slot.offset + index]);
    const kept = placed((index) => Number(hasBit(newMask, index)));
    const keptBefore = placed((index) => Number(hasBit(mask, index)));
    const masked = gradients.map((gradient) =>
      placed((index) => hasBit(mask, index) ? gradient[slot.offset + index] : 0)
    );
    for (let block = 0; block < blocks; block++) {
      const part = (values: Float32Array) => values.subarray(block * size, (block + 1) * size);
      const inverse = invert(fisherMatrix(masked.map(part), changed.dampening));
      const wanted = Float64Array.from(part(weights));
      const pruned: number[] = [];
      for (let unit = 0; unit < Math.min(unitsPerBlock, units - block * unitsPerBlock); unit++) {
        const members = Array.from({ length: unitSize }, (_, i) => unit * unitSize + i);
        if (members.every((at) => part(keptBefore)[at] === 0)) continue;
        const { cost, change } = surgeon(inverse, part(weights), members);
        if (members.some((at) => part(kept)[at] === 1)) {
          leastKept = Math.min(leastKept, cost);
          continue;
        }
        mostPruned = Math.max(mostPruned, cost);
        pruned.push(...members);
        if (!jointly) change.forEach((value, at) => wanted[at] += value);
      }
      if (jointly) surgeon(inverse, part(weights), pruned).change.forEach((value, at) => wanted[at] += value);
      for (const at of pruned) wanted[at] = 0;
      wanted.forEach((value, at) =>
        assert.ok(
          Math.abs(part(found)[at] - value) < 2e-3,
          `${slot.name}, block ${block}, place ${at}: ${part(found)[at]}, wanted ${value}`,
        )
      );
    }
  }
  assert.ok(mostPruned <= leastKept * (1 + 1e-3), `pruned at ${mostPruned}, kept at ${leastKept}`);
  await trainer.dispose();
  await fresh.dispose();
}

for (const pattern of ["unstructured", "4x1", "1x4", "[2,8]"] as const) {
  Deno.test(`obertRefresh agrees with its definition: ${pattern}`, () =>
    checkAgainstReference(pattern, false));
}

Deno.test("obertRefresh agrees with its definition: weights made up for jointly", () =>
  checkAgainstReference("unstructured", true));

Deno.test("obertRefresh gives the same whatever memory there is, and however many workers", async () => {
  const bytes = 4 * 16 * 32 * (48 + 16 + 8);
  for (const scope of ["global", "layer"] as const) {
    const whole = await prune({ scope });
    let gradients = 0;
    const parts = await prune({
      scope,
      budget: 2 * bytes,
      executors: { ...executors, workers: 3 },
      progress: (done, total) => {
        assert.equal(done, ++gradients);
        assert.ok(done <= total);
      },
    });
    assert.ok(gradients >= 3 * options.gradients, `${gradients} gradients`);
    assert.equal(gradients % options.gradients, 0);
    assert.deepEqual(parts.trainer.mask, whole.trainer.mask);
    assert.deepEqual(parts.trainer.weights, whole.trainer.weights);
    assert.equal(parts.sparsity, whole.sparsity);
    await whole.trainer.dispose();
    await parts.trainer.dispose();
  }
});

Deno.test("obertRefresh runs on a pool's workers as on the calling thread, on every machine alike", async () => {
  const inlined = await prune();
  const pooled = await prune({ executors: { ...executors, createExecutor: poolFactory({ pin: false }) } });
  assert.deepEqual(pooled.trainer.weights, inlined.trainer.weights);
  assert.deepEqual(pooled.trainer.mask, inlined.trainer.mask);
  for (const machine of availableMachines()) {
    const other = await prune({ executors: { ...executors, machine } });
    other.trainer.weights.forEach((value, at) => {
      if (other.trainer.mask[at >> 5] !== inlined.trainer.mask[at >> 5]) return;
      assert.ok(Math.abs(value - inlined.trainer.weights[at]) < 1e-3, `${machine.isa}: weight ${at}`);
    });
    await other.trainer.dispose();
  }
  for (const { trainer } of [inlined, pooled]) await trainer.dispose();
});

Deno.test("obertRefresh zeroes weights and states of what it prunes, and touches no other matrix", async () => {
  const names = new Set(["bert.encoder.layer.0.output.dense.weight"]);
  const { trainer, before } = await prune({ names, scope: "layer", sparsity: 0.5 });
  for (const { offset, length, name } of trainer.layout.slots) {
    const isTarget = names.has(name);
    let pruned = 0;
    for (let index = offset; index < offset + length; index++) {
      const isKept = offset >= trainer.layout.prunableLength || hasBit(trainer.mask, index);
      if (!isKept) {
        pruned++;
        assert.equal(trainer.weights[index], 0);
        for (const state of trainer.states.values()) assert.equal(state[index], 0);
      } else if (!isTarget) assert.equal(trainer.weights[index], before[index]);
    }
    if (isTarget) assert.equal(pruned, length / 2);
  }
  await trainer.dispose();
});

Deno.test("obertRefresh estimates anew on the way where it is told to", async () => {
  let gradients = 0;
  const { trainer, sparsity } = await prune({
    options: { ...options, recomputations: 3 },
    progress: () => gradients++,
  });
  assert.equal(gradients, 3 * options.gradients);
  assert.ok(Math.abs(sparsity - 0.4) < 1e-3);
  await trainer.dispose();
});

Deno.test("obertRefresh prunes N of M, and nothing where there is nothing to prune", async () => {
  const { trainer, sparsity } = await prune({ pattern: "2:4", sparsity: 0.5 });
  assert.ok(sparsity >= 0.5);
  for (const { values } of matricesOf(trainer)) {
    for (let at = 0; at < values.length; at += 4) {
      assert.ok(values.subarray(at, at + 4).filter((value) => value !== 0).length <= 2);
    }
  }
  await trainer.dispose();
  const idle = await prune({ sparsity: 0.01 });
  assert.deepEqual(idle.trainer.weights, idle.before);
  await idle.trainer.dispose();
});

Deno.test("one-shot oBERT raises the loss of a trained model less than magnitude, both ways of making up", async () => {
  const trainer = await makeTrainer(16);
  trainer.mask.fill(0xffffffff);
  trainer.initialise();
  for (const state of trainer.states.values()) state.fill(0);
  trainer.applyMask();
  const random = new RandomStream(randomKey(6, "noise"));
  // A part of the labels is noise, or nothing would depend on the weights in the end.
  const examples = batchesOf(512).flat().map((example) => ({
    ...example,
    label: random.uniform() < 0.15 ? random.below(3) : example.label,
  }));
  const batchAt = (index: number) => examples.slice(16 * (index % 128), 16 * (index % 128) + 16);
  for (let step = 1; step <= 1500; step++) {
    await trainer.step([batchAt(step)], step, { learningRate: 1e-3 * (1 - step / 1501), weightDecay: 0.01 });
  }
  await trainer.settle();
  const trained = trainer.weights.slice();
  const lossAfter = async (prune: () => Promise<number>) => {
    await trainer.settle();
    trainer.mask.fill(0xffffffff);
    trainer.applyMask();
    trainer.weights.set(trained);
    assert.ok(Math.abs(await prune() - 0.9) < 1e-3);
    let loss = 0;
    for (let index = 0; index < 32; index++) loss += (await trainer.evaluate(batchAt(index))).loss / 32;
    return loss;
  };
  const shared = { pattern: "unstructured", scope: "global" } as const;
  const byFisher = (jointly: boolean) =>
    lossAfter(() =>
      obertRefresh(trainer, {
        ...shared,
        names: new Set(matricesOf(trainer).map(({ name }) => name)),
        sparsity: 0.9,
        options: { ...obertDefaults, gradients: 128, dampening: 1e-5, recomputations: 4, jointly },
        batches: Array.from({ length: 128 }, (_, index) => batchAt(index)),
        executors,
      })
    );
  const schedule = pruningSchedule("one-shot", {
    ...{ initialSparsity: 0, finalSparsity: 0.9, begin: 0, end: 0, every: 1 },
  });
  const phase: PruningPhase = {
    ...shared,
    ...{ method: { name: "magnitude" }, targets: [allPrunable], schedule },
  };
  const byMagnitude = await lossAfter(() => refreshMasks(trainer, phase, 0));
  const [summed, joint] = [await byFisher(false), await byFisher(true)];
  const found = `${byMagnitude} by magnitude, ${summed} by oBERT, ${joint} jointly`;
  assert.ok(joint < byMagnitude && summed < byMagnitude, found);
  await trainer.dispose();
});

Deno.test("obertRefresh refuses what cannot be", async () => {
  const refuse = (change: Partial<ObertRequest<EncodedExample>>, message: RegExp) =>
    assert.rejects(
      prune(change),
      (error: Error) => error instanceof InputError && message.test(error.message),
    );
  await refuse({ options: { ...options, dampening: 0 } }, /^Cannot prune by oBERT: dampening is 0, wanted/);
  await refuse(
    { options: { ...options, blockSize: 129 } },
    /blockSize is 129, wanted a whole number from 1 to 128$/,
  );
  await refuse({ pattern: "[16,4]" }, /its blocks have 48 weights, wanted 64 or more$/);
  await refuse({ budget: 1000 }, /^The Fisher matrix of bert\.encoder.*: take smaller Fisher blocks$/);
});
