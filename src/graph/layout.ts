/**
 * Moving matrices between row-major order and the tiled order of the arena.
 * @module
 */

/** Element index of (feature, column) in a tiled matrix. */
export function tiledIndex(feature: number, column: number, features: number, tile: number): number {
  return (Math.floor(column / tile) * features + feature) * tile + (column % tile);
}

/** Writes a row-major [features, columns] matrix into tiled order. */
export function packTiled(
  source: ArrayLike<number>,
  target: Float32Array,
  features: number,
  columns: number,
  tile: number,
): void {
  for (let feature = 0; feature < features; feature++) {
    for (let column = 0; column < columns; column++) {
      target[tiledIndex(feature, column, features, tile)] = source[feature * columns + column];
    }
  }
}

/** Reads a tiled matrix into row-major [features, columns] order. */
export function unpackTiled(
  source: Float32Array,
  features: number,
  columns: number,
  tile: number,
): Float32Array {
  const target = new Float32Array(features * columns);
  for (let feature = 0; feature < features; feature++) {
    for (let column = 0; column < columns; column++) {
      target[feature * columns + column] = source[tiledIndex(feature, column, features, tile)];
    }
  }
  return target;
}
