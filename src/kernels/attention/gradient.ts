/**
 * The gradient of attention, with the probabilities recomputed from the saved log-sum-exp.
 * @module
 */
import type { Operation } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { attentionGradientKernel } from "./gradient_kernel.ts";
import {
  type AttentionAttributes,
  attentionShape,
  attentionSizes,
  checkOperands,
  itemValues,
  scratchLayout,
  zeroPadding,
} from "./lowering.ts";
import { attentionGradientReference } from "./reference.ts";

/**
 * Gradients with respect to q, k and v, 0 in columns past the last offset.
 *
 * Operands: gradContext, q, k, v, context tiled [heads · headSize, columns], logSumExp rows [heads, columns], offsets
 * i32 [sequences + 1], seed? i32 [2]; attributes as forward had them.
 */
export const attentionGradient: Operation<AttentionAttributes> = {
  name: "attentionGradient",

  infer(inputs, attributes) {
    const [gradContext, q, k, v, context, logSumExp, offsets, seed] = inputs;
    const matrices = [gradContext, q, k, v, context];
    checkOperands("attentionGradient", attributes, matrices, offsets, seed, inputs);
    const [heads, columns] = logSumExp?.shape ?? [];
    if (logSumExp?.dtype !== "f32" || heads !== attributes.heads || columns !== q!.shape[1]) {
      throw new TypeError(
        `Cannot apply attentionGradient: logSumExp is [${logSumExp?.shape}], ` +
          `wanted [${attributes.heads}, ${q!.shape[1]}]`,
      );
    }
    return [q!, q!, q!];
  },

  reference([gradContext, q, k, v, context, logSumExp, offsets, seed], { attributes, outputTypes }) {
    const saved = { gradContext: gradContext!, context: context!, logSumExp: logSumExp! };
    const sizes = attentionSizes(attributes, outputTypes[0]);
    const { gradQ, gradK, gradV } = attentionGradientReference(saved, q!, k!, v!, offsets!, seed, sizes);
    return [gradQ, gradK, gradV];
  },

  scratchBytes: (node, target) => scratchLayout(node.outputs[0].type.shape[1], target).bytes,

  lower({ attributes, inputs, outputs, target, scratch }) {
    const [gradContext, q, k, v, context, logSumExp, offsets, seed] = inputs;
    const [gradQ, gradK, gradV] = outputs;
    const { tile, workers } = target;
    const columns = gradQ.type.shape[1];
    const layout = scratchLayout(columns, target);
    const kernel = attentionGradientKernel(attentionShape(attributes, gradQ.type, target));
    const calls = Array.from({ length: workers }, (_, worker) => [
      callKernel(kernel, {
        ...itemValues(attributes, columns, offsets!, seed, layout, scratch(worker), worker, workers),
        gradContext: gradContext!.address,
        q: q!.address,
        k: k!.address,
        v: v!.address,
        context: context!.address,
        logSumExp: logSumExp!.address,
        gradQ: gradQ.address,
        gradK: gradK.address,
        gradV: gradV.address,
        gradScores: scratch(worker) + layout.gradScores,
        delta: scratch(worker) + layout.delta,
      }),
      ...outputs.flatMap((output) => zeroPadding(output, offsets!, tile, worker, workers)),
    ]);
    return [{ name: "attentionGradient", calls }];
  },
};
