/**
 * Dropout (Srivastava et al., 2014) with scaled survivors, from a counter-based generator: the backward pass draws
 * the same bits again instead of keeping a mask.
 * @module
 */
import { type Operation, shapeError, splitRange } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { dropThreshold, streamWord } from "./emit_random.ts";
import { dropoutKernel } from "./kernel.ts";
import { type DropoutAttributes, dropoutReference } from "./reference.ts";

export type { DropoutAttributes } from "./reference.ts";

/** y = x with a share `rate` of its elements zero and the rest divided by 1 − rate. Operands: x tiled, seed i32[2]. */
export const dropout: Operation<DropoutAttributes> = {
  name: "dropout",

  infer(inputs, { rate }) {
    const [x, seed] = inputs;
    if (!(rate >= 0 && rate < 1)) {
      throw new RangeError(`Cannot apply dropout: rate is ${rate}, wanted 0 ≤ rate < 1`);
    }
    const fits = inputs.length === 2 && x?.dtype === "f32" && x.layout === "tiled" &&
      seed?.dtype === "i32" && seed.shape.length === 1 && seed.shape[0] === 2;
    if (!fits) throw shapeError("dropout", "f32 tiled [features, columns], i32 rows [2]", inputs);
    return [x];
  },

  reference([x, seed], { attributes, outputTypes }) {
    const [features, columns] = outputTypes[0].shape;
    return [dropoutReference(x!, seed!, attributes, features, columns)];
  },

  gradient: ({ graph, node, outputGradients: [gradY] }) => [
    gradY && graph.apply(dropout, node.attributes, [gradY, node.inputs[1]])[0],
    undefined,
  ],

  inPlace: [[0, 0]],

  lower({ attributes: { rate, stream }, inputs: [x, seed], outputs: [y], target: { tile, workers } }) {
    const [features, columns] = y.type.shape;
    const kernel = dropoutKernel(tile);
    const calls = splitRange(features * (columns / tile), workers).map(({ begin, end }) => {
      const firstTile = Math.floor(begin / features);
      const firstFeature = begin % features;
      return begin === end ? [] : [callKernel(kernel, {
        x: x!.address + 4 * tile * begin,
        y: y.address + 4 * tile * begin,
        seed: seed!.address,
        streamWord: streamWord(stream),
        features,
        rows: end - begin,
        rowsInTile: features - firstFeature,
        firstIndex: firstTile * tile * features + firstFeature,
        threshold: dropThreshold(rate),
        scale: 1 / (1 - rate),
      })];
    });
    return [{ name: "dropout", calls }];
  },
};
