/**
 * The gradients of layer normalisation as operations of their own: one for its argument, one for its parameters.
 * @module
 */
import { rows, sameType, type ValueType } from "../../graph/graph.ts";
import { type Operation, shapeError, splitRange } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import {
  layerNormGradientKernel,
  layerNormGradientRegisters,
  layerNormParameterGradientKernel,
  parameterGradientBlock,
} from "./gradient_kernel.ts";
import { layerNormGradientReference, layerNormParameterGradientReference } from "./reference.ts";
import { chooseStrips, splitStrips } from "./strips.ts";

/** Checks the operands both gradients have; gives their type. */
function inferGradient(
  operation: string,
  [gradY, summed, statistics, ...others]: readonly (ValueType | undefined)[],
  fitsOthers: (features: number) => boolean,
): ValueType {
  const fits = gradY?.dtype === "f32" && gradY.layout === "tiled" && summed && sameType(gradY, summed) &&
    statistics && sameType(statistics, rows(2, gradY.shape[1])) && fitsOthers(gradY.shape[0]);
  if (!fits) {
    const wanted = "f32 tiled [features, columns] twice, rows [2, columns] and parameters of [features]";
    throw shapeError(operation, wanted, [gradY, summed, statistics, ...others]);
  }
  return gradY;
}

/** gradX of operands (gradY, summed, statistics, gamma): also the gradient with respect to the residual. */
export const layerNormGradient: Operation<Record<string, never>> = {
  name: "layerNormGradient",

  infer: (inputs) => [
    inferGradient(
      "layerNormGradient",
      inputs,
      (features) => inputs.length === 4 && inputs[3] !== undefined && sameType(inputs[3], rows(features)),
    ),
  ],

  reference([gradY, summed, statistics, gamma], { outputTypes }) {
    const columns = outputTypes[0].shape[1];
    return [layerNormGradientReference(gradY!, summed!, statistics!, gamma!, columns)];
  },

  inPlace: [[0, 0], [1, 0]],

  lower({ inputs, outputs: [gradX], target }) {
    const [gradY, summed, statistics, gamma] = inputs;
    const [features, columns] = gradX.type.shape;
    const strips = chooseStrips(columns, target, layerNormGradientRegisters);
    const kernel = layerNormGradientKernel({ tile: target.tile, vectors: strips.vectors });
    const calls = splitStrips(strips, features, target).map((share) =>
      share === undefined ? [] : [callKernel(kernel, {
        gradY: gradY!.address,
        summed: summed!.address,
        means: statistics!.address,
        inverseStds: statistics!.address + 4 * columns,
        gamma: gamma!.address,
        gradX: gradX.address,
        ...share,
      })]
    );
    return [{ name: "layerNormGradient", calls }];
  },
};

/** gradGamma and gradBeta, rows [features] each, of operands (gradY, summed, statistics). */
export const layerNormParameterGradient: Operation<Record<string, never>> = {
  name: "layerNormParameterGradient",

  infer(inputs) {
    const [features] = inferGradient("layerNormParameterGradient", inputs, () => inputs.length === 3).shape;
    return [rows(features), rows(features)];
  },

  reference([gradY, summed, statistics], { inputTypes }) {
    const columns = inputTypes[0]!.shape[1];
    const { gradGamma, gradBeta } = layerNormParameterGradientReference(
      gradY!,
      summed!,
      statistics!,
      columns,
    );
    return [gradGamma, gradBeta];
  },

  lower({ inputs, outputs: [gradGamma, gradBeta], target: { tile, workers } }) {
    const [gradY, summed, statistics] = inputs;
    const [features, columns] = gradY!.type.shape;
    const kernel = layerNormParameterGradientKernel(tile);
    const calls = splitRange(features, workers, parameterGradientBlock).map(({ begin, end }) =>
      begin === end ? [] : [callKernel(kernel, {
        gradY: gradY!.address + 4 * tile * begin,
        summed: summed!.address + 4 * tile * begin,
        means: statistics!.address,
        inverseStds: statistics!.address + 4 * columns,
        gradGamma: gradGamma.address + 4 * begin,
        gradBeta: gradBeta.address + 4 * begin,
        features,
        featureCount: end - begin,
        tiles: columns / tile,
      })]
    );
    return [{ name: "layerNormParameterGradient", calls }];
  },
};
