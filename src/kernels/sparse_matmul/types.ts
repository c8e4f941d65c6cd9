/**
 * The types of packed weights as operands.
 * @module
 */
import { rows, type ValueType } from "../../graph/graph.ts";
import { indexBytes, type PackedStructure, valueCount } from "./pack.ts";

/**
 * Types of the two halves of packed weights: values f32 [stored values], indices u8 [bytes]. Two operands, because in
 * training the values change with every step and the indices with the mask only.
 */
export function packedTypes(
  structure: PackedStructure,
): { readonly values: ValueType; readonly indices: ValueType } {
  return {
    values: rows(valueCount(structure)),
    indices: { dtype: "u8", layout: "rows", shape: [indexBytes(structure)] },
  };
}
