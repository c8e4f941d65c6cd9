/**
 * What predicted numbers are worth: errors, and how far predictions and targets go together.
 * @module
 */
import { type Evaluation, primaryMetric } from "./metrics.ts";

/**
 * Metrics of scores: mean squared and mean absolute error, Pearson's and Spearman's correlation, the two that GLUE wants
 * for STS-B. The loss is the mean squared error; chosen by Pearson's correlation. Throws RangeError when the
 * lists differ in length.
 */
export function regressionEvaluation(
  predictions: ArrayLike<number>,
  targets: ArrayLike<number>,
): Evaluation {
  const errors = new ErrorSums();
  errors.add(predictions, targets);
  const metrics = {
    pearson: pearsonCorrelation(predictions, targets),
    spearman: pearsonCorrelation(averageRanks(predictions), averageRanks(targets)),
    mse: errors.meanSquared,
    mae: errors.meanAbsolute,
  };
  return {
    loss: metrics.mse,
    examples: targets.length,
    metrics,
    primary: primaryMetric(metrics, "pearson", true),
  };
}

/** Metrics of forecasts, over all their values: mean squared and mean absolute error. Chosen by the former. */
export function forecastEvaluation(errors: ErrorSums, examples: number): Evaluation {
  const metrics = { mse: errors.meanSquared, mae: errors.meanAbsolute };
  return { loss: metrics.mse, examples, metrics, primary: primaryMetric(metrics, "mse", false) };
}

/** Sums up errors as predictions come. */
export class ErrorSums {
  #squared = 0;
  #absolute = 0;
  #count = 0;

  /** Notes predictions with what they should have been. Throws RangeError when there are not as many. */
  add(predictions: ArrayLike<number>, targets: ArrayLike<number>): void {
    checkLengths(predictions, targets);
    for (let i = 0; i < targets.length; i++) {
      const error = predictions[i] - targets[i];
      this.#squared += error * error;
      this.#absolute += Math.abs(error);
    }
    this.#count += targets.length;
  }

  /** NaN before the first. */
  get meanSquared(): number {
    return this.#squared / this.#count;
  }

  /** NaN before the first. */
  get meanAbsolute(): number {
    return this.#absolute / this.#count;
  }
}

/** Pearson's correlation, −1 to 1; 0 when one side is constant, where it is not defined. */
export function pearsonCorrelation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  checkLengths(a, b);
  const [meanA, meanB] = [meanOf(a), meanOf(b)];
  let product = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let i = 0; i < a.length; i++) {
    const [deviationA, deviationB] = [a[i] - meanA, b[i] - meanB];
    product += deviationA * deviationB;
    squaresA += deviationA * deviationA;
    squaresB += deviationB * deviationB;
  }
  const spread = Math.sqrt(squaresA) * Math.sqrt(squaresB);
  return spread === 0 ? 0 : product / spread;
}

/** Ranks from 1; equal values share the mean of their ranks, and NaN among them leaves none. Spearman correlates ranks. */
export function averageRanks(values: ArrayLike<number>): Float64Array {
  if (Array.from(values).some(Number.isNaN)) return new Float64Array(values.length).fill(NaN);
  const order = Array.from(values, (_, index) => index).sort((a, b) => values[a] - values[b]);
  const ranks = new Float64Array(values.length);
  for (let begin = 0; begin < order.length;) {
    let end = begin + 1;
    while (end < order.length && values[order[end]] === values[order[begin]]) end++;
    for (let place = begin; place < end; place++) ranks[order[place]] = (begin + 1 + end) / 2;
    begin = end;
  }
  return ranks;
}

function meanOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

function checkLengths(a: ArrayLike<number>, b: ArrayLike<number>): void {
  if (a.length !== b.length) {
    throw new RangeError(`Cannot compare ${a.length} numbers with ${b.length}: wanted as many`);
  }
}
