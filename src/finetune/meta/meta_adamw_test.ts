/** MetaAdamW on the real trainer: what it leaves alone, what it changes, resuming, any number of workers. */
import assert from "node:assert/strict";
import { presetConfig } from "../../../models/presets.ts";
import { poolFactory } from "../../../workers/pool.ts";
import { InputError } from "../../core/errors.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import type { EncodedExample } from "../../data/batches.ts";
import { selectMachine } from "../../machines/mod.ts";
import { type ExecutorFactory, InlineExecutor } from "../../plan/executor.ts";
import { parameterLayoutOf } from "../parameters.ts";
import { classifier } from "../tasks/classification.ts";
import type { StepResult } from "../step_engine.ts";
import { Trainer } from "../trainer.ts";
import { metaGroupNames } from "./groups.ts";
import { MetaAdamW, type MetaState, type MetaUpdate } from "./meta_adamw.ts";
import { type MetaOptions, metaOptions } from "./options.ts";

/** Small, with a word table that is updated lazily and matrices that become compact. */
const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 600, maximumPositions: 16, labels: ["a", "b", "c"] }),
  ...{ hiddenSize: 48, heads: 3, intermediateSize: 104, layers: 2 },
};
const model = classifier(config);
const { slots } = parameterLayoutOf(model);

const optimizer = { name: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-6, amsgrad: false } as const;
const told = { learningRate: 1e-3, weightDecay: 0.1 };

const inline: ExecutorFactory = ({ machine, threads, arena }) =>
  Promise.resolve(new InlineExecutor(machine, threads, arena));

/** A batch by its number. */
function batchOf(number: number): EncodedExample[] {
  const random = new RandomStream(randomKey(3, "batch", number));
  return Array.from({ length: 5 }, () => {
    const ids = Int32Array.from({ length: 2 + random.below(14) }, () => 1 + random.below(599));
    return { ids, typeIds: new Uint8Array(ids.length), label: ids[0] % 3 };
  });
}

interface RunOptions {
  /** Absent: plain AdamW. Its groups are those of MetaAdamW, as their borders are where the norm's sum is cut. */
  readonly meta?: MetaOptions;
  readonly steps: number;
  readonly workers?: number;
  readonly createExecutor?: ExecutorFactory;
  readonly maximumNorm?: number;
  /** Steps after which all goes on from its written state in a new `MetaAdamW`. */
  readonly resumeAfter?: number;
  /** Whether four fifths of the prunable weights are masked. */
  readonly prune?: boolean;
}

type Run = Awaited<ReturnType<typeof train>>;

async function train(run: RunOptions) {
  const { meta: options, steps, workers = 2, createExecutor = inline, maximumNorm = 0 } = run;
  const trainer = await Trainer.create({
    model,
    machine: selectMachine(),
    workers,
    createExecutor,
    maximumSequences: 5,
    maximumTokens: 80,
    seed: 1,
    optimizer,
    maximumNorm,
    groups: { split: metaGroupNames(slots, options?.grouping ?? "fine_grained") },
  });
  try {
    trainer.initialise();
    if (run.prune) {
      const random = new RandomStream(randomKey(9, "mask"));
      trainer.mask.forEach((_, i, mask) => {
        mask[i] = 0;
        for (let bit = 0; bit < 32; bit++) if (random.uniform() < 0.2) mask[i] |= 1 << bit;
      });
      trainer.applyMask();
    }
    const make = () =>
      options &&
      new MetaAdamW(trainer, {
        options,
        optimizer,
        maximumNorm,
        totalSteps: steps,
        stepsPerEpoch: 2,
        seed: 5,
      });
    let meta = make();
    const results: StepResult[] = [];
    const updates: MetaUpdate[] = [];
    for (let completedSteps = 0; completedSteps < steps; completedSteps++) {
      if (completedSteps === run.resumeAfter) {
        const state: MetaState = JSON.parse(JSON.stringify(meta!.state()));
        meta = make();
        meta!.restore(state);
      }
      const batch = batchOf(completedSteps);
      const factors = await meta?.beforeStep({
        completedSteps,
        told,
        batch,
        other: () => batchOf(1000 + completedSteps),
        validation: (update) => batchOf(2000 + update),
      });
      results.push(await trainer.step([batch], completedSteps + 1, { ...told, factors }));
      const update = meta?.lastUpdate;
      if (update?.completedSteps === completedSteps) updates.push(update);
    }
    await trainer.settle();
    const state = [...trainer.states.values()].map((array) => array.slice());
    return { results, updates, weights: trainer.weights.slice(), state, meta: meta?.state() };
  } finally {
    await trainer.dispose();
  }
}

/** Compares weights and states to the bit; tells the first difference, as a list of all takes minutes. */
function assertSame(found: Run, wanted: Run): void {
  assert.deepEqual(found.results, wanted.results);
  [found.weights, ...found.state].forEach((array, index) => {
    const other = [wanted.weights, ...wanted.state][index];
    const at = array.findIndex((value, i) => !Object.is(value, other[i]));
    assert.equal(at, -1, `array ${index} differs at ${at}: ${array[at]}, wanted ${other[at]}`);
  });
}

