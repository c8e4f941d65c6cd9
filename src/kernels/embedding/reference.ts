/**
 * Embedding lookup and its gradient by their definitions. Matrices are row-major.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";

/** A table and what is wanted of it. */
export interface Lookup {
  /** Row-major [rows, features]. */
  readonly table: NumberArray;
  /** By column, the row wanted; −1 for none. */
  readonly ids: NumberArray;
}

/** result[f, c] = Σ over lookups of table[ids[c], f]; an id of −1 contributes zero. */
export function embeddingReference(
  lookups: readonly Lookup[],
  features: number,
  columns: number,
): NumberArray {
  const Result = lookups[0].table instanceof Float64Array ? Float64Array : Float32Array;
  const result = new Result(features * columns);
  for (let column = 0; column < columns; column++) {
    for (let feature = 0; feature < features; feature++) {
      let sum = 0;
      for (const { table, ids } of lookups) {
        if (ids[column] >= 0) sum += table[ids[column] * features + feature];
      }
      result[feature * columns + column] = sum;
    }
  }
  return result;
}

/** gradTable[r, f] = Σ over the columns c with ids[c] = r, in order, of gradX[f, c]. */
export function embeddingGradientReference(
  gradX: NumberArray,
  ids: NumberArray,
  rows: number,
  features: number,
): NumberArray {
  const Result = gradX instanceof Float64Array ? Float64Array : Float32Array;
  const gradTable = new Result(rows * features);
  for (let column = 0; column < ids.length; column++) {
    if (ids[column] < 0) continue;
    for (let feature = 0; feature < features; feature++) {
      gradTable[ids[column] * features + feature] += gradX[feature * ids.length + column];
    }
  }
  return gradTable;
}
