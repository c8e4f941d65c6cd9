/**
 * Whether a classifier's scores mean what they say: of answers given with 80 %, are 80 % right?
 * @module
 */

/** Calibration of a set of answers. */
export interface Calibration {
  /** Expected calibration error: mean gap between confidence and accuracy over bins, weighted by their size. */
  readonly expectedCalibrationError: number;
  /** Mean squared distance between the scores and the one-hot label, summed over classes; 0 is perfect, 2 the worst. */
  readonly brierScore: number;
  /** Mean score of the answers given. */
  readonly meanConfidence: number;
}

/** Bins of equal width, as in Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599). */
const bins = 15;

/** Calibration of probabilities [examples][classes] against labels. */
export function calibration(
  probabilities: readonly ArrayLike<number>[],
  labels: ArrayLike<number>,
): Calibration {
  const counts = new Float64Array(bins);
  const confidences = new Float64Array(bins);
  const right = new Float64Array(bins);
  let brier = 0;
  probabilities.forEach((scores, example) => {
    let best = 0;
    for (let k = 0; k < scores.length; k++) {
      if (scores[k] > scores[best]) best = k;
      brier += (scores[k] - (k === labels[example] ? 1 : 0)) ** 2;
    }
    const bin = Math.min(bins - 1, Math.floor(scores[best] * bins));
    counts[bin]++;
    confidences[bin] += scores[best];
    right[bin] += best === labels[example] ? 1 : 0;
  });
  const examples = probabilities.length;
  let gap = 0;
  for (let bin = 0; bin < bins; bin++) gap += Math.abs(confidences[bin] - right[bin]);
  return {
    expectedCalibrationError: gap / examples,
    brierScore: brier / examples,
    meanConfidence: confidences.reduce((sum, value) => sum + value, 0) / examples,
  };
}
