/** Whole runs with every optimiser: each learns, goes on to the same bytes where it was stopped, and is like no other. */
import assert from "node:assert/strict";
import type { FinetuneSettings } from "./options.ts";
import { refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

/** With the usual memory of a thousand steps AMSGrad would be Adam in so short a run. Plain AdamW is in `resume_test.ts`. */
const short = { beta2: 0.9 };
const variants: Readonly<Record<string, Partial<FinetuneSettings>>> = {
  "adamw with amsgrad": { optimizerOptions: { ...short, amsgrad: true } },
  "adam": { optimizer: "adam", optimizerOptions: short },
  "adam with amsgrad": { optimizer: "adam", optimizerOptions: { ...short, amsgrad: true } },
  "sgd": { optimizer: "sgd", learningRate: 0.1 },
  "sgd with dampened momentum": {
    optimizer: "sgd",
    learningRate: 0.02,
    optimizerOptions: { momentum: 0.9, dampening: 0.1 },
  },
  "sgd with nesterov": {
    optimizer: "sgd",
    learningRate: 0.02,
    optimizerOptions: { momentum: 0.9, nesterov: true },
  },
  "rmsprop": { optimizer: "rmsprop", learningRate: 1e-3 },
  "rmsprop, centered, with momentum": {
    optimizer: "rmsprop",
    learningRate: 1e-3,
    optimizerOptions: { momentum: 0.5, centered: true },
  },
};

Deno.test("finetune learns with every optimiser, and resumes in the middle of each to the same bytes", async (test) => {
  await using folder = await TinyFolder.create();
  const weights = new Map<string, string>();
  for (const [index, [name, changes]] of Object.entries(variants).entries()) {
    await test.step(name, async () => {
      const settings = folder.settings({
        evaluation: folder.at("train.tsv"),
        learningRate: 3e-3,
        learningRateSchedule: "constant",
        sparsity: 0.3,
        threads: 1,
        // The dense evaluation is then that of the untrained model.
        pruneBegin: 0,
        pruneEnd: 0.2,
        out: folder.at(`run${index}`),
        ...changes,
      });
      const { denseEvaluation, evaluation, out } = await resumesAt(folder, settings, 9);
      assert.equal(denseEvaluation!.completedSteps, 0);
      // Half of the labels are positive: a model that has learned nothing has a loss of ln 2 at best.
      const chance = Math.log(2);
      assert.ok(denseEvaluation!.loss > chance, `untrained: ${denseEvaluation!.loss}`);
      assert.ok(evaluation!.loss < 0.99 * chance, `trained: ${evaluation!.loss}`);
      const hash = folder.snapshot(out).get("model.safetensors")!;
      assert.equal(weights.get(hash), undefined, `${name} has another's weights: its constants went astray`);
      weights.set(hash, name);
    });
  }
});

Deno.test("finetune refuses constants and schedules that an optimiser cannot follow, before anything is written", async () => {
  await using folder = await TinyFolder.create();
  await refuses(
    folder,
    { optimizer: "lion" },
    "--optimizer is lion: wanted one of adamw, adam, sgd, rmsprop, metaadamw",
  );
  await refuses(
    folder,
    { optimizer: "sgd", optimizerOptions: { nesterov: true } },
    "momentum is 0: wanted a number above 0 with nesterov",
  );
  await refuses(
    folder,
    { optimizer: "sgd", optimizerOptions: { momentum: 0.9, dampening: 0.1, nesterov: true } },
    "dampening is 0.1: wanted 0 with nesterov",
  );
  await refuses(
    folder,
    { optimizer: "rmsprop", optimizerOptions: { alpha: 1 } },
    "alpha is 1: wanted a number in [0, 1)",
  );
  for (const optimizer of ["sgd", "rmsprop"] as const) {
    await refuses(
      folder,
      { optimizer, learningRateSchedule: "one_cycle" },
      `the learning-rate schedule sets the momentum to 0.95, and ${optimizer} has none: wanted --momentum above 0, ` +
        "or a schedule with cycleMomentum false",
    );
  }
});
