/**
 * What the curve of a learning-rate finder suggests: four rules of thumb, as fastai computes them
 * (`fastai/callback/schedule.py`).
 * @module
 */

/** The loss at one rate of the range test. */
export interface FinderPoint {
  /** The rate of its update. */
  readonly learningRate: number;
  /** Of the batch, before the update with this rate. */
  readonly loss: number;
  /** Exponential mean of the losses so far, without its bias to 0. */
  readonly smoothed: number;
}

/** Peak learning rates that a curve suggests. */
export interface LearningRateSuggestions {
  /** Two thirds into the longest falling stretch, as nearly as whole points allow: fastai's default. */
  readonly valley: number;
  /** Where the loss falls most steeply over the logarithm of the rate. */
  readonly steep: number;
  /** A tenth of the rate with the lowest loss. */
  readonly minimum: number;
  /** Where, coming from the high end, the slope stops changing over 15 points. Absent for curves too short for that. */
  readonly slide?: number;
}

/** Points left out at the end of a curve, where it may shoot up. */
const pointsCut = 5;

/**
 * The suggestions of a curve of which the first tenth of the `planned` points and the last five count for nothing, nor
 * anything from the first loss on that is no number. Undefined where that leaves fewer than two points.
 */
export function suggestLearningRates(
  points: readonly FinderPoint[],
  planned: number,
): LearningRateSuggestions | undefined {
  const inner = points.slice(Math.floor(planned / 10), Math.max(0, points.length - pointsCut));
  const bad = inner.findIndex(({ smoothed }) => !Number.isFinite(smoothed));
  const curve = bad < 0 ? inner : inner.slice(0, bad);
  if (curve.length < 2) return undefined;
  const rates = curve.map(({ learningRate }) => learningRate);
  const losses = curve.map(({ smoothed }) => smoothed);
  return {
    valley: rates[valleyIndex(losses)],
    steep: rates[steepIndex(rates, losses)],
    minimum: rates[losses.indexOf(Math.min(...losses))] / 10,
    slide: rates[slideIndex(losses)],
  };
}

/**
 * The longest strictly decreasing subsequence of L points that ends earliest, at E; it is taken to start at S = E − L.
 * With x = (E − S) / 3 the index is S + ⌊x⌋ + ⌊x/2⌋.
 */
function valleyIndex(losses: readonly number[]): number {
  /** Length of the longest decreasing subsequence that ends at each point. */
  const lengths: number[] = [];
  let end = 0;
  for (const [index, loss] of losses.entries()) {
    let length = 1;
    for (let before = 0; before < index; before++) {
      if (loss < losses[before]) length = Math.max(length, lengths[before] + 1);
    }
    lengths.push(length);
    if (length > lengths[end]) end = index;
  }
  // A curve that never falls has no valley, and fastai then takes its first point.
  if (lengths[end] === 1) return 0;
  const start = end - lengths[end];
  const third = lengths[end] / 3;
  return Math.max(0, start + Math.floor(third) + Math.floor(third / 2));
}

/** The point from which the loss falls most steeply to the next. */
function steepIndex(rates: readonly number[], losses: readonly number[]): number {
  const slopes = losses.slice(1).map((loss, index) =>
    (loss - losses[index]) / (Math.log(rates[index + 1]) - Math.log(rates[index]))
  );
  return slopes.indexOf(Math.min(...slopes));
}

/** Width of the interval that slides, in points. */
const slideWidth = 15;
/** Slopes, in loss a point, that count as different. */
const slideThreshold = 0.005;

/**
 * Slides an interval of 15 points down from the high end while the slopes at its two ends differ; its left end, where
 * that ends. −1 for a curve that is no longer than the interval.
 */
function slideIndex(losses: readonly number[]): number {
  const slopes = losses.map((_, index) => slopeAt(losses, index));
  let right = losses.length - 1;
  let left = right - slideWidth;
  let found = left;
  while (left >= 0 && Math.abs(slopes[right] - slopes[left]) > slideThreshold) {
    found = left;
    right--;
    left--;
  }
  return found;
}

/** The central difference, one-sided at the ends (NumPy's `gradient`). */
function slopeAt(losses: readonly number[], index: number): number {
  const low = Math.max(0, index - 1);
  const high = Math.min(losses.length - 1, index + 1);
  return (losses[high] - losses[low]) / (high - low);
}
