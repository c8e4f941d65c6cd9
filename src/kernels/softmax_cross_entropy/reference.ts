/**
 * The loss as plain loops: the definition.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";
import { type CrossEntropyAttributes, settled } from "./variant.ts";

/** Operands of the loss; matrices are row-major [classes, columns]. */
export interface CrossEntropyOperands {
  readonly logits: NumberArray;
  /** [columns], −1 = does not count, else below `classes`. */
  readonly labels: NumberArray;
  /** [classes]; 1 each where absent. */
  readonly classWeights?: NumberArray;
  /** [classes, columns]; wanted where hardness is above 0. */
  readonly teacherLogits?: NumberArray;
  readonly classes: number;
  readonly columns: number;
}

/** Results of the loss. */
export interface CrossEntropyResult {
  readonly loss: number;
  /** [classes, columns] */
  readonly gradLogits: NumberArray;
  /** [columns]: their mean over the labelled columns is the loss. */
  readonly columnLosses: NumberArray;
}

/**
 * loss = (1 − h) · CE + h · KD over the n columns with a label y ≥ 0, and its gradient; 0 in the other columns.
 *
 *     CE = Σ [(1 − ε) · w_y · −log p_y + ε/classes · Σ_c w_c · −log p_c] / Σ w_y        p = softmax(logits)
 *     KD = T²/n · Σ KL(softmax(teacher/T) ‖ softmax(logits/T))
 *
 * CE is `torch.nn.CrossEntropyLoss(weight, label_smoothing)` of PyTorch; where it has 0/0 (no label, or labels of no
 * weight) the divisor here is 1. KD is the distillation loss of Hinton et al. (arXiv 1503.02531) as SparseML has it.
 */
export function softmaxCrossEntropyReference(
  { logits, labels, classWeights, teacherLogits, classes, columns }: CrossEntropyOperands,
  attributes: CrossEntropyAttributes = {},
): CrossEntropyResult {
  const { labelSmoothing, hardness, temperature } = settled(attributes);
  const make = (length: number) =>
    logits instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
  const gradLogits = make(classes * columns);
  const columnLosses = make(columns);
  const weightOf = (row: number) => classWeights?.[row] ?? 1;
  const labelled = Array.from(labels).filter((label) => label >= 0);
  const count = labelled.length;
  const weightSum = labelled.reduce((sum, label) => sum + weightOf(label), 0) || 1;
  // What a column's cross-entropy counts, of a mean over n columns.
  const taskScale = (1 - hardness) * count / weightSum;

  let loss = 0;
  for (let column = 0; column < columns; column++) {
    const label = labels[column];
    if (label < 0) continue;
    const take = (matrix: NumberArray, divisor: number) =>
      logSoftmax(Array.from({ length: classes }, (_, row) => matrix[row * columns + column] / divisor));
    const gradient = new Float64Array(classes);
    let columnLoss = 0;
    if (hardness < 1) {
      const logProbabilities = take(logits, 1);
      const target = logProbabilities.map((_, row) =>
        ((row === label ? 1 - labelSmoothing : 0) + labelSmoothing / classes) * weightOf(row)
      );
      const mass = target.reduce((sum, share) => sum + share, 0);
      logProbabilities.forEach((logProbability, row) => {
        // A class ruled out has −∞, which must not meet a target of 0.
        if (target[row] !== 0) columnLoss -= taskScale * target[row] * logProbability;
        gradient[row] += taskScale * (mass * Math.exp(logProbability) - target[row]);
      });
    }
    if (hardness > 0) {
      const student = take(logits, temperature);
      take(teacherLogits!, temperature).forEach((teacher, row) => {
        const probability = Math.exp(teacher);
        if (probability !== 0) {
          columnLoss += hardness * temperature ** 2 * probability * (teacher - student[row]);
        }
        gradient[row] += hardness * temperature * (Math.exp(student[row]) - probability);
      });
    }
    columnLosses[column] = columnLoss;
    loss += columnLoss / count;
    gradient.forEach((value, row) => gradLogits[row * columns + column] = value / count);
  }
  return { loss, gradLogits, columnLosses };
}

function logSoftmax(scores: readonly number[]): number[] {
  const highest = scores.reduce((a, b) => Math.max(a, b));
  const sum = scores.reduce((total, score) => total + Math.exp(score - highest), 0);
  return scores.map((score) => score - highest - Math.log(sum));
}
