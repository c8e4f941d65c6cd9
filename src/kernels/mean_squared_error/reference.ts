/**
 * Mean squared error as plain loops: the definition.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";

/** Operands of the loss; matrices are row-major [outputs, columns]. */
export interface SquaredErrorOperands {
  readonly predictions: NumberArray;
  /** [columns], −1 = does not count. */
  readonly labels: NumberArray;
  readonly targets: NumberArray;
  /** Wanted where hardness is above 0. */
  readonly teacher?: NumberArray;
  readonly outputs: number;
  readonly columns: number;
}

/** Results of the loss. */
export interface SquaredErrorResult {
  readonly loss: number;
  /** [outputs, columns] */
  readonly gradPredictions: NumberArray;
  /** [columns]: their mean over the columns that count is the loss. */
  readonly columnLosses: NumberArray;
}

/**
 * loss = mean over the outputs of the n columns that count of (1 − h) · (y − target)² + h · (y − teacher)², and its
 * gradient 2 / (n · outputs) · ((1 − h)(y − target) + h (y − teacher)); 0 in the other columns.
 */
export function meanSquaredErrorReference(
  { predictions, labels, targets, teacher, outputs, columns }: SquaredErrorOperands,
  hardness: number,
): SquaredErrorResult {
  const make = (length: number) =>
    predictions instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
  const gradPredictions = make(outputs * columns);
  const columnLosses = make(columns);
  const count = Array.from(labels).filter((label) => label >= 0).length;
  // A share of 0 asks nobody: what is not finite there does no harm.
  const errorsOf = (wanted: NumberArray | undefined, share: number, index: number) =>
    share === 0 ? 0 : predictions[index] - wanted![index];

  let loss = 0;
  for (let column = 0; column < columns; column++) {
    if (labels[column] < 0) continue;
    let sum = 0;
    for (let row = 0; row < outputs; row++) {
      const index = row * columns + column;
      const own = errorsOf(targets, 1 - hardness, index);
      const others = errorsOf(teacher, hardness, index);
      sum += (1 - hardness) * own ** 2 + hardness * others ** 2;
      gradPredictions[index] = (2 / (count * outputs)) * ((1 - hardness) * own + hardness * others);
    }
    columnLosses[column] = sum / outputs;
    loss += sum / (count * outputs);
  }
  return { loss, gradPredictions, columnLosses };
}
