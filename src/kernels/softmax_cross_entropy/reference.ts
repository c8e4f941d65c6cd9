/**
 * Mean cross-entropy of a softmax as plain loops: the definition.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";

/**
 * loss = mean of −log softmax(logits[·, c])[labels[c]] over the columns with a label ≥ 0, and its gradient with
 * respect to the logits, (softmax − onehot) / count, 0 in the other columns. Without any label both are 0.
 *
 * Logits are row-major [classes, columns]; labels are below `classes`.
 */
export function softmaxCrossEntropyReference(
  logits: NumberArray,
  labels: NumberArray,
  classes: number,
  columns: number,
): { loss: number; gradLogits: NumberArray } {
  const gradLogits = logits instanceof Float64Array
    ? new Float64Array(classes * columns)
    : new Float32Array(classes * columns);
  const count = Array.from(labels).filter((label) => label >= 0).length;
  let loss = 0;
  for (let column = 0; column < columns; column++) {
    const label = labels[column];
    if (label < 0) continue;
    const scores = Array.from({ length: classes }, (_, row) => logits[row * columns + column]);
    const highest = scores.reduce((a, b) => Math.max(a, b));
    const sum = scores.reduce((total, score) => total + Math.exp(score - highest), 0);
    loss += (highest + Math.log(sum) - scores[label]) / count;
    scores.forEach((score, row) => {
      const probability = Math.exp(score - highest) / sum;
      gradLogits[row * columns + column] = (probability - (row === label ? 1 : 0)) / count;
    });
  }
  return { loss, gradLogits };
}
