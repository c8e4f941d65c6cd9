/** Metrics and calibration by hand-made numbers; a whole evaluation against answers of the pipeline. */
import assert from "node:assert/strict";
import { evaluate, exportModel, finetune, InputError, pipeline } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { TinyFolder, tinyRows } from "../finetune/tiny_run.ts";
import { calibration } from "./calibration.ts";
import { ConfusionMatrix, predictedClass } from "./metrics.ts";
import { perturbations } from "./perturb.ts";
import { regressionEvaluation } from "./regression_metrics.ts";

Deno.test("ConfusionMatrix gives accuracy, macro F1 and Matthews correlation", () => {
  const confusion = new ConfusionMatrix(2);
  // True positives 5, false negatives 1, false positives 2, true negatives 4.
  for (const [label, predicted, times] of [[1, 1, 5], [1, 0, 1], [0, 1, 2], [0, 0, 4]]) {
    for (let i = 0; i < times; i++) confusion.add(label, predicted);
  }
  const { metrics: { accuracy, macroF1, matthews }, loss, examples } = confusion.evaluation(6);
  assert.equal(examples, 12);
  assert.equal(loss, 0.5);
  assert.equal(accuracy, 9 / 12);
  assert.ok(Math.abs(macroF1 - (10 / 13 + 8 / 11) / 2) < 1e-12);
  const matthewsOfTwo = (5 * 4 - 2 * 1) / Math.sqrt((5 + 2) * (5 + 1) * (4 + 2) * (4 + 1));
  assert.ok(Math.abs(matthews - matthewsOfTwo) < 1e-12);
});

Deno.test("Matthews correlation is 1 for right, −1 for wrong, 0 for constant answers", () => {
  const of = (pairs: [number, number][]) => {
    const confusion = new ConfusionMatrix(2);
    for (const [label, predicted] of pairs) confusion.add(label, predicted);
    return confusion.evaluation(0).metrics.matthews;
  };
  assert.equal(of([[0, 0], [1, 1]]), 1);
  assert.equal(of([[0, 1], [1, 0]]), -1);
  assert.equal(of([[0, 0], [1, 0]]), 0);
});

Deno.test("predictedClass takes the largest logit of a column, the first among equals", () => {
  const logits = Float32Array.of(1, 5, 3, 5, 2, 5); // [3 classes, 2 columns]
  assert.equal(predictedClass(logits, 2, 0, 3), 1);
  assert.equal(predictedClass(logits, 2, 1, 3), 0);
});

Deno.test("calibration: certain and right is perfect, certain and wrong the worst", () => {
  const right = calibration([[1, 0], [0, 1]], [0, 1]);
  assert.deepEqual(right, { expectedCalibrationError: 0, brierScore: 0, meanConfidence: 1 });
  const wrong = calibration([[1, 0], [0, 1]], [1, 0]);
  assert.deepEqual(wrong, { expectedCalibrationError: 1, brierScore: 2, meanConfidence: 1 });
  // Two answers with 0.75, one of them right: the gap is 0.25 in the one bin used.
  const half = calibration([[0.75, 0.25], [0.75, 0.25]], [0, 1]);
  assert.ok(Math.abs(half.expectedCalibrationError - 0.25) < 1e-12);
});

Deno.test("perturbations change texts, the same way each time, and keep first and last letters", () => {
  const text = "Nothing about this remarkable performance, however, was disappointing!";
  for (const { name, apply } of perturbations) {
    assert.equal(apply(text, 3), apply(text, 3), name);
    const changed = Array.from({ length: 20 }, (_, index) => apply(text, index));
    assert.ok(changed.some((other) => other !== text), name);
  }
  const typos = perturbations.find(({ name }) => name.startsWith("typos"))!;
  const words = text.split(" ");
  typos.apply(text, 1).split(" ").forEach((word, i) => {
    assert.equal(word.length, words[i].length);
    assert.deepEqual([...word].sort(), [...words[i]].sort());
    assert.equal(word[0], words[i][0]);
  });
});

Deno.test("evaluate agrees with the run that made the model, and with the pipeline", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings();
  const result = await finetune(settings);
  const model = result.exported!.dir;
  const found = await evaluate({ model, evaluation: settings.evaluation! });
  assert.equal(found.examples, result.evaluation!.examples);
  assert.ok(Math.abs(found.metrics.accuracy - result.evaluation!.metrics.accuracy) < 1e-9);
  assert.ok(Math.abs(found.loss - result.evaluation!.loss) < 1e-4);
  assert.equal(found.robustness.length, perturbations.length);
  assert.ok(found.calibration!.meanConfidence > 0.5);
  for (const { primary, unchanged } of found.robustness) {
    assert.equal(primary.name, "accuracy");
    assert.ok(primary.value >= 0 && primary.value <= 1 && unchanged! >= 0 && unchanged! <= 1);
  }

  const rows = tinyRows(40, 77);
  const path = await folder.write(
    "numbers.tsv",
    ["sentence\tlabel", ...rows.map(({ sentence, label }) => `${sentence}\t${label === "positive" ? 1 : 0}`)]
      .join("\n"),
  );
  const classify = await pipeline("text-classification", model);
  const answers = await classify(rows.map(({ sentence }) => sentence));
  await classify.dispose();
  const right = answers.filter(({ label }, index) => label === rows[index].label).length / rows.length;
  assert.equal(
    (await evaluate({ model, evaluation: path })).metrics.accuracy,
    right,
    "labels 0 and 1 are the classes in order",
  );
});

