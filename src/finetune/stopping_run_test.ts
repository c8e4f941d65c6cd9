/** Whole runs that end early: when, with which model, and that a stop before changes nothing. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { metricsOf, refuses, resumesAt, TinyFolder, tinyRows } from "./tiny_run.ts";

/** Writes evaluation data with the opposite labels: a model gets worse by them the more it learns. */
function misleading(folder: TinyFolder): Promise<string> {
  const opposite = { negative: "positive", positive: "negative" };
  const lines = tinyRows(48, 2).map(({ sentence, label }) => `${sentence}\t${opposite[label]}`);
  return folder.write("opposite.tsv", ["sentence\tlabel", ...lines].join("\n"));
}

const patient = { earlyStopping: 3, evalSteps: 2, epochs: 10, learningRate: 2e-2, threads: 1 } as const;

/** What says how good each model was, in order. */
function accuracies(out: string): number[] {
  return metricsOf(out).map(({ metrics }) => (metrics as { accuracy: number }).accuracy);
}

Deno.test("finetune ends after so many evaluations without a better one, with the best model, stopped before or not", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ ...patient, evaluation: await misleading(folder), sparsity: 0 });
  const { steps, evaluation } = await resumesAt(folder, settings, 3);
  const found = accuracies(settings.out);
  assert.equal(steps, 2 * found.length, "it ends with an evaluation");
  assert.ok(steps < 60, `${steps} steps`);
  // The first of the greatest is followed by three that are no greater.
  assert.equal(found.indexOf(Math.max(...found)), found.length - 4, `${found}`);
  assert.equal(evaluation!.primary.value, Math.max(...found));

  const again = await finetune({ ...settings, resume: true });
  assert.equal(again.steps, steps, "a run that has ended does not go on");
});

Deno.test("finetune does not end before the model is as sparse as it is to be, and says where it ends", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ ...patient, evaluation: await misleading(folder), sparsity: 0.5 });
  const said: string[] = [];
  const { steps, sparsity, out } = await finetune(settings, {
    listener: { message: (text) => said.push(text) },
  });
  // Pruning ends at step 42 of 60.
  assert.ok(steps >= 42 + 6 && steps < 60, `${steps} steps`);
  assert.ok(Math.abs(sparsity.overall - 0.5) < 1e-9);
  const worse = accuracies(out).slice(-4);
  assert.ok(worse.every((value) => value <= worse[0]), `${worse}`);
  assert.equal(
    said.at(-1),
    `stopped at step ${steps} of 60: no improvement, and --early-stopping-patience is 3`,
  );
});

Deno.test("finetune takes what is not above the threshold for no improvement", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ ...patient, sparsity: 0, earlyStoppingThreshold: 2 });
  const { steps } = await finetune(settings);
  // No accuracy rises by 2: the first evaluation stays the best.
  assert.equal(steps, 8);
});

Deno.test("finetune refuses to stop early, or to evaluate, where there is nothing to evaluate on", async () => {
  await using folder = await TinyFolder.create();
  const cases: [Partial<FinetuneSettings>, string][] = [
    [
      { evaluation: undefined, earlyStopping: 2 },
      "--early-stopping-patience is 2: wanted --eval with it, to see what is better",
    ],
    [{ evaluation: undefined, evalSteps: 4 }, "--eval-steps is 4: wanted --eval with it, to evaluate on"],
    [{ earlyStopping: -1 }, "--early-stopping-patience is -1: wanted a whole number of at least 0"],
    [{ earlyStopping: 1.5 }, "--early-stopping-patience is 1.5: wanted a whole number of at least 0"],
    [{ earlyStoppingThreshold: NaN }, "--early-stopping-threshold is NaN: wanted a number of at least 0"],
    [{ evalSteps: -2 }, "--eval-steps is -2: wanted a whole number of at least 0"],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});
