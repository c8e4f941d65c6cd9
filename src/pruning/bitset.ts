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

/** A bitset of `count` ones: the mask that keeps everything. */
export function fullBitset(count: number): Uint32Array<ArrayBuffer> {
  const bits = new Uint32Array(bitsetWords(count)).fill(0xffffffff);
  if (count % 32) bits[bits.length - 1] = 2 ** (count % 32) - 1;
  return bits;
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
 * The mask of a [rows, columns] matrix as bytes [rows, ⌈columns / 8⌉], lowest bit first, each row padded with zeros:
 * `numpy.packbits(mask, axis=-1, bitorder="little")`, which is the bitmask of the `sparse-bitmask` file layout.
 */
export function packBytes(bits: Uint32Array, rows: number, columns: number): Uint8Array<ArrayBuffer> {
  const rowBytes = Math.ceil(columns / 8);
  const bytes = new Uint8Array(rows * rowBytes);
  for (let row = 0, index = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, index++) {
      bytes[row * rowBytes + (column >>> 3)] |= ((bits[index >>> 5] >>> (index & 31)) & 1) << (column & 7);
    }
  }
  return bytes;
}

/** The inverse of `packBytes`; what stands in the padding bits does not matter. */
export function unpackBytes(bytes: Uint8Array, rows: number, columns: number): Uint32Array<ArrayBuffer> {
  const rowBytes = Math.ceil(columns / 8);
  if (bytes.length !== rows * rowBytes) {
    throw new RangeError(
      `Cannot unpack a [${rows}, ${columns}] bitmask: it has ${bytes.length} bytes, wanted ${
        rows * rowBytes
      }`,
    );
  }
  const bits = new Uint32Array(bitsetWords(rows * columns));
  for (let row = 0, index = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, index++) {
      bits[index >>> 5] |= ((bytes[row * rowBytes + (column >>> 3)] >>> (column & 7)) & 1) << (index & 31);
    }
  }
  return bits;
}
