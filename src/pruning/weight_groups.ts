/**
 * N:M: which weights a group lets go.
 * @module
 */
import { countBits } from "../core/bits.ts";
import { bitsetWords, hasBit, setBit } from "./bitset.ts";
import type { MatrixShape, WeightGroup } from "./pattern.ts";
import type { ScoreList } from "./select.ts";

/**
 * The weights that N:M never prunes, as a bitset: of each M consecutive inputs of an output the N of largest score. Of equal
 * scores the later ones are kept, as in `selectMasks`, so that what may be pruned is what a selection within the group prunes.
 * What is pruned in `previous` is never among them, and counts to the M − N. The last group of a row may be shorter; N of it
 * are kept. NaN is found by the selection.
 */
export function sparedWeights(
  { values, absolute, previous }: ScoreList,
  { rows, columns }: MatrixShape,
  { kept, size }: WeightGroup,
): Uint32Array<ArrayBuffer> {
  const spared = new Uint32Array(bitsetWords(rows * columns));
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column += size) {
      const length = Math.min(size, columns - column);
      const first = row * columns + column;
      /** Bit i: weight first + i is not pruned so far. */
      let left = 0;
      for (let i = 0; i < length; i++) {
        if (!previous || hasBit(previous, first + i)) left |= 1 << i;
      }
      for (let count = countBits(left); count > kept; count--) {
        let smallest = -1;
        let least = 0;
        for (let i = 0; i < length; i++) {
          if (!(left >>> i & 1)) continue;
          const score = absolute ? Math.abs(values[first + i]) : values[first + i];
          if (smallest >= 0 && score >= least) continue;
          smallest = i;
          least = score;
        }
        left &= ~(1 << smallest);
      }
      for (let i = 0; i < length; i++) {
        if (left >>> i & 1) setBit(spared, first + i);
      }
    }
  }
  return spared;
}
