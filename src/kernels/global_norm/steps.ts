/**
 * The norm of all gradients as steps of a plan. Not a graph operation: it reads the arena where the gradients lie.
 * @module
 */
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { chunkElements, clipFactorKernel, sumOfSquaresKernel, sumOfSquaresMaskedKernel } from "./kernel.ts";

/** A range of f32 elements in the arena. */
export interface FlatRange {
  /** Bytes from the arena's start. */
  readonly address: number;
  /** Elements. */
  readonly count: number;
  /**
   * Bitset of 32-bit words: only element i whose bit i mod 32 of word ⌊i / 32⌋ is set counts. The range is then a
   * multiple of 32 long. Absent: all count.
   */
  readonly mask?: number;
}

/** Where the gradients are and where the results go. Addresses are bytes from the arena's start. */
export interface GlobalNormRequest {
  /** All gradients, in the order they are summed. */
  readonly gradients: readonly FlatRange[];
  /** Room for `globalNormPartials(gradients)` f32 elements, written by the first step. */
  readonly partials: number;
  /** Room for two f32 elements: the norm and the clip factor. */
  readonly result: number;
  /** Norm above which gradients are scaled down; 0 or less for never. */
  readonly maximumNorm: number;
  /** Workers that share the first step. */
  readonly workers: number;
}

/** Elements of `GlobalNormRequest.partials`. */
export function globalNormPartials(gradients: readonly FlatRange[]): number {
  return gradients.reduce((sum, { count }) => sum + chunksOf(count), 0);
}

/**
 * Two steps that leave [norm, clip] at `result`: see `globalNormReference` for what they are.
 *
 * Every range is cut into chunks of 16384 elements. A chunk's partial sum belongs to one worker and the partials are
 * added in order by the first worker, so the result does not depend on the number of workers.
 */
export function globalNormSteps(request: GlobalNormRequest): Step[] {
  const { gradients, partials, result, maximumNorm, workers } = request;
  const partialCount = globalNormPartials(gradients);
  const sums = splitRange(partialCount, workers).map(({ begin, end }) => {
    const calls: KernelCall[] = [];
    let firstChunk = 0;
    for (const { address, count, mask } of gradients) {
      const from = Math.max(begin, firstChunk) - firstChunk;
      const to = Math.min(end - firstChunk, chunksOf(count));
      if (from < to) {
        const share = {
          gradients: address + 4 * chunkElements * from,
          partials: partials + 4 * (firstChunk + from),
          count: Math.min(count, chunkElements * to) - chunkElements * from,
        };
        calls.push(
          mask === undefined
            ? callKernel(sumOfSquaresKernel, share)
            : callKernel(sumOfSquaresMaskedKernel, { ...share, mask: mask + chunkElements / 8 * from }),
        );
      }
      firstChunk += chunksOf(count);
    }
    return calls;
  });
  const clip = callKernel(clipFactorKernel, { partials, count: partialCount, maximumNorm, result });
  return [
    { name: "globalNorm.partials", calls: sums },
    { name: "globalNorm.result", calls: sums.map((_, worker) => worker === 0 ? [clip] : []) },
  ];
}

function chunksOf(count: number): number {
  return Math.ceil(count / chunkElements);
}
