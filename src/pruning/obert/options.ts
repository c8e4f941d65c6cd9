/**
 * What oBERT can be told.
 * @module
 */
import { InputError } from "../../core/errors.ts";

/** Settings of a refresh by oBERT. */
export interface ObertOptions {
  /** Gradients that a Fisher matrix is estimated from. */
  readonly gradients: number;
  /** Added to its diagonal; the knob that matters most (10⁻⁸ to 10⁻⁴). */
  readonly dampening: number;
  /** Weights of a block of it. Memory grows with it: 4 bytes a weight and weight of a block. */
  readonly blockSize: number;
  /** Estimates in a refresh, each for an equal part of the way. */
  readonly recomputations: number;
  /** Whether pruned weights of a Fisher block are made up for together (see `saliency.ts`); default as the paper: one by one. */
  readonly jointly?: boolean;
}

/**
 * The paper has 1024 gradients of 16 examples and blocks of 50 (of 32 for blocks of four weights); 48 are whole vectors on
 * every machine, and divisible by 4.
 */
export const obertDefaults = {
  gradients: 256,
  dampening: 1e-7,
  blockSize: 48,
  recomputations: 1,
} as const satisfies ObertOptions;

/** Examples of a gradient. */
export const obertBatchSize = 16;

const largestBlock = 128;

/** Throws `InputError` for numbers that cannot be. */
export function checkObert({ gradients, dampening, blockSize, recomputations }: ObertOptions): void {
  const check = (isRight: boolean, name: string, found: number, wanted: string) => {
    if (!isRight) throw new InputError(`Cannot prune by oBERT: ${name} is ${found}, wanted ${wanted}`);
  };
  const isCount = (value: number) => Number.isSafeInteger(value) && value >= 1;
  check(isCount(gradients), "gradients", gradients, "a whole number of at least 1");
  check(dampening > 0 && dampening < Infinity, "dampening", dampening, "a number above 0");
  const isBlock = isCount(blockSize) && blockSize <= largestBlock;
  check(isBlock, "blockSize", blockSize, `a whole number from 1 to ${largestBlock}`);
  check(isCount(recomputations), "recomputations", recomputations, "a whole number of at least 1");
}
