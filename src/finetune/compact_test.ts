/** Sparse training against dense training with masks, and what the trainer does around it. */
import assert from "node:assert/strict";
import { presetConfig } from "../../models/presets.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import type { EncodedExample } from "../data/batches.ts";
import { availableMachines, type Machine, selectMachine } from "../machines/mod.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { pruningSchedule } from "../pruning/schedule.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { allPrunable } from "../pruning/targets.ts";
import { refreshMasks } from "./prune.ts";
import { classifier } from "./tasks/classification.ts";
import { type TinyOptions, tinyTrainer } from "./tiny_trainer.ts";
import type { Trainer } from "./trainer.ts";

/** Rows of the head that are no multiple of 4, and a word table that is updated lazily. */
const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 600, maximumPositions: 16, labels: ["a", "b", "c"] }),
  ...{ hiddenSize: 48, heads: 3, intermediateSize: 104, layers: 2 },
};

/** What each step is told. */
const told = { learningRate: 1e-3, weightDecay: 0.01 };

function batches(count: number): EncodedExample[][] {
  const random = new RandomStream(randomKey(3, "batches"));
  return Array.from({ length: count }, () =>
    Array.from({ length: 5 }, () => {
      const ids = Int32Array.from({ length: 2 + random.below(14) }, () => 1 + random.below(599));
      return { ids, typeIds: new Uint8Array(ids.length), label: ids[0] % 3 };
    }));
}

const optimizer = { name: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-6, amsgrad: false } as const;

const makeTrainer = (options: TinyOptions<EncodedExample> = {}) =>
  tinyTrainer(classifier(config), { optimizer, ...options });

const refresh = (
  trainer: Trainer<EncodedExample>,
  pattern: Pattern,
  sparsity: number,
  scope: "layer" | "global" = "layer",
) =>
  refreshMasks(trainer, {
    ...{ method: { name: "magnitude" }, pattern, scope, targets: [allPrunable] },
    schedule: pruningSchedule("one-shot", {
      ...{ initialSparsity: 0, finalSparsity: sparsity, begin: 0, end: 0, every: 1 },
    }),
  }, 0);

/** Losses and norms of steps in which the mask grows, and the weights at the end. */
async function train(
  pattern: Pattern,
  machine: Machine,
  { steps, ...options }: TinyOptions<EncodedExample> & { readonly steps: number },
) {
  const trainer = await makeTrainer({ machine, pattern, ...options });
  try {
    const losses: number[] = [];
    const norms: number[] = [];
    for (const [index, batch] of batches(steps).entries()) {
      if (index % 20 === 0) await refresh(trainer, pattern, Math.min(0.9, 0.5 + index / 200));
      const { loss, gradientNorm } = await trainer.step([batch], index + 1, told);
      losses.push(loss);
      norms.push(gradientNorm);
    }
    const { loss } = await trainer.evaluate(batches(1)[0]);
    const runsSparse = !trainer.isSettled;
    await trainer.settle();
    return { losses, norms, evaluation: loss, weights: trainer.weights.slice(), runsSparse };
  } finally {
    await trainer.dispose();
  }
}

for (const pattern of ["unstructured", "4x1"] as const) {
  Deno.test(`sparse ${pattern} training is masked dense training, over hundreds of steps`, async () => {
    const steps = 240;
    const sparse = await train(pattern, selectMachine(), { steps });
    const dense = await train(pattern, selectMachine(), { steps, sparse: false });
    assert.ok(sparse.runsSparse);
    const furthest = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
    // Sums in another order, over and over: measured 2e-5 of losses near 1.
    assert.ok(
      furthest(sparse.losses, dense.losses) < 1e-3,
      `losses differ: ${furthest(sparse.losses, dense.losses)}`,
    );
    assert.ok(
      furthest(sparse.norms, dense.norms) < 1e-2,
      `norms differ: ${furthest(sparse.norms, dense.norms)}`,
    );
    assert.ok(Math.abs(sparse.evaluation - dense.evaluation) < 1e-3);
    assert.ok(furthest(sparse.weights, dense.weights) < 2e-3, `${furthest(sparse.weights, dense.weights)}`);
  });

  Deno.test(`sparse ${pattern} training takes the first steps of masked dense training, on every machine`, async () => {
    for (const machine of availableMachines()) {
      const sparse = await train(pattern, machine, { steps: 3 });
      const dense = await train(pattern, machine, { steps: 3, sparse: false });
      for (const key of ["losses", "norms", "weights"] as const) {
        sparse[key].forEach((value, i) =>
          assert.ok(
            Math.abs(value - dense[key][i]) <= 1e-5 * Math.max(1, Math.abs(value)),
            `${machine.isa}: ${key}[${i}] is ${value}, ${dense[key][i]} with dense kernels`,
          )
        );
      }
    }
  });
}

