/** The same run with several seeds: what their models have in common, and what they do not. */
import assert from "node:assert/strict";
import { finetune, InputError } from "../../mod.ts";
import { finetuneSeeds } from "./seeds.ts";
import { interruptAt, metricsOf, TinyFolder } from "./tiny_run.ts";

Deno.test("finetuneSeeds trains once for each seed, and gives mean and spread of the models that were kept", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ epochs: 1, sparsity: 0.5, seed: 7, threads: 1 });
  const { runs, spreads } = await finetuneSeeds(settings, 3, finetune);
  assert.deepEqual(runs.map(({ seed, result }) => [seed, result.out]), [
    [7, folder.at("out", "seed-7")],
    [8, folder.at("out", "seed-8")],
    [9, folder.at("out", "seed-9")],
  ]);
  assert.deepEqual(spreads.map(({ name }) => name), ["loss", "accuracy", "macroF1", "matthews", "f1"]);
  const losses = runs.map(({ result }) => result.evaluation!.loss);
  assert.equal(new Set(losses).size, 3, "each has its own numbers");
  const [{ count, mean, deviation, least, greatest }] = spreads;
  const wanted = (losses[0] + losses[1] + losses[2]) / 3;
  assert.equal(count, 3);
  assert.ok(Math.abs(mean - wanted) < 1e-12);
  const squares = losses.reduce((sum, loss) => sum + (loss - wanted) ** 2, 0);
  assert.ok(Math.abs(deviation! - Math.sqrt(squares / 2)) < 1e-12);
  assert.deepEqual([least, greatest], [Math.min(...losses), Math.max(...losses)]);

  const { out } = await finetune({ ...settings, seed: 8, out: folder.at("alone") });
  assert.deepEqual(folder.resultOf(out), folder.resultOf(folder.at("out", "seed-8")));
});

Deno.test("finetuneSeeds resumes the seed that was stopped, and begins those that had not begun", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ epochs: 1, sparsity: 0.5, evaluation: undefined, seed: 1, threads: 1 });
  await interruptAt({ ...settings, out: folder.at("out", "seed-1") }, 3);
  const { runs, spreads } = await finetuneSeeds({ ...settings, resume: true }, 2, finetune);
  assert.deepEqual(runs.map(({ result }) => result.steps), [6, 6]);
  assert.deepEqual(spreads, [], "nothing was evaluated");
  assert.deepEqual(metricsOf(folder.at("out", "seed-2")), []);
  const whole = await finetune({ ...settings, out: folder.at("alone") });
  assert.deepEqual(folder.resultOf(folder.at("out", "seed-1")), folder.resultOf(whole.out));
});

Deno.test("finetuneSeeds refuses a number of seeds that is none, before anything is written", async () => {
  await using folder = await TinyFolder.create();
  const before = folder.snapshot();
  for (const count of [0, -1, 1.5, NaN]) {
    await assert.rejects(
      finetuneSeeds(folder.settings(), count, finetune),
      new InputError(`--seeds is ${count}: wanted a whole number of at least 1`),
    );
  }
  assert.deepEqual(folder.snapshot(), before);
});
