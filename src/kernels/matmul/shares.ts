/**
 * Dividing a matrix of results among workers.
 * @module
 */
import { splitRange } from "../../graph/operation.ts";

/** Half-open range. */
export interface Range {
  readonly begin: number;
  readonly end: number;
}

/** One worker's part of a matrix. */
export interface Share {
  readonly rows: Range;
  readonly columns: Range;
}

/**
 * A share per worker, in a grid of row ranges × column ranges whose borders are multiples of the grains.
 *
 * Of the grids with as many cells as workers, the one with the smallest largest cell; among equals the one with
 * the most row ranges, because a worker then reads fewer weights, and weights outweigh activations.
 */
export function splitGrid(
  { rows, rowGrain, columns, columnGrain, workers }: {
    readonly rows: number;
    readonly rowGrain: number;
    readonly columns: number;
    readonly columnGrain: number;
    readonly workers: number;
  },
): Share[] {
  let rowParts = workers;
  let smallest = Infinity;
  for (let parts = workers; parts >= 1; parts--) {
    if (workers % parts !== 0) continue;
    const cell = Math.ceil(Math.ceil(rows / rowGrain) / parts) *
      Math.ceil(Math.ceil(columns / columnGrain) / (workers / parts));
    if (cell < smallest) [smallest, rowParts] = [cell, parts];
  }
  const columnRanges = splitRange(columns, workers / rowParts, columnGrain);
  return splitRange(rows, rowParts, rowGrain).flatMap((rowRange) =>
    columnRanges.map((columnRange) => ({ rows: rowRange, columns: columnRange }))
  );
}
