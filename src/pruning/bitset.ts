/**
 * Bitsets in Uint32Arrays: bit `i & 31` of word `i >> 5` stands for element i. A mask is one, with 1 for "kept".
 *
 * Bits past the last element are always 0, so equal masks have equal words and `popcount` needs no length.
 * @module
 */
import { countBits } from "../core/bits.ts";

/** Words that hold `count` bits. */
export function bitsetWords(count: number): number {
  return Math.ceil(count / 32);
}

/** Whether bit `index` is set. */
export function hasBit(bits: Uint32Array, index: number): boolean {
  return ((bits[index >>> 5] >>> (index & 31)) & 1) === 1;
}

/** Sets bit `index`. */
export function setBit(bits: Uint32Array, index: number): void {
  bits[index >>> 5] |= 1 << (index & 31);
}

/** Number of ones. */
export function popcount(bits: Uint32Array): number {
  let count = 0;
  for (let index = 0; index < bits.length; index++) count += countBits(bits[index]);
  return count;
}

/**
 * Calls `ones` for every run of ones below `length`, and `zeros` for every run of zeros, in order: elements `begin` to
 * `end`, which is exclusive. Without bits all are ones.
 *
 * Loops over elements that are kept are four to eight times faster over runs than with a question for each element: 2 to
 * 4 ms against 18 for a million in `measure` of `src/finetune/meta/statistics.ts`, with all kept (AMD EPYC).
 */
export function forEachRun(
  bits: Uint32Array | undefined,
  length: number,
  ones: (begin: number, end: number) => void,
  zeros?: (begin: number, end: number) => void,
): void {
  if (!bits) {
    if (length > 0) ones(0, length);
    return;
  }
  for (let begin = 0, end = 0; begin < length; begin = end) {
    const isOne = hasBit(bits, begin);
    const word = isOne ? 0xffffffff : 0;
    end = begin + 1;
    while (end < length) {
      if ((end & 31) === 0 && end + 32 <= length && bits[end >>> 5] === word) end += 32;
      else if (hasBit(bits, end) === isOne) end++;
      else break;
    }
    if (isOne) ones(begin, end);
    else zeros?.(begin, end);
  }
}
