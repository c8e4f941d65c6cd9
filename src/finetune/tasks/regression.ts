/**
 * Training a model that gives texts, or pairs of texts, a score.
 * @module
 */
import { buildRegression, targetsInput } from "../../../models/bert_regression.ts";
import type { BertConfig } from "../../../models/config.ts";
import { type BatchLimit, type EncodedExample, evaluationBatches } from "../../data/batches.ts";
import type { ExampleSet } from "../../data/example_set.ts";
import type { Evaluation } from "../../evaluate/metrics.ts";
import { regressionEvaluation } from "../../evaluate/regression_metrics.ts";
import { initialiseParameter } from "../parameters.ts";
import type { Trainer } from "../trainer.ts";
import { numberView, type TrainingModel } from "../training_model.ts";
import { bertBatches, fillTeacher, type TeacherInput, teacherInputs, variantOf } from "./classification.ts";

/** BERT with one output as the trainer takes it. Every example has a target, and an `index` where there is a teacher. */
export function regressor(config: BertConfig, teaching?: TeacherInput): TrainingModel<EncodedExample> {
  const steady = { ...config, hiddenDropout: 0, attentionDropout: 0, classifierDropout: 0 };
  return {
    ...bertBatches,
    get variant() {
      return variantOf(teaching);
    },
    build(graph, { dropout, ...request }) {
      const hardness = request.mode === "evaluate" ? 0 : teaching?.lessons.lesson?.hardness;
      const { hidden, loss } = buildRegression(graph, dropout ? config : steady, { ...request, hardness });
      return { loss: loss!, checkpoints: hidden.slice(0, -1) };
    },
    inputs: (size) => ({
      ...bertBatches.inputs(size),
      [targetsInput]: { dtype: "f32", length: size.sequences },
      ...teacherInputs(teaching, size.sequences),
    }),
    fill(batch, views, key, mode) {
      bertBatches.fill(batch, views, key, mode);
      const targets = numberView(views, targetsInput);
      batch.forEach(({ target }, sequence) => targets[sequence] = target!);
      targets.fill(0, batch.length);
      if (teaching && mode === "train") fillTeacher(teaching, batch, views);
    },
    initialise: (slot, target, seed) =>
      initialiseParameter(slot, target, {
        range: config.initializerRange,
        seed,
        padTokenId: config.padTokenId,
      }),
  };
}

/** Errors and correlations on a scored set. */
export async function evaluateRegression(
  trainer: Trainer<EncodedExample>,
  set: ExampleSet<EncodedExample>,
  limit: BatchLimit,
): Promise<Evaluation> {
  const count = set.lengths.length;
  const [predictions, targets] = [new Float64Array(count), new Float64Array(count)];
  for (const indices of evaluationBatches(set.lengths, limit)) {
    const { outputs } = await trainer.evaluate(Array.from(indices, set.at));
    const { values } = outputs.get("logits")!;
    indices.forEach((example, column) => {
      predictions[example] = values[column];
      targets[example] = set.at(example).target!;
    });
  }
  return regressionEvaluation(predictions, targets);
}
