/**
 * What a classifier's answers are worth.
 * @module
 */

/** Metrics of one evaluation. */
export interface Evaluation {
  /** Mean cross-entropy, natural logarithm. */
  readonly loss: number;
  /** Share of right answers. */
  readonly accuracy: number;
  /** F1 of each class, averaged with equal weight. */
  readonly macroF1: number;
  /** Matthews correlation, generalised to many classes (Gorodkin 2004); 0 when one side is constant. */
  readonly matthews: number;
  /** Examples evaluated. */
  readonly examples: number;
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

  /** The metrics of all answers so far; `lossSum` is the sum of their cross-entropies. */
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
    let f1Sum = 0;
    let product = 0;
    let labelledSquares = 0;
    let predictedSquares = 0;
    for (let k = 0; k < classes; k++) {
      const total = labelled[k] + predicted[k];
      f1Sum += total > 0 ? (2 * this.#counts[k * classes + k]) / total : 0;
      product += labelled[k] * predicted[k];
      labelledSquares += labelled[k] ** 2;
      predictedSquares += predicted[k] ** 2;
    }
    const spread = Math.sqrt((examples ** 2 - predictedSquares) * (examples ** 2 - labelledSquares));
    return {
      loss: lossSum / examples,
      accuracy: right / examples,
      macroF1: f1Sum / classes,
      matthews: spread > 0 ? (right * examples - product) / spread : 0,
      examples,
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
