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
