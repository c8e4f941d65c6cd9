/**
 * Multi-head attention (Vaswani et al., arXiv 1706.03762) over sequences packed end to end.
 * @module
 */
import { rows } from "../../graph/graph.ts";
import type { Operation } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { attentionGradient } from "./gradient.ts";
import { attentionKernel } from "./kernel.ts";
import {
  type AttentionAttributes,
  attentionShape,
  attentionSizes,
  checkOperands,
  itemValues,
  scratchLayout,
  zeroPadding,
} from "./lowering.ts";
import { attentionReference } from "./reference.ts";

export type { AttentionAttributes } from "./lowering.ts";

/**
 * context = dropout(softmax(q·k / √headSize)) · v within each sequence and head.
 *
 * Operands: q, k, v tiled [heads · headSize, columns], offsets i32 [sequences + 1], seed? i32 [2].
 * Results: context like q, and when training the log-sum-exp of the scores, rows [heads, columns]; both 0 in
 * columns past the last offset. The work is shared out by (sequence, head).
 */
export const attention: Operation<AttentionAttributes> = {
  name: "attention",

  infer(inputs, attributes) {
    const [q, k, v, offsets, seed] = inputs;
    checkOperands("attention", attributes, [q, k, v], offsets, seed, inputs);
    return attributes.training ? [q!, rows(attributes.heads, q!.shape[1])] : [q!];
  },

  reference([q, k, v, offsets, seed], { attributes, outputTypes }) {
    const sizes = attentionSizes(attributes, outputTypes[0]);
    const { context, logSumExp } = attentionReference(q!, k!, v!, offsets!, seed, sizes);
    return attributes.training ? [context, logSumExp] : [context];
  },

  gradient({ graph, node, outputGradients: [gradContext, gradLogSumExp] }) {
    const [q, k, v, offsets, seed] = node.inputs;
    const [context, logSumExp] = node.outputs;
    if (!logSumExp) {
      throw new TypeError("Cannot differentiate attention: it was built without training: true");
    }
    if (gradLogSumExp) throw new TypeError("Cannot differentiate attention: its log-sum-exp was used");
    if (!gradContext) return node.inputs.map(() => undefined);
    const operands = [gradContext, q, k, v, context, logSumExp, offsets, seed];
    const gradients = graph.apply(attentionGradient, node.attributes, operands);
    return [...gradients, undefined, undefined];
  },

  scratchBytes: (node, target) => scratchLayout(node.outputs[0].type.shape[1], target).bytes,

  lower({ attributes, inputs, outputs, target, scratch }) {
    const [q, k, v, offsets, seed] = inputs;
    const [context, logSumExp] = outputs;
    const { tile, workers } = target;
    const columns = context.type.shape[1];
    const layout = scratchLayout(columns, target);
    const kernel = attentionKernel(attentionShape(attributes, context.type, target), attributes.training);
    const calls = Array.from({ length: workers }, (_, worker) => [
      callKernel(kernel, {
        ...itemValues(attributes, columns, offsets!, seed, layout, scratch(worker), worker, workers),
        q: q!.address,
        k: k!.address,
        v: v!.address,
        context: context.address,
        logSumExp: logSumExp?.address ?? 0,
      }),
      ...outputs.flatMap((output) => zeroPadding(output, offsets!, tile, worker, workers)),
    ]);
    return [{ name: "attention", calls }];
  },
};