/** Looks often, so that few steps tell. */
const busy = { refreshEvery: 2, updateEvery: 3 } as const;

Deno.test("MetaAdamW with factors of 1 is AdamW to the bit, through meta-updates of every term", async () => {
  // A learning rate of 0 makes all meta-updates and learns nothing.
  const meta = metaOptions("sound", { ...busy, objective: "combined", learningRate: 0 });
  for (const prune of [false, true]) {
    const run = { steps: 7, prune, maximumNorm: 1 };
    const plain = await train(run);
    const found = await train({ ...run, meta });
    const { updates } = found;
    assert.deepEqual(updates.map(({ completedSteps }) => completedSteps), [3, 6]);
    for (const { losses, learnt } of updates) {
      assert.ok(learnt && Object.values(losses).length === 3 && Object.values(losses).every(Number.isFinite));
    }
    assertSame(found, plain);
  }
});

Deno.test("MetaAdamW's fixed factors are a rate and a decay of that size", async () => {
  const meta = metaOptions("sound", { fixed: { alpha: 0.5, beta: 1.5 } });
  const plain = await train({ steps: 3 });
  const fixed = await train({ steps: 3, meta });
  const same = await train({ steps: 3, meta: metaOptions("sound", { fixed: { alpha: 1, beta: 1 } }) });
  assertSame(same, plain);
  assert.ok(fixed.weights.some((weight, i) => weight !== plain.weights[i]));
  assert.deepEqual(new Set([...fixed.meta!.alpha, ...fixed.meta!.beta]), new Set([0.5, 1.5]));
});

Deno.test("MetaAdamW gives the same bits for any number of workers, threads or not", async () => {
  const meta = metaOptions("sound", { ...busy, objective: "combined", learningRate: 0.05 });
  const run = { steps: 7, meta, prune: true, maximumNorm: 1 };
  const one = await train({ ...run, workers: 1 });
  assert.ok(one.meta!.alpha.some((factor) => Math.abs(factor - 1) > 1e-3), "something was learnt");
  for (const changes of [{ workers: 3 }, { createExecutor: poolFactory() }]) {
    const other = await train({ ...run, ...changes });
    assertSame(other, one);
    assert.deepEqual([other.updates, other.meta], [one.updates, one.meta]);
  }
});

Deno.test("MetaAdamW goes on from its state to the same numbers, in both modes", async () => {
  for (const mode of ["sound", "paper"] as const) {
    const meta = metaOptions(mode, { ...busy, learningRate: 0.02 });
    const run = { steps: 8, meta };
    const whole = await train(run);
    assert.ok(whole.updates.length >= 2);
    const resumed = await train({ ...run, resumeAfter: 5 });
    assertSame(resumed, whole);
    assert.deepEqual(resumed.meta, whole.meta, mode);
  }
});

Deno.test("MetaAdamW frozen has random factors that move with the statistics and learn nothing", async () => {
  const frozen = metaOptions("frozen", { refreshEvery: 1, updateEvery: 1 });
  const [short, long] = [await train({ steps: 1, meta: frozen }), await train({ steps: 4, meta: frozen })];
  assert.deepEqual(long.updates, []);
  assert.deepEqual(long.meta!.controller, short.meta!.controller);
  assert.notDeepEqual(long.meta!.alpha, short.meta!.alpha);
  assert.ok(long.meta!.alpha.every((factor) => factor > 0.5 && factor < 1.5));
});

Deno.test("MetaAdamW refuses other optimisers, and groups of the trainer that mix its own", async () => {
  const trainer = await Trainer.create({
    model,
    machine: selectMachine(),
    workers: 1,
    createExecutor: inline,
    maximumSequences: 5,
    maximumTokens: 80,
    seed: 1,
    optimizer,
    maximumNorm: 1,
  });
  const options = { maximumNorm: 1, totalSteps: 9, stepsPerEpoch: 3, seed: 1 };
  const sound = metaOptions("sound");
  assert.throws(
    () => new MetaAdamW(trainer, { ...options, options: sound, optimizer: { ...optimizer, amsgrad: true } }),
    (error) =>
      error instanceof InputError &&
      error.message === "MetaAdamW's optimizer is adamw with amsgrad: wanted adamw without amsgrad",
  );
  assert.throws(() => new MetaAdamW(trainer, { ...options, options: sound, optimizer }), /split the trainer/);
  const original = metaOptions("sound", { grouping: "original" });
  const meta = new MetaAdamW(trainer, { ...options, options: original, optimizer });
  assert.equal(meta.groups.length, 2);
  assert.equal(meta.bufferBytes, 2 * 4 * trainer.layout.length);
  await trainer.dispose();
});
