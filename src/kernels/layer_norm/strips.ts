/**
 * Strips: the columns a kernel normalises at a time, a few vectors wide, all features long.
 *
 * A strip's rows are `tile` columns apart in memory. Wide strips use more of each cache line they touch and more
 * chains of additions at once; narrow strips give more workers something to do and need fewer registers.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { splitRange, type Target } from "../../graph/operation.ts";

/** How a matrix is cut into strips. */
export interface Strips {
  /** Vectors of columns in a strip: 1, 2 or 4, a divisor of those in a tile. */
  readonly vectors: number;
  /** Columns in a strip. */
  readonly width: number;
  /** Strips in the matrix. */
  readonly count: number;
}

/** The widest strips that fit the registers, leave no worker idle if possible, and divide a tile. */
export function chooseStrips(
  columns: number,
  { lanes, tile, workers, vectorRegisters }: Target,
  registers: { readonly perVector: number; readonly others: number },
): Strips {
  const fits = (vectors: number) =>
    tile % (vectors * lanes) === 0 &&
    vectors * registers.perVector + registers.others < vectorRegisters &&
    columns / (vectors * lanes) >= workers;
  const vectors = [4, 2].find(fits) ?? 1;
  const width = vectors * lanes;
  return { vectors, width, count: columns / width };
}

/** Arguments that tell a kernel which strips are its own. */
export const stripArguments = {
  features: "integer",
  strips: "integer",
  /** Bytes from a matrix's start to the first element of the first strip. */
  stripOffset: "integer",
  /** Bytes from a statistics row's start to the first strip's columns. */
  columnOffset: "integer",
  /** Strips left in the first strip's tile, itself included. */
  stripsInTile: "integer",
} as const;

/** The strips of each worker as argument values; undefined for a worker without any. */
export function splitStrips(
  { width, count }: Strips,
  features: number,
  { tile, workers }: Target,
): ({ readonly [N in keyof typeof stripArguments]: number } | undefined)[] {
  return splitRange(count, workers).map(({ begin, end }) => {
    if (begin === end) return undefined;
    const column = begin * width;
    const columnInTile = column % tile;
    return {
      features,
      strips: end - begin,
      stripOffset: 4 * ((column - columnInTile) * features + columnInTile),
      columnOffset: 4 * column,
      stripsInTile: (tile - columnInTile) / width,
    };
  });
}

/** Reads `stripArguments`; an argument reader limited to what this file needs. */
interface StripReader {
  integer(name: keyof typeof stripArguments): Integer;
}

/** Emits a loop over the worker's strips. The body gets the offsets in bytes of the strip; it must not change them. */
export function emitStripLoop(
  vm: VectorMachine,
  args: StripReader,
  tile: number,
  vectors: number,
  body: (strip: { readonly offset: Integer; readonly columnOffset: Integer }) => void,
): void {
  const widthBytes = 4 * vectors * vm.lanes;
  const strips = args.integer("strips");
  const offset = args.integer("stripOffset");
  const columnOffset = args.integer("columnOffset");
  const stripsInTile = args.integer("stripsInTile");
  vm.repeat(strips, () => {
    body({ offset, columnOffset });
    vm.addInteger(offset, offset, widthBytes);
    vm.addInteger(columnOffset, columnOffset, widthBytes);
    vm.subtractInteger(stripsInTile, stripsInTile, 1);
    vm.when(stripsInTile, "equal", 0, () => {
      // The next strip starts in the next tile: past the other features of this one.
      const otherRows = args.integer("features");
      vm.subtractInteger(otherRows, otherRows, 1);
      vm.multiplyInteger(otherRows, otherRows, 4 * tile);
      vm.addInteger(offset, offset, otherRows);
      vm.free(otherRows);
      vm.setInteger(stripsInTile, tile / (vectors * vm.lanes));
    });
  });
  vm.free(strips, offset, columnOffset, stripsInTile);
}

/** Emits a loop over the features of a strip: `matrices` move on by a row, `vectors` by an element. */
export function emitFeatureLoop(
  vm: VectorMachine,
  args: StripReader,
  tile: number,
  pointers: { readonly matrices: readonly Integer[]; readonly parameters?: readonly Integer[] },
  body: () => void,
): void {
  const features = args.integer("features");
  vm.repeat(features, () => {
    body();
    for (const matrix of pointers.matrices) vm.addInteger(matrix, matrix, 4 * tile);
    for (const parameter of pointers.parameters ?? []) vm.addInteger(parameter, parameter, 4);
  });
  vm.free(features);
}

/** d = 1 / features in every lane. */
export function emitInverseFeatures(vm: VectorMachine, args: StripReader): Vector {
  const features = args.integer("features");
  const inverse = vm.vector();
  const count = vm.vector();
  vm.broadcastInteger(count, features);
  vm.i32ToF32(count, count);
  vm.constantF32(inverse, 1);
  vm.divide(inverse, inverse, count);
  vm.free(features, count);
  return inverse;
}

/** A list of new vector registers. */
export function takeVectors(vm: VectorMachine, count: number): Vector[] {
  return Array.from({ length: count }, () => vm.vector());
}
