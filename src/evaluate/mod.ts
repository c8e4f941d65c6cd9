/**
 * Evaluation of a finished model on a labelled file: task metrics, calibration, robustness.
 * @module
 */
import { openModel } from "../checkpoint/model_folder.ts";
import { InputError } from "../core/errors.ts";
import { type Example, labelIndices, readExamples } from "../data/table.ts";
import { checkTokenizer, loadTokenizer } from "../data/tokenizer.ts";
import { Session } from "../infer/session.ts";
import { softmax } from "../infer/softmax.ts";
import { selectMachine } from "../machines/mod.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import { type Calibration, calibration } from "./calibration.ts";
import { type ClassificationMetrics, ConfusionMatrix, type Evaluation, predictedClass } from "./metrics.ts";
import { perturbations } from "./perturb.ts";

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
  /** Share of right answers. */
  readonly accuracy: number;
  /** Share of answers that are the same as for the undisturbed text. */
  readonly unchanged: number;
}

/** A whole evaluation. */
export interface ModelEvaluation extends Evaluation, ClassificationMetrics {
  /** Whether scores can be trusted. */
  readonly calibration: Calibration;
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
  });
  const classes = classesOf(examples, model.config.labels);
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
      const logits = await session.logits(
        examples.map(({ text, pair }, index) => {
          const { ids, typeIds } = tokenizer.encode(
            change(text, index),
            pair === undefined ? undefined : change(pair, index),
            maximumLength,
          );
          return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds) };
        }),
      );
      return logits.map(softmax);
    };
    const begin = performance.now();
    const probabilities = await answer((text) => text);
    const seconds = (performance.now() - begin) / 1000;
    const best = probabilities.map(bestClass);
    const confusion = new ConfusionMatrix(model.config.labels.length);
    let lossSum = 0;
    probabilities.forEach((scores, example) => {
      confusion.add(classes[example], best[example]);
      lossSum -= Math.log(Math.max(scores[classes[example]], Number.MIN_VALUE));
    });
    const robustness: Robustness[] = [];
    for (const { name, apply } of perturbations) {
      const disturbed = (await answer(apply)).map(bestClass);
      const share = (same: (example: number) => boolean) =>
        disturbed.filter((_, example) => same(example)).length / examples.length;
      robustness.push({
        perturbation: name,
        accuracy: share((example) => disturbed[example] === classes[example]),
        unchanged: share((example) => disturbed[example] === best[example]),
      });
    }
    return {
      ...confusion.evaluation(lossSum),
      calibration: calibration(probabilities, classes),
      robustness,
      examplesPerSecond: examples.length / seconds,
    };
  } finally {
    await session.dispose();
  }
}

/** Class numbers. A file with 0, 1, … means the model's classes in order, where the model has other names. */
function classesOf(examples: readonly Example[], labels: readonly string[]): Int32Array {
  const numbers = labels.map((_, index) => String(index));
  const among = (names: readonly string[]) =>
    examples.every(({ label }) => label !== undefined && names.includes(label));
  const isNumbered = !among(labels) && among(numbers);
  return labelIndices(examples, isNumbered ? numbers : labels);
}

function bestClass(scores: Float64Array): number {
  return predictedClass(Float32Array.from(scores), 1, 0, scores.length);
}
