/** Whole runs that learn scores, and a language: they get better, resume to the same bytes, and refuse what is none. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { finetune } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import type { FinetuneSettings } from "./options.ts";
import { type Changes, metricsOf, refuses, resumesAt, TinyFolder, tinyRows } from "./tiny_run.ts";

/** Dense evaluations are then those of the untrained model. */
const common = { sparsity: 0.3, pruneBegin: 0, pruneEnd: 0.3, threads: 1 } satisfies Partial<
  FinetuneSettings
>;

/** Sentences with scores from 1 to 2 and 4 to 5. */
function scored(count: number, seed: number): string {
  const lines = tinyRows(count, seed).map(({ sentence, label }, index) =>
    `${sentence}\t${(label === "positive" ? 4 : 1) + (index % 4) / 4}`
  );
  return ["sentence\tscore", ...lines].join("\n");
}

async function regression(folder: TinyFolder): Promise<Partial<FinetuneSettings>> {
  const train = await folder.write("scores.tsv", scored(96, 1));
  return {
    ...common,
    task: "regression",
    train,
    evaluation: await folder.write("scores2.tsv", scored(48, 2)),
  };
}

/** Text in which after each word comes the same other one. */
async function language(folder: TinyFolder): Promise<Partial<FinetuneSettings>> {
  const train = await folder.write(
    "text.txt",
    "one two three four five six seven eight nine ten\n".repeat(60),
  );
  return { ...common, task: "masked-lm", train, evaluation: train };
}

Deno.test("finetune learns scores, resumes in the middle, and writes a model with one output", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings(await regression(folder));
  const { denseEvaluation, evaluation, out, exported } = await resumesAt(folder, settings, 10);
  const [untrained, kept] = [denseEvaluation!.metrics, evaluation!.metrics];
  assert.ok(kept.mse < 0.5 * untrained.mse, `mse ${untrained.mse} to ${kept.mse}`);
  assert.deepEqual(Object.keys(kept), ["pearson", "spearman", "mse", "mae"]);
  assert.equal(evaluation!.loss, kept.mse);
  const correlations = metricsOf(out).slice(1).map(({ metrics }) => (metrics as typeof kept).pearson);
  assert.equal(kept.pearson, Math.max(...correlations), "chosen by Pearson's correlation");
  for (const dir of [out, exported!.dir]) {
    const model = await openModel(dir, { head: "stored" });
    assert.deepEqual([model.head, model.config.labels], ["classifier", ["score"]]);
    assert.deepEqual(model.tensors.shape("classifier.weight"), [1, 16]);
  }
});

Deno.test("finetune learns scores from the dense model's answers too, and resumes while it does", async () => {
  await using folder = await TinyFolder.create();
  const pruned = { pruneBegin: 0.3, pruneEnd: 0.7, epochs: 2 };
  const { steps } = await resumesAt(
    folder,
    folder.settings({ ...await regression(folder), ...pruned, teacher: "dense" }),
    7,
  );
  assert.equal(steps, 12);
});

Deno.test("finetune learns a language, resumes in the middle, and the model goes on to classify", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ ...await language(folder), epochs: 12, learningRate: 2e-2 });
  const { denseEvaluation, evaluation, out } = await resumesAt(folder, settings, 9);
  const [untrained, kept] = [denseEvaluation!.metrics, evaluation!.metrics];
  assert.ok(kept.perplexity < 0.6 * untrained.perplexity, `${untrained.perplexity} to ${kept.perplexity}`);
  assert.ok(kept.accuracy > untrained.accuracy);
  assert.ok(Math.abs(kept.perplexity - Math.exp(evaluation!.loss)) < 1e-9 * kept.perplexity);
  const { configJson } = await openModel(out, { head: "stored" });
  assert.deepEqual(configJson.architectures, ["BertForMaskedLM"]);

  const said: string[] = [];
  const next = folder.settings({ model: out, out: folder.at("next"), epochs: 1, threads: 1 });
  const classified = await finetune(next, { listener: { message: (text) => said.push(text) } });
  assert.match(said.join("\n"), /newly initialized: .*'classifier\.weight'/);
  const json = JSON.parse(await Deno.readTextFile(join(classified.out, "config.json")));
  assert.deepEqual(json.architectures, ["BertForSequenceClassification"]);
});

Deno.test("finetune refuses scores that are none, and texts without room, with file, line and column", async () => {
  await using folder = await TinyFolder.create();
  const [scores, text] = [await regression(folder), await language(folder)];
  const file = (name: string, content: string) => folder.write(name, content);
  const cases: [Changes, string | RegExp][] = [
    [
      { ...scores, train: await file("words.tsv", "sentence\tscore\na b\tfour\n") },
      '/words.tsv line 2 has the label "four" in "score", wanted a number',
    ],
    [
      { ...scores, train: await file("endless.tsv", "sentence\tscore\na b\t1\nc d\tInfinity\n") },
      '/endless.tsv line 3 has the label "Infinity" in "score", wanted a number',
    ],
    [
      { ...scores, train: await file("blank.tsv", "sentence\tscore\na b\t\nc d\t1\n") },
      '/blank.tsv line 2 has an empty label in "score"',
    ],
    [{ ...scores, labelColumn: "stars" }, '/scores.tsv has no column "stars"; it has sentence, score'],
    [
      { ...scores, evaluation: await file("bare.tsv", "sentence\na b\n") },
      "/bare.tsv has no label column; it has sentence",
    ],
    [
      { ...scores, labelNames: ["low", "high"] },
      "--label-names are low, high: wanted one name, for the score",
    ],
    [{ ...scores, classWeights: [1] }, "--class-weights is given: the loss of regression has none"],
    [
      { ...scores, labelSmoothing: 0.1 },
      "--label-smoothing-factor is given: the loss of regression has none",
    ],
    [{ ...text, train: await file("empty.txt", "\n \n") }, "/empty.txt is empty"],
    [{ ...text, train: folder.at("none.txt") }, "Cannot read /none.txt: there is no such file"],
    [
      { ...text, train: folder.at("scores.tsv"), textColumn: "review" },
      '/scores.tsv has no column "review"; it has sentence, score',
    ],
    [{ ...text, labelColumn: "label" }, "--label-column is label: text alone has no labels"],
    [{ ...text, labelNames: ["a", "b"] }, "--label-names are a, b: text alone has no labels"],
    [{ ...text, teacher: "dense" }, "--teacher is given: the loss of masked-lm has none"],
    [{ ...text, classWeights: "balanced" }, "--class-weights is given: the loss of masked-lm has none"],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});
