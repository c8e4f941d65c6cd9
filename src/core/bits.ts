/**
 * Bits of 32-bit words, and bitmasks of matrices read by words.
 * @module
 */

/** Set bits of a word (Warren, "Hacker's Delight", 5-1). */
export function countBits(word: number): number {
  // Sums of neighbours in fields of 2, 4, then 8 bits; the multiplication adds the four bytes.
  const pairs = word - (word >>> 1 & 0x55555555);
  const nibbles = (pairs & 0x33333333) + (pairs >>> 2 & 0x33333333);
  return Math.imul(nibbles + (nibbles >>> 4) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The bits of a matrix, `stride` words a row. */
export interface RowWords {
  /** Bit `column & 31` of word `row * stride + (column >> 5)`. */
  readonly words: Int32Array;
  /** Words of a row. */
  readonly stride: number;
}

/**
 * The words of a bitmask of bytes [rows, ⌈columns / 8⌉], lowest bit first: the same memory where rows are whole words,
 * a copy with rows padded by zeros elsewhere.
 */
export function rowWords(bitmask: Uint8Array, rows: number, columns: number): RowWords {
  const rowBytes = Math.ceil(columns / 8);
  if (bitmask.length !== rows * rowBytes) {
    throw new RangeError(
      `Cannot read a bitmask of ${bitmask.length} bytes: ${rows} × ${columns} wants ${rows * rowBytes}`,
    );
  }
  const stride = Math.ceil(columns / 32);
  if (rowBytes === 4 * stride && bitmask.byteOffset % 4 === 0) {
    return { words: new Int32Array(bitmask.buffer, bitmask.byteOffset, rows * stride), stride };
  }
  const padded = new Uint8Array(rows * stride * 4);
  for (let row = 0; row < rows; row++) {
    padded.set(bitmask.subarray(row * rowBytes, (row + 1) * rowBytes), row * stride * 4);
  }
  return { words: new Int32Array(padded.buffer), stride };
}
