/**
 * What an evaluation says, whatever the task, and what a classifier's answers are worth.
 * @module
 */

/** How good a model is on a set of examples. */
export interface Evaluation {
  /** Mean of what training minimises. */
  readonly loss: number;
  /** Examples evaluated. */
  readonly examples: number;
  /** The task's metrics by name, in the order in which they are best read. */
  readonly metrics: Readonly<Record<string, number>>;
  /** The one of them that models are chosen by. */
  readonly primary: PrimaryMetric;
}

/** A metric that models are chosen by. */
export interface PrimaryMetric {
  /** Its name among the metrics. */
  readonly name: string;
  /** What it comes to. */
  readonly value: number;
  /** Whether a model with a higher value is the better one. */
  readonly higherIsBetter: boolean;
}

/** Whether one model is better than another of the same task: by the primary metric, and at equal ones by the loss. */
export function isBetter(a: Evaluation, b: Evaluation): boolean {
  const [first, second] = [a.primary.value, b.primary.value];
  if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(second) && !Number.isNaN(first);
  if (first === second) return a.loss < b.loss;
  return first > second === a.primary.higherIsBetter;
}

/** Names the metric to choose models by. */
export function primaryMetric(
  metrics: Readonly<Record<string, number>>,
  name: string,
  higherIsBetter: boolean,
): PrimaryMetric {
  return { name, value: metrics[name], higherIsBetter };
}

/** A metric's name in JSON: `macro_f1` for `macroF1`. */
export function jsonName(metric: string): string {
  return metric.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The metrics as the commands' JSON has them. */
export function metricsJson({ metrics }: Evaluation): Record<string, number> {
  return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [jsonName(name), value]));
}

/** An evaluation in one line, the metric that models are chosen by first. */
export function describeEvaluation({ primary, metrics, loss }: Evaluation): string {
  const others = Object.entries(metrics).filter(([name]) => name !== primary.name);
  return [[primary.name, primary.value] as const, ["loss", loss] as const, ...others]
    .map(([name, value]) => `${jsonName(name).replaceAll("_", " ")} ${value.toFixed(4)}`).join("  ");
}

/** Counts answers as they come. */
export class ConfusionMatrix {
  readonly #counts: Float64Array;

  constructor(readonly classes: number) {
    this.#counts = new Float64Array(classes * classes);
  }

  /** Notes one answer. */
  add(label: number, predicted: number): void {
    this.#counts[label * this.classes + predicted]++;
  }

  /**
   * The metrics of all answers so far; `lossSum` is the sum of their cross-entropies. Models are chosen by accuracy.
   *
   *     accuracy  share of right answers
   *     macroF1   F1 of each class, averaged with equal weight
   *     matthews  Matthews correlation, generalised to many classes (Gorodkin 2004); 0 when one side is constant
   *     f1        of two classes only: F1 of class 1, which GLUE wants for MRPC and QQP; 0 when nobody says class 1
   */
  evaluation(lossSum: number): Evaluation {
    const { classes } = this;
    const labelled = new Float64Array(classes);
    const predicted = new Float64Array(classes);
    let right = 0;
    let examples = 0;
    for (let label = 0; label < classes; label++) {
      for (let answer = 0; answer < classes; answer++) {
        const count = this.#counts[label * classes + answer];
        labelled[label] += count;
        predicted[answer] += count;
        examples += count;
        if (label === answer) right += count;
      }
    }
    const f1 = Array.from({ length: classes }, (_, k) => {
      const total = labelled[k] + predicted[k];
      return total > 0 ? (2 * this.#counts[k * classes + k]) / total : 0;
    });
    let product = 0;
    let labelledSquares = 0;
    let predictedSquares = 0;
    for (let k = 0; k < classes; k++) {
      product += labelled[k] * predicted[k];
      labelledSquares += labelled[k] ** 2;
      predictedSquares += predicted[k] ** 2;
    }
    const spread = Math.sqrt((examples ** 2 - predictedSquares) * (examples ** 2 - labelledSquares));
    const metrics = {
      accuracy: right / examples,
      macroF1: f1.reduce((sum, value) => sum + value, 0) / classes,
      matthews: spread > 0 ? (right * examples - product) / spread : 0,
      ...(classes === 2 && { f1: f1[1] }),
    };
    return {
      loss: lossSum / examples,
      examples,
      metrics,
      primary: primaryMetric(metrics, "accuracy", true),
    };
  }
}

/** Index of the largest of a column's logits; the lowest index among equals. `logits` is [classes, stride]. */
export function predictedClass(
  logits: Float32Array,
  stride: number,
  column: number,
  classes: number,
): number {
  let best = 0;
  for (let k = 1; k < classes; k++) {
    if (logits[k * stride + column] > logits[best * stride + column]) best = k;
  }
  return best;
}
