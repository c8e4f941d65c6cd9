/**
 * Evaluation of a finished model on a labelled file: task metrics, calibration of a classifier, robustness.
 * @module
 */
import { isRegression } from "../../models/config.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { InputError } from "../core/errors.ts";
import { type Example, labelIndices, readExamples } from "../data/table.ts";
import { checkTokenizer, loadTokenizer } from "../data/tokenizer.ts";
import { Session } from "../infer/session.ts";
import { softmax } from "../infer/softmax.ts";
import { selectMachine } from "../machines/mod.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import { type Calibration, calibration } from "./calibration.ts";
import { ConfusionMatrix, type Evaluation, predictedClass, type PrimaryMetric } from "./metrics.ts";
import { perturbations } from "./perturb.ts";
import { regressionEvaluation } from "./regression_metrics.ts";

/** What to evaluate on what. */
export interface EvaluateOptions {
  /** Model folder or hub id. */
  readonly model: string;
  /** Labelled file: TSV, CSV or JSON Lines, also `.gz`. */
  readonly evaluation: string;
  /** Column of the text, where its name is unusual. */
  readonly textColumn?: string;
  /** Column of the second text. */
  readonly pairColumn?: string;
  /** Column of the label. */
  readonly labelColumn?: string;
  /** Use the first rows only. */
  readonly maximumSamples?: number;
  /** Longest sequence in tokens; default: what the model can take. */
  readonly maximumLength?: number;
  /** Worker threads; default: one for each usable core. */
  readonly threads?: number;
  /** Instruction set; default: the fastest there is. */
  readonly isa?: string;
}

/** How the model does on disturbed texts. */
export interface Robustness {
  /** What was done to the texts. */
  readonly perturbation: string;
  /** The task's metric: accuracy, or Pearson's correlation. */
  readonly primary: PrimaryMetric;
  /** A classifier's share of answers that are the same as for the undisturbed text. */
  readonly unchanged?: number;
}

/** A whole evaluation. */
export interface ModelEvaluation extends Evaluation {
  /** Whether a classifier's scores can be trusted. */
  readonly calibration?: Calibration;
  /** One entry for each perturbation. */
  readonly robustness: readonly Robustness[];
  /** Texts answered in a second, undisturbed. */
  readonly examplesPerSecond: number;
}

/** Evaluates a model. Throws `InputError` for a model or a file that cannot be used. */
export async function evaluateModel(
  options: EvaluateOptions,
  createExecutor: ExecutorFactory,
): Promise<ModelEvaluation> {
  const { textColumn, pairColumn, labelColumn, maximumSamples } = options;
  const model = await openModel(options.model);
  if (model.missing.length > 0) {
    throw new InputError(
      `${options.model} lacks ${model.missing.join(", ")}: fine-tune it before evaluating it`,
    );
  }
  const { examples } = await readExamples(options.evaluation, {
    textColumn,
    pairColumn,
    labelColumn,
    limit: maximumSamples,
    scores: isRegression(model.config),
  });
  const judge = isRegression(model.config) ? judgeOfScores(examples) : judgeOfClasses(examples, model.config);
  const tokenizer = loadTokenizer(model.tokenizerFiles);
  checkTokenizer(tokenizer, model.config);
  const positions = model.config.maximumPositions;
  const maximumLength = options.maximumLength ?? positions;
  if (!(Number.isInteger(maximumLength) && maximumLength >= 3 && maximumLength <= positions)) {
    throw new InputError(`--max-length is ${maximumLength}: wanted a whole number from 3 to ${positions}`);
  }
  const session = await Session.open(model, {
    machine: selectMachine(options.isa),
    threads: options.threads,
    createExecutor,
  });
  try {
    const answer = async (change: (text: string, index: number) => string) => {
      return await session.logits(
        examples.map(({ text, pair }, index) => {
          const { ids, typeIds } = tokenizer.encode(
            change(text, index),
            pair === undefined ? undefined : change(pair, index),
            maximumLength,
          );
          return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds) };
        }),
      );
    };
    const begin = performance.now();
    const logits = await answer((text) => text);
    const seconds = (performance.now() - begin) / 1000;
    const robustness: Robustness[] = [];
    for (const { name, apply } of perturbations) {
      const disturbed = await answer(apply);
      robustness.push({
        perturbation: name,
        primary: judge.evaluation(disturbed).primary,
        ...(judge.unchanged && { unchanged: judge.unchanged(disturbed, logits) }),
      });
    }
    return {
      ...judge.evaluation(logits),
      ...(judge.calibration && { calibration: judge.calibration(logits) }),
      robustness,
      examplesPerSecond: examples.length / seconds,
    };
  } finally {
    await session.dispose();
  }
}

/** What answers, the logits of each example, are worth. */
interface Judge {
  evaluation(logits: readonly Float32Array[]): Evaluation;
  calibration?(logits: readonly Float32Array[]): Calibration;
  /** Share of answers that are the same. */
  unchanged?(logits: readonly Float32Array[], before: readonly Float32Array[]): number;
}

function judgeOfScores(examples: readonly Example[]): Judge {
  const targets = examples.map(({ label }) => Number(label));
  return { evaluation: (logits) => regressionEvaluation(logits.map(([score]) => score), targets) };
}

function judgeOfClasses(
  examples: readonly Example[],
  { labels }: { readonly labels: readonly string[] },
): Judge {
  const classes = classesOf(examples, labels);
  const bestOf = (logits: Float32Array) => predictedClass(logits, 1, 0, labels.length);
  return {
    evaluation(logits) {
      const confusion = new ConfusionMatrix(labels.length);
      let lossSum = 0;
      logits.forEach((each, example) => {
        const probability = softmax(each)[classes[example]];
        confusion.add(classes[example], bestOf(each));
        lossSum -= Math.log(Math.max(probability, Number.MIN_VALUE));
      });
      return confusion.evaluation(lossSum);
    },
    calibration: (logits) => calibration(logits.map(softmax), classes),
    unchanged: (logits, before) =>
      logits.filter((each, example) => bestOf(each) === bestOf(before[example])).length / logits.length,
  };
}

/** Class numbers. A file with 0, 1, … means the model's classes in order, where the model has other names. */
function classesOf(examples: readonly Example[], labels: readonly string[]): Int32Array {
  const numbers = labels.map((_, index) => String(index));
  const among = (names: readonly string[]) =>
    examples.every(({ label }) => label !== undefined && names.includes(label));
  const isNumbered = !among(labels) && among(numbers);
  return labelIndices(examples, isNumbered ? numbers : labels);
}
