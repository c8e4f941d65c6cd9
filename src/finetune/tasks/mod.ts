/**
 * The tasks on texts, by name: what is read of files, which head the model has, and what is trained.
 *
 *     const { data, head, configJson, learn } = textTasks["regression"];
 *     // read as `data` says, open the model with `head`, tokenise; then
 *     const task = learn(encoded, config, tokenizer);
 *
 * Forecasting, which is not about texts, is in `forecasting_task.ts`.
 * @module
 */
import { type BertConfig, bertConfigJson } from "../../../models/config.ts";
import { maskedLmConfigJson } from "../../../models/masked_lm_config.ts";
import type { ModelHead } from "../../checkpoint/model_folder.ts";
import { InputError } from "../../core/errors.ts";
import { encodedExamples, type NumberedExample } from "../../data/example_set.ts";
import { maskingRule } from "../../data/masking.ts";
import type { DataKind, EncodedData } from "../../data/reader.ts";
import type { Tokenizer } from "../../data/tokenizer.ts";
import type { TaskName } from "../options.ts";
import { classifier, type ClassifierLossOptions, evaluateClassifier } from "./classification.ts";
import { evaluateMaskedLm, maskedLanguageModel } from "./masked_lm.ts";
import { evaluateRegression, regressor } from "./regression.ts";
import type { FinetuneTask } from "./task.ts";

/** Name of a task on texts. */
export type TextTaskName = Exclude<TaskName, "forecasting">;

/** A task on texts, before there are any. */
export interface TextTask {
  /** What the reader is to read. */
  readonly data: DataKind;
  /** The head the model has. */
  readonly head: ModelHead;
  /** The `config.json` of the result; `extra` as in `bertConfigJson`. */
  configJson(config: BertConfig, extra?: Readonly<Record<string, unknown>>): Record<string, unknown>;
  /** The task with its data. Throws `InputError` for a tokenizer that lacks what it wants, and a loss it does not have. */
  learn(
    data: Pick<EncodedData, "train" | "evaluation">,
    config: BertConfig,
    tokenizer: Tokenizer,
    loss?: ClassifierLossOptions,
  ): FinetuneTask<NumberedExample>;
}

/** Refuses what only some losses have. */
function refuseLoss(
  task: TextTaskName,
  { labelSmoothing, classWeights, teaching }: ClassifierLossOptions,
): void {
  const given = [
    ["--label-smoothing-factor", labelSmoothing],
    ["--class-weights", classWeights],
    ["--teacher", teaching],
  ].find(([, value]) => value);
  if (given) throw new InputError(`${given[0]} is given: the loss of ${task} has none`);
}

/** The tasks on texts. */
export const textTasks: Readonly<Record<TextTaskName, TextTask>> = {
  "text-classification": {
    data: "classes",
    head: "classifier",
    configJson: bertConfigJson,
    learn(data, config, _tokenizer, loss) {
      const evaluation = encodedExamples(data.evaluation);
      return {
        model: classifier(config, loss),
        train: encodedExamples(data.train),
        evaluation,
        evaluate: (trainer, limit) => evaluateClassifier(trainer, evaluation, limit, config.labels.length),
      };
    },
  },
  "regression": {
    data: "scores",
    head: "classifier",
    configJson: bertConfigJson,
    learn(data, config, _tokenizer, { teaching, ...others } = {}) {
      refuseLoss("regression", others);
      const evaluation = encodedExamples(data.evaluation);
      return {
        model: regressor(config, teaching),
        train: encodedExamples(data.train),
        evaluation,
        evaluate: (trainer, limit) => evaluateRegression(trainer, evaluation, limit),
      };
    },
  },
  "masked-lm": {
    data: "text",
    head: "masked-lm",
    configJson: maskedLmConfigJson,
    learn(data, config, tokenizer, loss = {}) {
      refuseLoss("masked-lm", loss);
      const rule = maskingRule(tokenizer);
      const evaluation = encodedExamples(data.evaluation);
      return {
        model: maskedLanguageModel(config, rule),
        train: encodedExamples(data.train),
        evaluation,
        evaluate: (trainer, limit) => evaluateMaskedLm(trainer, evaluation, limit, rule),
      };
    },
  },
};
