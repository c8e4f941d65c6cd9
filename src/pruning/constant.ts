/**
 * Sparse transfer: the zeros that a model comes with stay, and no others are made.
 * @module
 */

/** Prunes in a mask what is exactly zero, of either sign. Gives how many weights the mask keeps no longer. */
export function pruneZeros(values: Float32Array, mask: Uint32Array): number {
  let pruned = 0;
  for (let index = 0; index < values.length; index++) {
    if (values[index] !== 0) continue;
    const bit = 1 << (index & 31);
    if (mask[index >>> 5] & bit) pruned++;
    mask[index >>> 5] &= ~bit;
  }
  return pruned;
}
