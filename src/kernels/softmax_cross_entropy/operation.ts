/**
 * The training loss: softmax and cross-entropy together, with the gradient as a second result.
 * @module
 */
import { rows } from "../../graph/graph.ts";
import { type Operation, shapeError } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { softmaxCrossEntropyKernel } from "./kernel.ts";
import { softmaxCrossEntropyReference } from "./reference.ts";

/**
 * Operands: logits tiled [classes, columns], labels i32 [columns] (−1 = ignored, else below `classes`).
 * Results: the mean loss over the labelled columns, rows [1], and the gradient of the logits, 0 in the other columns.
 * It is the root of differentiation. The work is too small to share: the first worker does it.
 */
export const softmaxCrossEntropy: Operation<Record<never, never>> = {
  name: "softmaxCrossEntropy",

  infer(inputs) {
    const [logits, labels] = inputs;
    const fits = logits?.dtype === "f32" && logits.layout === "tiled" && labels?.dtype === "i32" &&
      labels.shape.length === 1 && labels.shape[0] === logits.shape[1];
    if (!fits) {
      throw shapeError("softmaxCrossEntropy", "f32 tiled [classes, columns], i32 rows [columns]", inputs);
    }
    return [rows(1), logits];
  },

  reference([logits, labels], { outputTypes }) {
    const [classes, columns] = outputTypes[1].shape;
    const { loss, gradLogits } = softmaxCrossEntropyReference(logits!, labels!, classes, columns);
    return [logits instanceof Float64Array ? Float64Array.of(loss) : Float32Array.of(loss), gradLogits];
  },

  gradient({ node, outputGradients: [, gradGradient] }) {
    if (gradGradient) throw new TypeError("Cannot differentiate softmaxCrossEntropy twice");
    return [node.outputs[1], undefined];
  },

  inPlace: [[0, 1]],

  lower({ inputs: [logits, labels], outputs: [loss, gradLogits], target: { tile, workers } }) {
    const [classes, columns] = gradLogits.type.shape;
    const call = callKernel(softmaxCrossEntropyKernel(tile), {
      logits: logits!.address,
      labels: labels!.address,
      loss: loss.address,
      gradLogits: gradLogits.address,
      classes,
      columns,
    });
    const calls = Array.from({ length: workers }, (_, worker) => worker === 0 ? [call] : []);
    return [{ name: "softmaxCrossEntropy", calls }];
  },
};
