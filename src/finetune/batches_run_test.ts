/** Whole runs whose steps are made of several batches. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { finetune } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import type { FinetuneSettings } from "./options.ts";
import { metricsOf, resumesAt, tinyConfigJson, TinyFolder } from "./tiny_run.ts";

/** All weights of a folder, one after the other. */
async function weightsOf(out: string): Promise<readonly number[]> {
  const { tensors } = await openModel(out);
  const parts = await Promise.all(tensors.names.map((name) => tensors.weight(name, tensors.shape(name)!)));
  return parts.flatMap((part) => [...part]);
}

Deno.test("finetune takes the steps of batches of 4 with two batches of 2 each, also where an epoch has a rest", async () => {
  await using folder = await TinyFolder.create();
  const init = await folder.write(
    "steady.json",
    JSON.stringify({ ...tinyConfigJson, hidden_dropout_prob: 0, attention_probs_dropout_prob: 0 }),
  );
  const run = (out: string, changes: Partial<FinetuneSettings>) =>
    finetune(folder.settings({
      init,
      // Not AdamW: it makes steps of one size of gradients that are zero but for rounding.
      optimizer: "sgd",
      optimizerOptions: { momentum: 0.9 },
      maximumTrainSamples: 22,
      epochs: 2,
      sparsity: 0.5,
      threads: 1,
      out: folder.at(out),
      ...changes,
    }));
  const whole = await run("whole", { batchSize: 4 });
  const parts = await run("parts", { batchSize: 2, accumulation: 2 });
  const other = await run("other", { batchSize: 2 });
  assert.deepEqual([whole.steps, parts.steps, other.steps], [12, 12, 22]);
  assert.deepEqual([whole.examples, parts.examples], [44, 44]);
  const wanted = await weightsOf(whole.out);
  const differenceTo = (weights: readonly number[]) =>
    Math.max(...weights.map((value, i) => Math.abs(value - wanted[i])));
  assert.ok(differenceTo(await weightsOf(parts.out)) < 1e-5, `${differenceTo(await weightsOf(parts.out))}`);
  assert.ok(differenceTo(await weightsOf(other.out)) > 1e-3, "half the batch would be another run");
});

Deno.test("finetune that accumulates, by tokens and by length, resumes in the middle of an epoch to the same bytes", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({
    batchSize: undefined,
    tokensPerBatch: 60,
    groupByLength: true,
    accumulation: 3,
    epochs: 3,
    sparsity: 0.5,
    threads: 1,
  });
  const { examples } = await resumesAt(folder, settings, 4);
  assert.equal(examples, 3 * 96);
});

Deno.test("finetune writes one line of metrics for each evaluation, whatever stops it, and a page with every chart", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ evalSteps: 4, saveSteps: 5, epochs: 3, sparsity: 0.5, threads: 1 });
  const whole = await finetune({ ...settings, out: folder.at("whole") });
  // Every fourth of 18 steps, after the epochs of 6, and before pruning begins, which is at step 5.
  const steps = [4, 5, 6, 8, 12, 16, 18];
  assert.deepEqual(metricsOf(whole.out).map(({ step }) => step), steps);

  // A crash, not a wish to stop: nothing is saved after it, and the evaluation at step 8 has to be made again.
  const crash = {
    step: ({ completedSteps }: { readonly completedSteps: number }) => {
      if (completedSteps === 9) throw new Error("struck by lightning");
    },
  };
  await assert.rejects(finetune(settings, { listener: crash }), { message: "struck by lightning" });
  assert.deepEqual(metricsOf(settings.out).map(({ step }) => step), [4, 5, 6, 8]);
  const resumed = await finetune({ ...settings, resume: true });
  assert.deepEqual(folder.resultOf(resumed.out), folder.resultOf(whole.out));
  for (const { out, report } of [whole, resumed]) {
    assert.equal(report, join(out, "report.html"));
    const page = await Deno.readTextFile(report);
    for (const chart of ["the losses", "accuracy", "the learning rate", "the sparsity"]) {
      assert.match(page, new RegExp(`Line chart of ${chart} over the steps`), chart);
    }
    assert.ok(page.match(/<svg/g)!.length >= 4);
    for (const step of steps) assert.match(page, new RegExp(`<td[^>]*>${step}</td>`), `step ${step}`);
  }
});
