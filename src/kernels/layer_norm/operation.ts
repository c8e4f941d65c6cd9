/**
 * Layer normalisation of every column, with the residual sum that comes before it in an encoder.
 * @module
 */
import type { ValueType } from "../../graph/graph.ts";
import { rows, sameType } from "../../graph/graph.ts";
import { type Operation, shapeError } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { layerNormGradient, layerNormParameterGradient } from "./gradient.ts";
import { layerNormKernel, layerNormRegisters } from "./kernel.ts";
import { layerNormReference } from "./reference.ts";
import { chooseStrips, splitStrips } from "./strips.ts";

/** How layer normalisation runs. */
export interface LayerNormAttributes {
  /** Added to the variance. */
  readonly epsilon: number;
  /** Whether to keep what the gradients need. */
  readonly training: boolean;
}

/**
 * y = (summed − mean) / std · gamma + beta per column, with summed = x + residual.
 *
 * Operands: x tiled [features, columns], residual (of x's type) or none, gamma and beta rows [features].
 * Results when training: y, summed, statistics rows [2, columns] (means, then 1 / std); otherwise y alone.
 */
export const layerNorm: Operation<LayerNormAttributes> = {
  name: "layerNorm",

  infer(inputs, { training }) {
    const [x, residual, gamma, beta] = inputs;
    const isVector = (type: ValueType | undefined) => type && x && sameType(type, rows(x.shape[0]));
    const fits = inputs.length === 4 && x?.dtype === "f32" && x.layout === "tiled" &&
      (!residual || sameType(residual, x)) && isVector(gamma) && isVector(beta);
    if (!fits) {
      throw shapeError(
        "layerNorm",
        "f32 tiled [features, columns], the same or nothing, rows [features] twice",
        inputs,
      );
    }
    return training ? [x, x, rows(2, x.shape[1])] : [x];
  },

  reference([x, residual, gamma, beta], { attributes: { epsilon, training }, outputTypes }) {
    const columns = outputTypes[0].shape[1];
    const { y, summed, statistics } = layerNormReference(x!, residual, gamma!, beta!, epsilon, columns);
    return training ? [y, summed, statistics] : [y];
  },

  gradient({ graph, node, outputGradients: [gradY] }) {
    if (!node.attributes.training) {
      throw new TypeError("Cannot differentiate layerNorm: training is false, wanted true");
    }
    if (!gradY) return [undefined, undefined, undefined, undefined];
    const [, summed, statistics] = node.outputs;
    const [, residual, gamma] = node.inputs;
    const [gradX] = graph.apply(layerNormGradient, {}, [gradY, summed, statistics, gamma]);
    const [gradGamma, gradBeta] = graph.apply(layerNormParameterGradient, {}, [gradY, summed, statistics]);
    return [gradX, residual && gradX, gradGamma, gradBeta];
  },

  inPlace: [[0, 0], [1, 0]],

  lower({ attributes: { epsilon, training }, inputs, outputs, target }) {
    const [x, residual, gamma, beta] = inputs;
    const [y, summed, statistics] = outputs;
    const [features, columns] = y.type.shape;
    const strips = chooseStrips(columns, target, layerNormRegisters);
    const kernel = layerNormKernel({
      tile: target.tile,
      vectors: strips.vectors,
      residual: residual !== undefined,
      training,
    });
    const calls = splitStrips(strips, features, target).map((share) =>
      share === undefined ? [] : [callKernel(kernel, {
        x: x!.address,
        residual: (residual ?? x!).address,
        gamma: gamma!.address,
        beta: beta!.address,
        y: y.address,
        summed: (summed ?? y).address,
        means: (statistics ?? y).address,
        inverseStds: statistics ? statistics.address + 4 * columns : y.address,
        epsilon,
        ...share,
      })]
    );
    return [{ name: "layerNorm", calls }];
  },
};
