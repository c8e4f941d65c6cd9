/**
 * Making and naming the operands of one application of an operation: for tests.
 * @module
 */
import type { RandomStream } from "../core/random.ts";
import { elementCount, type ValueType } from "../graph/graph.ts";
import type { NumberArray } from "../graph/operation.ts";

/** Operands of one application, as the reference takes them: tiled values plain, row-major [features, columns]. */
export interface OperationInputs<A> {
  /** Constants of the application. */
  readonly attributes: A;
  /** One per operand; undefined for an operand that is left out. */
  readonly inputTypes: readonly (ValueType | undefined)[];
  /** One per operand, as long as its type has elements. */
  readonly inputs: readonly (NumberArray | undefined)[];
}

/** The least multiple of `tile` that holds `columns`. */
export function padColumns(columns: number, tile: number): number {
  return Math.ceil(columns / tile) * tile;
}

/** Standard normal f32 numbers, as many as the type has elements. */
export function normals(random: RandomStream, type: ValueType, deviation = 1): Float32Array {
  return Float32Array.from({ length: elementCount(type) }, () => deviation * random.normal());
}

/** An index list of `length`: the given values, then `padding` (−1 unless told). */
export function paddedIndices(values: readonly number[], length: number, padding = -1): Int32Array {
  const list = new Int32Array(length).fill(padding);
  list.set(values);
  return list;
}

/** `element 7 at [1, 3]` */
export function elementName(index: number, type: ValueType): string {
  let rest = index;
  const position = type.shape.toReversed().map((size) => {
    const coordinate = rest % size;
    rest = Math.floor(rest / size);
    return coordinate;
  });
  return `element ${index} at [${position.reverse().join(", ")}]`;
}
