/**
 * The loss of regression and forecasting: the mean squared error, with the gradient as a second result.
 * @module
 */
import { elementCount, rows, sameType } from "../../graph/graph.ts";
import { type Operation, shapeError } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { lossSteps } from "../softmax_cross_entropy/labelled_mean.ts";
import { meanSquaredErrorKernel } from "./kernel.ts";
import { meanSquaredErrorReference } from "./reference.ts";

/** Constants of the loss. */
export interface SquaredErrorAttributes {
  /** h in [0, 1]: share of the error from the teacher; default 0. Above 0 the teacher is wanted. */
  readonly hardness?: number;
}

/**
 * Operands: predictions tiled [outputs, columns], labels i32 [columns] (−1 = the column does not count), targets as the
 * predictions, and if wanted a teacher's predictions, as these too.
 * Results: the mean of (1 − h) · (y − target)² + h · (y − teacher)² over the outputs of the columns that count, rows [1];
 * the gradient of the predictions, 0 in the other columns; the loss of each column, rows [columns].
 * It is the root of differentiation.
 */
export const meanSquaredError: Operation<SquaredErrorAttributes> = {
  name: "meanSquaredError",

  infer(inputs, { hardness = 0 }) {
    const [predictions, labels, targets, teacher] = inputs;
    if (!(hardness >= 0 && hardness <= 1)) {
      throw new TypeError(
        `Cannot apply meanSquaredError: hardness is ${hardness}, wanted a number in [0, 1]`,
      );
    }
    const fits = predictions?.dtype === "f32" && predictions.layout === "tiled" && labels?.dtype === "i32" &&
      labels.shape.length === 1 && labels.shape[0] === predictions.shape[1] &&
      targets !== undefined && sameType(predictions, targets) &&
      (teacher ? sameType(predictions, teacher) : hardness === 0);
    if (!fits) {
      const wanted = "f32 tiled [outputs, columns], i32 rows [columns], targets as the predictions, " +
        `a teacher's as the predictions${hardness === 0 ? " or nothing" : ""}`;
      throw shapeError("meanSquaredError", wanted, inputs);
    }
    return [rows(1), predictions, rows(predictions.shape[1])];
  },

  reference([predictions, labels, targets, teacher], { attributes: { hardness = 0 }, outputTypes }) {
    const [outputs, columns] = outputTypes[1].shape;
    const { loss, gradPredictions, columnLosses } = meanSquaredErrorReference(
      { predictions: predictions!, labels: labels!, targets: targets!, teacher, outputs, columns },
      hardness,
    );
    return [
      predictions instanceof Float64Array ? Float64Array.of(loss) : Float32Array.of(loss),
      gradPredictions,
      columnLosses,
    ];
  },

  gradient({ node, outputGradients: [, ...others] }) {
    if (others.some((gradient) => gradient)) {
      throw new TypeError("Cannot differentiate meanSquaredError twice, nor the losses of single columns");
    }
    return [node.outputs[1], undefined, undefined, undefined];
  },

  inPlace: [[0, 1]],

  lower({ attributes: { hardness = 0 }, inputs, outputs: [loss, gradPredictions, columnLosses], target }) {
    const [predictions, labels, targets, teacher] = inputs;
    const [outputs, columns] = gradPredictions.type.shape;
    const kernel = meanSquaredErrorKernel({
      tile: target.tile,
      targeted: hardness < 1,
      taught: hardness > 0,
    });
    return lossSteps({
      name: "meanSquaredError",
      labels: labels!,
      loss,
      columnLosses,
      work: elementCount(gradPredictions.type),
      target,
      columnsCall({ begin, end }) {
        // Tiles lie one after the other, so columns from a tile's first on begin after `begin` whole columns.
        const skipped = 4 * outputs * begin;
        return callKernel(kernel, {
          allLabels: labels!.address,
          allColumns: columns,
          predictions: predictions!.address + skipped,
          targets: targets!.address + skipped,
          teacher: teacher ? teacher.address + skipped : 0,
          gradPredictions: gradPredictions.address + skipped,
          labels: labels!.address + 4 * begin,
          columnLosses: columnLosses.address + 4 * begin,
          outputs,
          columns: end - begin,
          targetShare: (1 - hardness) / outputs,
          teacherShare: hardness / outputs,
        });
      },
    });
  },
};
