import assert from "node:assert/strict";
import fc from "fast-check";
import { maskedLanguageEvaluation } from "./language_metrics.ts";
import {
  ConfusionMatrix,
  describeEvaluation,
  type Evaluation,
  isBetter,
  jsonName,
  metricsJson,
} from "./metrics.ts";
import {
  averageRanks,
  ErrorSums,
  forecastEvaluation,
  pearsonCorrelation,
  regressionEvaluation,
} from "./regression_metrics.ts";

const close = (found: number, expected: number) =>
  assert.ok(Math.abs(found - expected) <= 1e-12, `${found}, wanted ${expected}`);

Deno.test("regression: hand-computed errors and correlations", () => {
  // Deviations −2, 0, 2 and −1, −1, 2 of the means 3 and 2: product 6, squares 8 and 6.
  const { loss, examples, metrics, primary } = regressionEvaluation([1, 3, 5], [1, 1, 4]);
  close(metrics.mse, (0 + 4 + 1) / 3);
  close(metrics.mae, (0 + 2 + 1) / 3);
  close(metrics.pearson, 6 / Math.sqrt(8 * 6));
  // Ranks 1, 2, 3 and 1.5, 1.5, 3: deviations −1, 0, 1 and −0.5, −0.5, 1.
  close(metrics.spearman, 1.5 / Math.sqrt(2 * 1.5));
  assert.equal(loss, metrics.mse);
  assert.equal(examples, 3);
  assert.deepEqual(primary, { name: "pearson", value: metrics.pearson, higherIsBetter: true });
});

Deno.test("averageRanks gives equal values the mean of their ranks", () => {
  assert.deepEqual([...averageRanks([30, 10, 20, 20, 20, 5])], [6, 2, 4, 4, 4, 1]);
  assert.deepEqual([...averageRanks([7, 7])], [1.5, 1.5]);
  assert.deepEqual([...averageRanks([])], []);
  assert.deepEqual([...averageRanks([2, NaN])], [NaN, NaN]);
  assert.ok(Number.isNaN(regressionEvaluation([2, NaN], [1, 2]).metrics.spearman));
});

Deno.test("correlations: 1 for a rising line, −1 for a falling one, 0 where a side is constant", () => {
  close(pearsonCorrelation([1, 2, 4], [10, 20, 40]), 1);
  close(pearsonCorrelation([1, 2, 4], [-1, -2, -4]), -1);
  assert.equal(pearsonCorrelation([3, 3, 3], [1, 2, 3]), 0);
  const scores = fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 9 })), {
    minLength: 2,
    maxLength: 30,
  });
  fc.assert(fc.property(scores, (pairs) => {
    const [a, b] = [pairs.map(([x]) => x), pairs.map(([, y]) => y)];
    const { spearman } = regressionEvaluation(a, b).metrics;
    // Ranks do not change under a rising map.
    close(regressionEvaluation(a.map((x) => Math.exp(x) - 5), b).metrics.spearman, spearman);
    assert.ok(Math.abs(spearman) <= 1 + 1e-12);
  }));
  assert.throws(() => pearsonCorrelation([1, 2], [1]), /Cannot compare 2 numbers with 1/);
});

Deno.test("forecasts: errors add up over batches, the lower the better", () => {
  const errors = new ErrorSums();
  errors.add([1, 2], [0, 4]);
  errors.add([5], [2]);
  const { loss, metrics, primary, examples } = forecastEvaluation(errors, 2);
  close(metrics.mse, (1 + 4 + 9) / 3);
  close(metrics.mae, 2);
  assert.deepEqual([loss, examples], [metrics.mse, 2]);
  assert.deepEqual(primary, { name: "mse", value: metrics.mse, higherIsBetter: false });
});

Deno.test("masked tokens: perplexity is e to the mean loss", () => {
  const { loss, metrics, primary } = maskedLanguageEvaluation({
    lossSum: 4 * Math.log(8),
    tokens: 4,
    right: 1,
    examples: 2,
  });
  close(loss, Math.log(8));
  assert.ok(Math.abs(metrics.perplexity - 8) < 1e-9);
  assert.equal(metrics.accuracy, 0.25);
  assert.equal(primary.higherIsBetter, false);
});

Deno.test("f1 of class 1 is reported for two classes and only then", () => {
  const two = new ConfusionMatrix(2);
  // True positives 5, false negatives 1, false positives 2.
  for (const [label, predicted, times] of [[1, 1, 5], [1, 0, 1], [0, 1, 2], [0, 0, 4]]) {
    for (let i = 0; i < times; i++) two.add(label, predicted);
  }
  const { metrics, primary } = two.evaluation(0);
  close(metrics.f1, 10 / 13);
  assert.deepEqual(Object.keys(metrics), ["accuracy", "macroF1", "matthews", "f1"]);
  assert.equal(primary.name, "accuracy");
  const three = new ConfusionMatrix(3);
  three.add(2, 2);
  assert.equal("f1" in three.evaluation(0).metrics, false);
  const silent = new ConfusionMatrix(2);
  silent.add(0, 0);
  assert.equal(silent.evaluation(0).metrics.f1, 0);
});

Deno.test("isBetter goes by the primary metric in its direction, then by the loss, and never prefers NaN", () => {
  const of = (value: number, higherIsBetter: boolean, loss = 1): Evaluation => ({
    loss,
    examples: 1,
    metrics: { it: value },
    primary: { name: "it", value, higherIsBetter },
  });
  assert.ok(isBetter(of(2, true), of(1, true)));
  assert.ok(!isBetter(of(1, true), of(2, true)));
  assert.ok(isBetter(of(1, false), of(2, false)));
  assert.ok(!isBetter(of(2, false), of(1, false)));
  assert.ok(isBetter(of(1, true, 0.5), of(1, true, 0.6)));
  assert.ok(!isBetter(of(1, true, 0.5), of(1, true, 0.5)));
  for (const direction of [true, false]) {
    assert.ok(!isBetter(of(NaN, direction), of(1, direction)));
    assert.ok(isBetter(of(1, direction), of(NaN, direction)));
    assert.ok(!isBetter(of(NaN, direction), of(NaN, direction)));
  }
});

Deno.test("jsonName writes names as the commands' JSON has them", () => {
  assert.deepEqual(["accuracy", "macroF1", "f1", "mse"].map(jsonName), ["accuracy", "macro_f1", "f1", "mse"]);
});

Deno.test("evaluations are told in one line and in JSON, whatever the task", () => {
  const confusion = new ConfusionMatrix(3);
  confusion.add(2, 2);
  const evaluation = confusion.evaluation(0.5);
  assert.equal(
    describeEvaluation(evaluation),
    "accuracy 1.0000  loss 0.5000  macro f1 0.3333  matthews 0.0000",
  );
  assert.deepEqual(metricsJson(evaluation), { accuracy: 1, macro_f1: 1 / 3, matthews: 0 });
});
