/** Every task from its files to a trained model and the folder that it makes. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { presetConfig } from "../../../models/presets.ts";
import { openModel, saveModel } from "../../checkpoint/model_folder.ts";
import { InputError } from "../../core/errors.ts";
import { exists } from "../../core/files.ts";
import { type DataFiles, TextReader } from "../../data/reader.ts";
import { loadTokenizer } from "../../data/tokenizer.ts";
import { wordPieceFiles } from "../../data/wordpiece.ts";
import { availableMachines } from "../../machines/mod.ts";
import { usualTile } from "../../plan/plan.ts";
import { isPrunable } from "../../pruning/sparsity.ts";
import { TinyFolder, tinyRows } from "../tiny_run.ts";
import type { ClassifierLossOptions } from "./classification.ts";
import { forecastingTask } from "./forecasting_task.ts";
import { type TextTaskName, textTasks } from "./mod.ts";
import type { FinetuneTask } from "./task.ts";
import { tinyTrainer, trainSteps } from "../tiny_trainer.ts";

const limit = { sequences: 16, tokens: Infinity };

/** Trains on some examples from all over the set, and evaluates before and after. The trainer is to be disposed of. */
async function trained<Example>(task: FinetuneTask<Example>) {
  const examples = Math.min(48, task.train.lengths.length);
  const longest = Math.max(...Array.from(task.train.lengths), ...Array.from(task.evaluation.lengths));
  const trainer = await tinyTrainer(task.model, { maximumSequences: 16, maximumTokens: 16 * longest });
  const before = await task.evaluate(trainer, limit);
  const spread = (example: number) => (31 * example) % task.train.lengths.length;
  const batches = Array.from(
    { length: Math.floor(examples / 16) },
    (_, batch) => Array.from({ length: 16 }, (_, i) => task.train.at(spread(16 * batch + i))),
  );
  const losses = await trainSteps(trainer, batches, 45, 1e-2);
  return { trainer, before, losses, after: await task.evaluate(trainer, limit) };
}

const config = {
  hiddenSize: 16,
  heads: 2,
  layers: 1,
  intermediateSize: 32,
  maximumPositions: 24,
  initializerRange: 0.2,
};

async function prepare(name: TextTaskName, files: Omit<DataFiles, "kind">) {
  const task = textTasks[name];
  const reader = new TextReader();
  const { labels } = await reader.read({ files: { ...files, kind: task.data } });
  const tokenizer = loadTokenizer(wordPieceFiles(reader.vocabulary()));
  const data = reader.encode({ tokenizerFiles: tokenizer.files, labels, maximumLength: 12 });
  const { vocabularySize } = tokenizer;
  const bert = presetConfig("bert-tiny", { ...config, vocabularySize, ...(labels.length > 0 && { labels }) });
  const withLoss = (loss?: ClassifierLossOptions) => task.learn(data, bert, tokenizer, loss);
  return { ...task, task: withLoss(), withLoss, tokenizer, config: bert };
}

const rows = tinyRows(96, 1);
const contents: Readonly<Record<TextTaskName, [name: string, content: string]>> = {
  "text-classification": [
    "classes.tsv",
    ["sentence\tlabel", ...rows.map(({ sentence, label }) => `${sentence}\t${label}`)].join("\n"),
  ],
  "regression": [
    "scores.tsv",
    [
      "sentence\tscore",
      ...rows.map(({ sentence, label }) => `${sentence}\t${label === "positive" ? 4.5 : 1}`),
    ].join("\n"),
  ],
  // After each word comes the same other one.
  "masked-lm": ["text.txt", "one two three four five six seven eight nine ten\n".repeat(60)],
};

for (const name of Object.keys(contents) as TextTaskName[]) {
  Deno.test(`${name} learns from a file, and makes a folder that opens again`, async () => {
    await using folder = await TinyFolder.create();
    const path = await folder.write(...contents[name]);
    const found = await prepare(name, { train: path, evaluation: path });
    const { trainer, before, after } = await trained(found.task);
    try {
      const improvement = (after.primary.value - before.primary.value) *
        (after.primary.higherIsBetter ? 1 : -1);
      assert.ok(improvement > 0, `${after.primary.name}: ${before.primary.value} to ${after.primary.value}`);
      assert.ok(after.loss < 0.7 * before.loss, `loss ${before.loss} to ${after.loss}`);
      assert.equal(after.examples, found.task.evaluation.lengths.length);

      if (name !== "text-classification") {
        assert.throws(
          () => found.withLoss({ labelSmoothing: 0.1 }),
          /^InputError: --label-smoothing-factor is given/,
        );
        assert.throws(() => found.withLoss({ classWeights: [1] }), InputError);
      }
      await trainer.settle();
      const dir = folder.at("model");
      await saveModel(dir, {
        configJson: found.configJson(found.config),
        tensors: trainer.layout.slots.map((slot) => ({ ...slot, data: trainer.parameter(slot) })),
        tokenizerFiles: found.tokenizer.files,
        format: "dense",
      });
      const model = await openModel(dir, { head: "stored" });
      assert.deepEqual([model.head, model.missing, model.unused], [found.head, [], []]);
      const [slot] = trainer.layout.slots;
      assert.deepEqual(await model.tensors.weight(slot.name, slot.shape), trainer.parameter(slot).slice());
    } finally {
      await trainer.dispose();
    }
  });
}

Deno.test("masked-lm starts from a checkpoint of its own, and from one with another head but for the guesser", async () => {
  await using folder = await TinyFolder.create();
  const own = await openModel(await folder.writeMaskedLm("own"), { head: "masked-lm" });
  assert.deepEqual(own.missing, []);
  const other = await openModel(await folder.writeModel("other"), { head: "masked-lm" });
  assert.deepEqual(other.missing, [
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.bias",
  ]);
});

const ett = fileURLToPath(new URL("../../../../shared/data/ett/ETTh1.csv.gz", import.meta.url));
const tile = usualTile(availableMachines()[0].lanes);

Deno.test("forecasting learns from ETTh1, and what it learns can be pruned", async () => {
  if (!await exists(ett)) return console.log(`skipped: there is no ${ett}`);
  const model = { hiddenSize: 16, heads: 2, layers: 1, intermediateSize: 32 };
  const options = { series: ett, inputLength: 24, horizon: 6, limit: 1200, model, tile };
  const task = await forecastingTask(options);
  assert.deepEqual([task.config.targets, task.configJson.horizon], [["OT"], 6]);
  assert.match(task.dataReport, /^series {6}1,200 steps of HUFL, .*OT; 24 steps tell the next 6 of OT\n/);
  const { trainer, losses, after } = await trained(task);
  const prunable = trainer.layout.slots.filter(({ name }) => isPrunable(name));
  await trainer.dispose();
  assert.ok(losses.at(-1)! < losses[0] / 2, `${losses[0]} to ${losses.at(-1)}`);
  assert.equal(after.examples, 4 * 60 - 6 + 1);
  assert.equal(prunable.length, 6);
  const all = await forecastingTask({ ...options, target: "all", evaluation: "test" });
  assert.equal(all.config.targets.length, 7);
  assert.notEqual(all.digests.train, task.digests.train);
  await assert.rejects(forecastingTask({ ...options, horizon: 0 }), InputError);
  await assert.rejects(forecastingTask({ ...options, target: "XT" }), /has no column "XT"; it has HUFL, /);
});
