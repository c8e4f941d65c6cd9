/**
 * The training loss: softmax and cross-entropy together, with the gradient as a second result.
 * @module
 */
import { elementCount, rows, sameType, type ValueType } from "../../graph/graph.ts";
import { type Operation, shapeError } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { frameBytes } from "./column_vector.ts";
import { softmaxCrossEntropyKernel } from "./kernel.ts";
import { lossSteps } from "./labelled_mean.ts";
import { softmaxCrossEntropyReference } from "./reference.ts";
import { type CrossEntropyAttributes, settled, variantOf } from "./variant.ts";

/**
 * Operands: logits tiled [classes, columns], labels i32 [columns] (−1 = ignored, else below `classes`), and if wanted
 * class weights rows [classes], not negative, and the teacher's logits, as the student's.
 * Results: the mean loss over the labelled columns, rows [1]; the gradient of the logits, 0 in the other columns; the
 * loss of each column, rows [columns], whose mean is the first. `reference.ts` has the formula.
 * It is the root of differentiation. With hardness 1 labels only say which columns count; with 0 the teacher is not read.
 */
export const softmaxCrossEntropy: Operation<CrossEntropyAttributes> = {
  name: "softmaxCrossEntropy",

  infer(inputs, attributes) {
    const [logits, labels, classWeights, teacherLogits] = inputs;
    const { hardness } = settled(attributes);
    const fits = logits?.dtype === "f32" && logits.layout === "tiled" && labels?.dtype === "i32" &&
      labels.shape.length === 1 && labels.shape[0] === logits.shape[1] &&
      isAbsentOr(rows(logits.shape[0]), classWeights) && isAbsentOr(logits, teacherLogits) &&
      (hardness === 0 || teacherLogits !== undefined);
    if (!fits) {
      const wanted =
        "f32 tiled [classes, columns], i32 rows [columns], class weights f32 rows [classes] or nothing, " +
        `teacher logits as the logits${hardness === 0 ? " or nothing" : ""}`;
      throw shapeError("softmaxCrossEntropy", wanted, inputs);
    }
    return [rows(1), logits, rows(logits.shape[1])];
  },

  reference([logits, labels, classWeights, teacherLogits], { attributes, outputTypes }) {
    const [classes, columns] = outputTypes[1].shape;
    const operands = { logits: logits!, labels: labels!, classWeights, teacherLogits, classes, columns };
    const { loss, gradLogits, columnLosses } = softmaxCrossEntropyReference(operands, attributes);
    return [
      logits instanceof Float64Array ? Float64Array.of(loss) : Float32Array.of(loss),
      gradLogits,
      columnLosses,
    ];
  },

  gradient({ node, outputGradients: [, ...others] }) {
    if (others.some((gradient) => gradient)) {
      throw new TypeError("Cannot differentiate softmaxCrossEntropy twice, nor the losses of single columns");
    }
    return [node.outputs[1], undefined, undefined, undefined];
  },

  inPlace: [[0, 1]],

  scratchBytes: (_, { lanes }) => frameBytes(lanes),

  lower({ attributes, inputs, outputs: [loss, gradLogits, columnLosses], target, scratch }) {
    const [logits, labels, classWeights, teacherLogits] = inputs;
    const [classes, columns] = gradLogits.type.shape;
    const { labelSmoothing, hardness, temperature } = settled(attributes);
    const kernel = softmaxCrossEntropyKernel(
      variantOf(attributes, { tile: target.tile, hasWeights: classWeights !== undefined }),
    );
    return lossSteps({
      name: "softmaxCrossEntropy",
      labels: labels!,
      loss,
      columnLosses,
      work: elementCount(gradLogits.type),
      target,
      columnsCall: ({ begin, end }, worker) =>
        callKernel(kernel, {
          allLabels: labels!.address,
          allColumns: columns,
          // Tiles lie one after the other, so columns from a tile's first on begin after `begin` whole columns.
          logits: logits!.address + 4 * classes * begin,
          gradLogits: gradLogits.address + 4 * classes * begin,
          teacherLogits: teacherLogits ? teacherLogits.address + 4 * classes * begin : 0,
          labels: labels!.address + 4 * begin,
          columnLosses: columnLosses.address + 4 * begin,
          classWeights: classWeights?.address ?? 0,
          frame: scratch(worker),
          classes,
          columns: end - begin,
          taskShare: 1 - hardness,
          teacherShare: hardness,
          labelShare: 1 - labelSmoothing,
          classShare: labelSmoothing / classes,
          temperature,
          inverseTemperature: 1 / temperature,
        }),
    });
  },
};

function isAbsentOr(wanted: ValueType, found: ValueType | undefined): boolean {
  return found === undefined || sameType(wanted, found);
}
