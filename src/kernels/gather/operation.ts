/**
 * Values in another order: the weights of a packed matrix as its transpose stores them.
 * @module
 */
import { indices, rows, sameType } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, splitRange, type Step } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { gatherKernel } from "./kernel.ts";
import { gatherValuesReference } from "./reference.ts";

/** Results whose cache lines no other worker writes. */
const grain = 16;

/**
 * Inputs values f32 rows [n], permutation i32 [m] of numbers from 0 to n − 1; result rows [m] =
 * values[permutation[i]]. It has no gradient: the packed weights get theirs from `sparseMatmulWeightGradient`.
 */
export const gatherValues: Operation<Record<never, never>> = {
  name: "gatherValues",

  infer(inputs) {
    const [values, permutation] = inputs;
    const [count, length] = [values?.shape[0] ?? 0, permutation?.shape[0] ?? 0];
    if (
      !values || !sameType(values, rows(count)) || !permutation || !sameType(permutation, indices(length))
    ) {
      throw shapeError("gatherValues", "f32 rows [n], i32 rows [m]", inputs);
    }
    return [rows(length)];
  },

  reference([values, permutation]) {
    return [gatherValuesReference(values!, permutation as Int32Array)];
  },

  lower(
    { inputs: [values, permutation], outputs: [result], target }: Placement<Record<never, never>>,
  ): Step[] {
    const calls = splitRange(result.type.shape[0], target.workers, grain).map(({ begin, end }) =>
      begin === end ? [] : [callKernel(gatherKernel, {
        values: values!.address,
        permutation: permutation!.address + 4 * begin,
        result: result.address + 4 * begin,
        count: end - begin,
      })]
    );
    return [{ name: "gatherValues", calls }];
  },
};