Deno.test("sparse training gives the same bits for any number of workers, and with layers that run again", async () => {
  const one = await train("unstructured", selectMachine(), { steps: 30, workers: 1 });
  for (const options of [{ workers: 3 }, { workers: 2, checkpoints: true }]) {
    const other = await train("unstructured", selectMachine(), { steps: 30, ...options });
    assert.deepEqual(other, one);
  }
});

Deno.test("Trainer.settle changes no number, at whatever steps it comes", async () => {
  const run = async (settlesAt: (step: number) => boolean) => {
    const trainer = await makeTrainer();
    await refresh(trainer, "unstructured", 0.8);
    const all = batches(25);
    for (const [index, batch] of all.entries()) {
      await trainer.step([batch], index + 1, told);
      if (settlesAt(index)) await trainer.settle();
    }
    await trainer.settle();
    const state = [trainer.weights, ...trainer.states.values()].map((array) => array.slice());
    const kept = (index: number) => (trainer.mask[index >> 5] >>> (index & 31)) & 1;
    for (const slot of trainer.layout.slots.filter(({ name }) => isPrunable(name))) {
      for (let i = slot.offset; i < slot.offset + slot.length; i++) {
        if (!kept(i)) {
          assert.ok(state.every((array) => Object.is(array[i], 0)), `${slot.name}[${i - slot.offset}]`);
        }
      }
    }
    await trainer.dispose();
    return state;
  };
  const never = await run(() => false);
  assert.deepEqual(await run((step) => step % 3 === 0), never);
  assert.deepEqual(await run(() => true), never);
});

Deno.test("Trainer takes a mask after dense steps, and a full one after sparse steps", async () => {
  const trainer = await makeTrainer({ maximumTokens: 300 });
  const [batch] = batches(1);
  const step = async (number: number) => {
    const { loss, gradientNorm } = await trainer.step([batch], number, told);
    assert.ok(Number.isFinite(loss + gradientNorm));
  };
  assert.ok(trainer.isSettled, "the word table is small for such batches: nothing is lazy");
  await step(1);
  const full = trainer.mask.slice();
  trainer.mask.fill(0x01010101);
  trainer.applyMask();
  await step(2);
  assert.ok(!trainer.isSettled);
  await trainer.settle();
  trainer.mask.set(full);
  trainer.applyMask();
  await step(3);
  assert.ok(trainer.isSettled);
  await trainer.dispose();
});

Deno.test("Trainer refuses to show weights that are not settled, and prunes together or by matrix", async () => {
  for (const scope of ["layer", "global"] as const) {
    const trainer = await makeTrainer();
    assert.equal((await refresh(trainer, "unstructured", 0.9, scope)).toFixed(3), "0.900");
    await trainer.step(batches(1), 1, told);
    assert.throws(() => trainer.weights, /settle the trainer first/);
    await trainer.settle();
    assert.ok(trainer.weights.every(Number.isFinite));
    // What is pruned stays pruned when the mask grows.
    const before = trainer.mask.slice();
    await refresh(trainer, "unstructured", 0.95, scope);
    assert.ok(trainer.mask.every((word, i) => (word & ~before[i]) === 0));
    await trainer.dispose();
  }
});
