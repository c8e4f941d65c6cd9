import assert from "node:assert/strict";
import { poolFactory } from "../../workers/pool.ts";
import { InputError } from "../core/errors.ts";
import type { EncodedExample } from "../data/batches.ts";
import { optimizerDefaults } from "../kernels/optimizer/optimizers.ts";
import { hasBit } from "../pruning/bitset.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { movementRefresh } from "./movement.ts";
import { matricesOf } from "./prune.ts";
import { loadState, noStages, saveState } from "./state.ts";
import { classifier } from "./tasks/classification.ts";
import { tinyClassifierConfig, tinyExamples, type TinyOptions, tinyTrainer } from "./tiny_trainer.ts";
import type { Trainer } from "./trainer.ts";

const config = tinyClassifierConfig(1);

const told = { learningRate: 1e-3, weightDecay: 0.01 };

const makeTrainer = (options: TinyOptions<EncodedExample> = {}) =>
  tinyTrainer(classifier(config), { scoreOptimizer: optimizerDefaults("adamw"), ...options });

const namesOf = (trainer: Trainer<EncodedExample>) => matricesOf(trainer).map(({ name }) => name);

const begin = (trainer: Trainer<EncodedExample>, isSoft = false) =>
  trainer.beginMovement(namesOf(trainer), isSoft);

async function take(trainer: Trainer<EncodedExample>, from: number, to: number): Promise<void> {
  for (let step = from; step <= to; step++) {
    trainer.movement!.tell({ learningRate: 1e-2 });
    await trainer.step([tinyExamples(8)], step, told);
  }
}

/** Weights that are awake, and those that sleep. */
function weightsOf(trainer: Trainer<EncodedExample>): { all: Float32Array; dormant: Float32Array } {
  const dormant = trainer.movement!.arrays.get("dormant")!.slice();
  const all = dormant.map((value, at) => value + trainer.weights[at]);
  return { all, dormant };
}

/** Weights of the prunable range, without what lies between matrices. */
function* prunable(trainer: Trainer<EncodedExample>): Generator<number> {
  for (const { offset, length } of trainer.layout.slots) {
    if (offset >= trainer.layout.prunableLength) return;
    for (let index = offset; index < offset + length; index++) yield index;
  }
}

Deno.test("scores take the step of their optimiser with the gradient of all weights, those asleep too", async () => {
  for (const accumulates of [false, true]) {
    const sgd = optimizerDefaults("sgd");
    const trainer = await makeTrainer({ optimizer: sgd, scoreOptimizer: sgd, maximumNorm: 0, accumulates });
    await begin(trainer);
    await take(trainer, 1, 3);
    await movementRefresh(trainer, "unstructured", { scope: "layer", sparsity: 0.5 });
    const { scores } = Object.fromEntries(trainer.movement!.arrays);
    const before = scores.slice();
    const { all, dormant } = weightsOf(trainer);
    await trainer.gradient(tinyExamples(8));
    const gradients = trainer.gradients.slice();
    trainer.movement!.tell({ learningRate: 0.5 });
    await trainer.step(
      accumulates ? [tinyExamples(8).slice(0, 3), tinyExamples(8).slice(3)] : [tinyExamples(8)],
      4,
      told,
    );
    let moved = 0;
    for (const at of prunable(trainer)) {
      const wanted = before[at] - 0.5 * gradients[at] * all[at];
      assert.ok(Math.abs(scores[at] - wanted) < 1e-7, `score ${at} is ${scores[at]}, wanted ${wanted}`);
      if (dormant[at] !== 0 && scores[at] !== before[at]) moved++;
      assert.equal(trainer.weights[at] === 0, !hasBit(trainer.mask, at), `weight ${at}`);
    }
    assert.ok(moved > 100, `${moved} scores of sleeping weights moved`);
    await trainer.dispose();
  }
});

Deno.test("the penalty adds its own gradient to the scores'", async () => {
  const sgd = optimizerDefaults("sgd");
  const trainer = await makeTrainer({ optimizer: sgd, scoreOptimizer: sgd, maximumNorm: 0 });
  await begin(trainer, true);
  const scores = trainer.movement!.arrays.get("scores")!;
  scores.fill(0.7);
  await trainer.gradient(tinyExamples(8));
  const [gradients, weights] = [trainer.gradients.slice(), trainer.weights.slice()];
  trainer.movement!.tell({ learningRate: 1, penalty: 30 });
  await trainer.step([tinyExamples(8)], 1, told);
  const sigmoid = 1 / (1 + Math.exp(-0.7));
  const matrices = matricesOf(trainer);
  for (const { name, values: { length } } of matrices) {
    const { offset } = trainer.layout.slot(name);
    for (let at = offset; at < offset + length; at++) {
      const slope = 30 / (matrices.length * length) * sigmoid * (1 - sigmoid);
      const wanted = 0.7 - gradients[at] * weights[at] - slope;
      assert.ok(Math.abs(scores[at] - wanted) < 1e-6, `score ${at} is ${scores[at]}, wanted ${wanted}`);
    }
  }
  await trainer.dispose();
});

