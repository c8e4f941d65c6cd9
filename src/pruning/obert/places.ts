/**
 * How the weights of a matrix are dealt out to the blocks of its Fisher matrix.
 *
 * Weights that a pattern prunes together must lie in one Fisher block: their score needs the whole of their common
 * inverse. So the weights are put in the order of the pattern's blocks (here: units), row-major inside each, and as many
 * whole units as fit make a Fisher block. For single weights that is the row-major order of the matrix.
 *
 * Places that no weight falls on (of a unit beyond the matrix's edge, at the end of a Fisher block, after the last unit)
 * hold 0: with no gradient they are coupled to nothing.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { BlockShape, MatrixShape } from "../pattern.ts";

/** The places of a matrix's weights. Place p is in Fisher block ⌊p / size⌋. */
export interface FisherPlaces extends MatrixShape {
  /** What is pruned together. */
  readonly unit: BlockShape;
  /** Weights of a whole unit. */
  readonly unitSize: number;
  /** Units of the matrix, numbered as the pattern's blocks are. */
  readonly units: number;
  /** Units in a Fisher block; they begin at its places 0, unitSize, 2 · unitSize, … */
  readonly unitsPerBlock: number;
  /** Places in a Fisher block: a multiple of `placeStep`. */
  readonly size: number;
  /** Fisher blocks. */
  readonly blocks: number;
}

/** Places of a Fisher block are whole vectors of any machine. */
const placeStep = 16;

/** Deals out blocks of up to `blockSize` weights. Throws `InputError` when a unit has more than that. */
export function fisherPlaces(
  { rows, columns }: MatrixShape,
  unit: BlockShape,
  blockSize: number,
): FisherPlaces {
  const unitSize = unit.rows * unit.columns;
  if (unitSize > blockSize) {
    throw new InputError(
      `Cannot prune ${unit.rows} × ${unit.columns} weights together by their Fisher matrix: its blocks have ${blockSize} ` +
        `weights, wanted ${unitSize} or more`,
    );
  }
  const units = Math.ceil(rows / unit.rows) * Math.ceil(columns / unit.columns);
  const unitsPerBlock = Math.floor(blockSize / unitSize);
  const size = placeStep * Math.ceil(blockSize / placeStep);
  return {
    rows,
    columns,
    unit,
    unitSize,
    units,
    unitsPerBlock,
    size,
    blocks: Math.ceil(units / unitsPerBlock),
  };
}

/**
 * Copies values of the weights [rows, columns] to their places. Block b begins at `target[offset + b · stride]`;
 * the places without a weight are left as they are.
 */
export function gatherPlaces(
  source: Float32Array,
  places: FisherPlaces,
  target: Float32Array,
  offset = 0,
  stride: number = places.size,
): void {
  const { size } = places;
  if (places.unitsPerBlock === size && stride === size) return target.set(source, offset);
  walkRuns(places, (weight, place, step, count) => {
    let at = offset + Math.floor(place / size) * stride + place % size;
    for (let i = 0; i < count; i++, at += step) target[at] = source[weight + i];
  });
}

/** Copies values from their places back to the weights: undoes `gatherPlaces` with its defaults. */
export function scatterPlaces(source: Float32Array, places: FisherPlaces, target: Float32Array): void {
  walkRuns(places, (weight, place, step, count) => {
    for (let i = 0; i < count; i++) target[weight + i] = source[place + i * step];
  });
}

/** Calls `visit` for runs of weights of a row whose places lie `step` apart in one Fisher block. */
function walkRuns(
  { rows, columns, unit, unitSize, unitsPerBlock, size }: FisherPlaces,
  visit: (weight: number, place: number, step: number, count: number) => void,
): void {
  const gridColumns = Math.ceil(columns / unit.columns);
  const placeOf = (unitIndex: number) =>
    Math.floor(unitIndex / unitsPerBlock) * size + (unitIndex % unitsPerBlock) * unitSize;
  for (let row = 0; row < rows; row++) {
    const firstUnit = Math.floor(row / unit.rows) * gridColumns;
    const inUnit = (row % unit.rows) * unit.columns;
    if (unit.columns === 1) {
      // Units side by side in a Fisher block have one weight of the row each.
      for (let column = 0; column < columns;) {
        const index = firstUnit + column;
        const count = Math.min(columns - column, unitsPerBlock - index % unitsPerBlock);
        visit(row * columns + column, placeOf(index) + inUnit, unitSize, count);
        column += count;
      }
    } else {
      for (let column = 0; column < columns; column += unit.columns) {
        const place = placeOf(firstUnit + column / unit.columns) + inUnit;
        visit(row * columns + column, place, 1, Math.min(unit.columns, columns - column));
      }
    }
  }
}