Deno.test("a regression model answers with its score, and is evaluated by it", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model", { id2label: { 0: "likeness" } });
  assert.equal(JSON.parse(await Deno.readTextFile(`${model}/config.json`)).problem_type, "regression");
  const rows = tinyRows(30, 3).map(({ sentence }, index) => ({ sentence, score: (index * 7) % 11 / 2 }));
  const path = await folder.write(
    "scores.tsv",
    ["sentence\tscore", ...rows.map(({ sentence, score }) => `${sentence}\t${score}`)].join("\n"),
  );
  for (const dir of [model, (await exportModel({ model, out: folder.at("export") })).dir]) {
    const predict = await pipeline("text-classification", dir, { threads: 1 });
    const answers = await predict(rows.map(({ sentence }) => sentence), { top_k: 2 });
    await predict.dispose();
    assert.ok(answers.every((scores) => scores.length === 1 && scores[0].label === "likeness"));
    const predictions = answers.map(([{ score }]) => score);
    assert.ok(new Set(predictions).size > 10, "scores, not the probability 1");

    const found = await evaluate({ model: dir, evaluation: path });
    const expected = regressionEvaluation(predictions, rows.map(({ score }) => score));
    for (const [name, value] of Object.entries(expected.metrics)) {
      assert.ok(Math.abs(found.metrics[name] - value) < 1e-4 * Math.max(1, Math.abs(value)), name);
    }
    assert.equal(found.calibration, undefined);
    assert.ok(found.robustness.every(({ primary, unchanged }) => primary.name === "pearson" && !unchanged));
  }
  const words = await folder.write("words.tsv", "sentence\tscore\nfilm\tsplendid\n");
  await assert.rejects(
    evaluate({ model, evaluation: words }),
    /^InputError: .*words.tsv line 2 has the label "splendid" in "score", wanted a number$/,
  );
});

Deno.test("a masked language model is refused in one line where a classifier is wanted, and exported without ONNX", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeMaskedLm("model");
  const refusal = /^InputError: .*model lacks bert.pooler.dense.weight, .*: fine-tune it/;
  await assert.rejects(pipeline("text-classification", model), refusal);
  await assert.rejects(evaluate({ model, evaluation: folder.at("eval.tsv") }), refusal);
  const { dir, files } = await exportModel({ model, out: folder.at("export") });
  assert.deepEqual(files.map(({ name }) => name), ["model.safetensors"]);
  const [stored, exported] = await Promise.all(
    [model, dir].map((path) => openModel(path, { head: "stored" })),
  );
  assert.deepEqual([exported.head, exported.missing, exported.unused], ["masked-lm", [], []]);
  assert.deepEqual(exported.configJson.architectures, ["BertForMaskedLM"]);
  for (const name of ["cls.predictions.bias", "cls.predictions.transform.dense.weight"]) {
    const shape = stored.tensors.shape(name)!;
    assert.deepEqual(await exported.tensors.weight(name, shape), await stored.tensors.weight(name, shape));
  }
  await assert.rejects(
    exportModel({ model, out: folder.at("onnx"), format: "onnx" }),
    /is a masked language model, of which there is no ONNX file: wanted --format sparse or safetensors$/,
  );
});

Deno.test("evaluate refuses unknown labels, missing files and senseless lengths in one line", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model", { id2label: { 0: "negative", 1: "positive" } });
  const odd = await folder.write("odd.tsv", "sentence\tlabel\ngood film\tsplendid\nbad film\tnegative\n");
  const cases: [Partial<Parameters<typeof evaluate>[0]>, RegExp][] = [
    [{ evaluation: odd }, /unknown label "splendid"; known are negative, positive/],
    [{ evaluation: folder.at("absent.tsv") }, /absent.tsv/],
    [{ evaluation: odd, maximumLength: 100_000 }, /--max-length is 100000|unknown label/],
    [{ model: folder.at("nowhere"), evaluation: odd }, /nowhere/],
  ];
  for (const [options, message] of cases) {
    await assert.rejects(evaluate({ model, evaluation: odd, ...options }), (error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  }
});
