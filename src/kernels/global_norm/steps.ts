/**
 * The norm of all gradients as steps of a plan. Not a graph operation: it reads the arena where the gradients lie.
 * @module
 */
import { splitRange, type Step, type Target } from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { chunkElements, clipFactorKernel, sumOfSquaresKernel } from "./kernel.ts";

/** Where the gradients are and where the results go. Addresses are bytes from the arena's start. */
export interface GlobalNormRequest {
  readonly gradients: number;
  /** Elements of the gradients. */
  readonly count: number;
  /** Room for `globalNormPartials(count)` f32 elements, written by the first step. */
  readonly partials: number;
  /** Room for two f32 elements: the norm and the clip factor. */
  readonly result: number;
  /** Norm above which gradients are scaled down; 0 or less for never. */
  readonly maximumNorm: number;
  readonly target: Pick<Target, "workers">;
}

/** Elements of `GlobalNormRequest.partials`. */
export function globalNormPartials(count: number): number {
  return Math.ceil(count / chunkElements);
}

/**
 * Two steps that leave [norm, clip] at `result`: see `globalNormReference` for what they are.
 *
 * A chunk's partial sum belongs to one worker and the partials are added in order by the first worker, so the result
 * does not depend on the number of workers.
 */
export function globalNormSteps(request: GlobalNormRequest): Step[] {
  const { gradients, count, partials, result, maximumNorm, target: { workers } } = request;
  const sums = splitRange(count, workers, chunkElements).map(({ begin, end }) =>
    begin === end ? [] : [callKernel(sumOfSquaresKernel, {
      gradients: gradients + 4 * begin,
      partials: partials + 4 * (begin / chunkElements),
      count: end - begin,
    })]
  );
  const clip = callKernel(clipFactorKernel, {
    partials,
    count: globalNormPartials(count),
    maximumNorm,
    result,
  });
  return [
    { name: "globalNorm.partials", calls: sums },
    { name: "globalNorm.result", calls: sums.map((_, worker) => worker === 0 ? [clip] : []) },
  ];
}
