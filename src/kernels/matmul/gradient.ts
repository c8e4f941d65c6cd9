/**
 * The gradient of a linear layer's weight.
 * @module
 */
import { rows } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, type Step, type Target } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import {
  type WeightGradientConstants,
  weightGradientConstants,
  weightGradientKernel,
  weightGradientScratchBytes,
} from "./gradient_kernel.ts";
import { matmulWeightGradientReference } from "./reference.ts";
import { splitGrid } from "./shares.ts";

/** Inputs gradY tiled [N, C], x tiled [K, C]; result rows [N, K] = Σ_c gradY[n, c] · x[k, c]. */
export const matmulWeightGradient: Operation<Record<never, never>> = {
  name: "matmulWeightGradient",

  infer(inputs) {
    const [gradY, x] = inputs;
    if (
      gradY?.layout !== "tiled" || gradY.dtype !== "f32" || x?.layout !== "tiled" || x.dtype !== "f32" ||
      gradY.shape[1] !== x.shape[1]
    ) throw shapeError("matmulWeightGradient", "f32 tiled [N, C], f32 tiled [K, C]", inputs);
    return [rows(gradY.shape[0], x.shape[0])];
  },

  reference([gradY, x], { inputTypes, outputTypes }) {
    const [features, depth] = outputTypes[0].shape;
    return [matmulWeightGradientReference(features, depth, inputTypes[0]!.shape[1], gradY!, x!)];
  },

  scratchBytes(node, target) {
    return weightGradientScratchBytes(constantsFor(node.outputs[0].type.shape, target));
  },

  lower({ inputs: [gradY, x], outputs: [result], target, scratch }: Placement<Record<never, never>>): Step[] {
    const { tile, workers } = target;
    const [features, depth] = result.type.shape;
    const tiles = gradY!.type.shape[1] / tile;
    const constants = constantsFor(result.type.shape, target);
    const kernel = weightGradientKernel(constants);
    const shares = splitGrid({
      rows: features,
      rowGrain: constants.block.rows,
      columns: depth,
      columnGrain: constants.panelFeatures,
      workers,
    });
    const calls = shares.map((share, worker) => {
      const { begin: feature, end: featureEnd } = share.columns;
      const list: KernelCall[] = [];
      if (feature === featureEnd) return list;
      for (let row = share.rows.begin; row < share.rows.end; row += constants.panelRows) {
        const count = Math.min(constants.panelRows, share.rows.end - row);
        list.push(callKernel(kernel, {
          gradY: gradY!.address + row * tile * 4,
          x: x!.address + feature * tile * 4,
          gradWeight: result.address + (row * depth + feature) * 4,
          scratch: scratch(worker),
          blocks: Math.floor(count / constants.block.rows),
          singles: count % constants.block.rows,
          features: featureEnd - feature,
          tiles,
        }));
      }
      return list;
    });
    return [{ name: "matmulWeightGradient", calls }];
  },
};

function constantsFor([rows, depth]: readonly number[], target: Target): WeightGradientConstants {
  return weightGradientConstants({ rows, depth, tile: target.tile }, target);
}
