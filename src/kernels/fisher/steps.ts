/**
 * Sums of outer products as steps of a plan. Not a graph operation: they grow where they lie.
 * @module
 */
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { fisherKernel, type FisherShape } from "./kernel.ts";

/** The blocks of one matrix. Addresses are bytes from the arena's start. */
export interface FisherRange {
  /** [blocks, capacity, size] */
  readonly gradients: number;
  /** [blocks, size, size] */
  readonly fisher: number;
  readonly blocks: number;
}

/** What to add up. */
export interface FisherRequest extends FisherShape {
  readonly ranges: readonly FisherRange[];
  /** Gradients there are, at most the capacity. */
  readonly count: number;
  /** Workers that share the step. */
  readonly workers: number;
}

/** One step that adds the outer products of all gradients to the blocks: see `fisherKernel`. */
export function fisherSteps(request: FisherRequest): Step[] {
  const { ranges, size, capacity, count, workers } = request;
  const kernel = fisherKernel(request);
  const blocks = ranges.reduce((sum, range) => sum + range.blocks, 0);
  const calls = splitRange(blocks, workers).map(({ begin, end }) => {
    const share: KernelCall[] = [];
    let first = 0;
    for (const range of ranges) {
      const from = Math.max(begin, first) - first;
      const to = Math.min(end - first, range.blocks);
      if (from < to) {
        share.push(callKernel(kernel, {
          gradients: range.gradients + 4 * capacity * size * from,
          fisher: range.fisher + 4 * size * size * from,
          blocks: to - from,
          count,
        }));
      }
      first += range.blocks;
    }
    return share;
  });
  return [{ name: "fisher", calls }];
}