for (
  const [pattern, scope] of [["unstructured", "layer"], ["unstructured", "global"], ["4x1", "layer"]] as const
) {
  Deno.test(`weights return with their old values when their scores rise: ${pattern}, ${scope}`, async () => {
    const trainer = await makeTrainer();
    await begin(trainer);
    await take(trainer, 1, 4);
    const target = { scope, sparsity: 0.5 };
    assert.equal(await movementRefresh(trainer, pattern, target), 0.5);
    const asleep = weightsOf(trainer).dormant;
    const before = trainer.mask.slice();
    await take(trainer, 5, 30);
    assert.deepEqual(weightsOf(trainer).dormant, asleep);
    assert.equal(await movementRefresh(trainer, pattern, target), 0.5);
    let returned = 0;
    for (const at of prunable(trainer)) {
      const isKept = hasBit(trainer.mask, at);
      if (isKept && !hasBit(before, at)) {
        returned++;
        assert.equal(trainer.weights[at], asleep[at]);
        for (const state of trainer.states.values()) assert.equal(state[at], 0);
      }
      const { dormant } = Object.fromEntries(trainer.movement!.arrays);
      if (isKept) assert.equal(dormant[at], 0);
      else assert.equal(trainer.weights[at], 0);
    }
    assert.ok(returned > 10, `${returned} weights returned`);
    await trainer.dispose();
  });
}

Deno.test("a threshold prunes what the penalty pulls below it", async () => {
  const trainer = await makeTrainer();
  await begin(trainer, true);
  const sparsities: number[] = [];
  for (let step = 1; step <= 60; step++) {
    const threshold = 0.1 + 0.006 * step;
    trainer.movement!.tell({ learningRate: 0.05, penalty: 1000 * threshold });
    await trainer.step([tinyExamples(8)], step, told);
    if (step % 20 === 0) sparsities.push(await movementRefresh(trainer, "unstructured", { threshold }));
  }
  assert.ok(sparsities[0] < sparsities.at(-1)!, `${sparsities}`);
  assert.ok(sparsities.at(-1)! > 0.3 && sparsities.at(-1)! < 1, `${sparsities}`);
  await trainer.dispose();
});

Deno.test("matrices run dense while scores are trained, and sparse after; what sleeps is lost then", async () => {
  const trainer = await makeTrainer();
  await begin(trainer);
  await take(trainer, 1, 3);
  await movementRefresh(trainer, "unstructured", { scope: "layer", sparsity: 0.9 });
  await take(trainer, 4, 4);
  assert.equal(trainer.sparseMatrices, 0);
  await trainer.endMovement();
  assert.equal(trainer.movement!.activity, undefined);
  const mask = trainer.mask.slice();
  await trainer.step([tinyExamples(8)], 5, told);
  assert.ok(trainer.sparseMatrices > 0);
  await trainer.settle();
  assert.deepEqual(trainer.mask, mask);
  for (const at of prunable(trainer)) assert.equal(trainer.weights[at] === 0, !hasBit(mask, at));
  await begin(trainer);
  for (const array of trainer.movement!.arrays.values()) assert.ok(array.every((value) => value === 0));
  await trainer.dispose();
});

Deno.test("workers, a pool and a pause change no bit", async () => {
  const out = await Deno.makeTempDir();
  const progress = {
    arithmetic: "any",
    completedSteps: 0,
    trainingSeconds: 0,
    trainedTokens: 0,
    trainedExamples: 0,
    stages: noStages(),
    sparsity: 0,
    prunable: [],
    evaluations: [],
  };
  const fingerprint = {} as Parameters<typeof saveState>[3];
  const finish = async (trainer: Trainer<EncodedExample>) => {
    await take(trainer, 7, 12);
    await movementRefresh(trainer, "unstructured", { scope: "global", sparsity: 0.6 });
    await take(trainer, 13, 14);
    await trainer.settle();
    const arrays = [trainer.weights, ...trainer.states.values(), ...trainer.movement!.arrays.values()];
    const result = { mask: trainer.mask.slice(), arrays: arrays.map((array) => array.slice()) };
    await trainer.dispose();
    return result;
  };
  try {
    const results = [];
    for (const options of [{}, { workers: 3, createExecutor: poolFactory({ pin: false }) }]) {
      const trainer = await makeTrainer(options);
      await begin(trainer);
      await take(trainer, 1, 6);
      await movementRefresh(trainer, "unstructured", { scope: "layer", sparsity: 0.4 });
      await saveState(out, trainer, progress, fingerprint);
      results.push(await finish(trainer));
    }
    const resumed = await makeTrainer();
    await loadState(out, resumed, fingerprint);
    assert.equal(resumed.movement!.activity!.steps, 6);
    results.push(await finish(resumed));
    for (const result of results.slice(1)) assert.deepEqual(result, results[0]);
  } finally {
    await Deno.remove(out, { recursive: true });
  }
});

Deno.test("movement refuses to prune by scores that were never trained, and N:M by a threshold", async () => {
  const trainer = await makeTrainer();
  await assert.rejects(
    movementRefresh(trainer, "unstructured", { threshold: 0.1 }),
    /scores are not trained/,
  );
  await begin(trainer, true);
  assert.equal(await movementRefresh(trainer, "unstructured", { scope: "layer", sparsity: 0 }), 0);
  await assert.rejects(
    movementRefresh(trainer, "unstructured", { scope: "layer", sparsity: 0.5 }),
    new InputError(
      "Cannot prune to 0.5 by movement at its first step: no score is trained yet, wanted an initial value of 0",
    ),
  );
  await assert.rejects(trainer.step([tinyExamples(8)], 1, told), /the scores' learning rate was not told/);
  await take(trainer, 1, 1);
  await assert.rejects(
    movementRefresh(trainer, "2:4" satisfies Pattern, { threshold: 0.1 }),
    new InputError("Cannot prune by soft-movement in the pattern 2:4: wanted single weights or blocks"),
  );
  await trainer.dispose();
  const plain = await makeTrainer({ scoreOptimizer: undefined });
  await assert.rejects(begin(plain), /was made without a scoreOptimizer/);
  await plain.dispose();
});
