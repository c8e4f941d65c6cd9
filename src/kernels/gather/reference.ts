/**
 * Gathering as a plain loop.
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";
import { resultArray } from "../matmul/reference.ts";

/** result[i] = values[permutation[i]] */
export function gatherValuesReference(
  values: NumberArray,
  permutation: Int32Array,
): Float32Array | Float64Array {
  const result = resultArray(values, permutation.length);
  permutation.forEach((from, to) => result[to] = values[from]);
  return result;
}
