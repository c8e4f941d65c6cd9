/**
 * The gradient of a bias: the sum over all columns.
 * @module
 */
import { rows } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, splitRange, type Step } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { sumColumnsBlockRows, sumColumnsKernel } from "./kernel.ts";
import { sumColumnsReference } from "./reference.ts";

/** Input gradY tiled [N, C]; result rows [N] = Σ_c gradY[n, c]. */
export const sumColumns: Operation<Record<never, never>> = {
  name: "sumColumns",

  infer(inputs) {
    const [gradY] = inputs;
    if (gradY?.layout !== "tiled" || gradY.dtype !== "f32") {
      throw shapeError("sumColumns", "f32 tiled [N, C]", inputs);
    }
    return [rows(gradY.shape[0])];
  },

  reference([gradY], { inputTypes }) {
    const [features, columns] = inputTypes[0]!.shape;
    return [sumColumnsReference(features, columns, gradY!)];
  },

  lower({ inputs: [gradY], outputs: [sums], target }: Placement<Record<never, never>>): Step[] {
    const [features, columns] = gradY!.type.shape;
    const { tile } = target;
    const kernel = sumColumnsKernel({ rows: features, tile });
    const calls = splitRange(features, target.workers, sumColumnsBlockRows).map(({ begin, end }) =>
      begin === end ? [] : [callKernel(kernel, {
        gradY: gradY!.address + begin * tile * 4,
        sums: sums.address + begin * 4,
        blocks: Math.floor((end - begin) / sumColumnsBlockRows),
        singles: (end - begin) % sumColumnsBlockRows,
        tiles: columns / tile,
      })]
    );
    return [{ name: "sumColumns", calls }];
  },
};
