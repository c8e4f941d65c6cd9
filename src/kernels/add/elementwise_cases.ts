/**
 * The shapes and values every elementwise operation is tried on.
 * @module
 */
import { elementCount, rows, tiled, type ValueType } from "../../graph/graph.ts";
import { type ConformanceCase, normals, padColumns, type Tolerance } from "../conformance.ts";

const special = [NaN, Infinity, -Infinity, 0, -0, 1e-40, -20, 20, 5.5, -5.5];

/** Cases for an operation of so many operands without attributes. Special values meet ordinary ones. */
export function elementwiseCases(
  operands: number,
  tolerance: Tolerance,
): ConformanceCase<Record<string, never>>[] {
  const shapes: [string, (tile: number) => ValueType][] = [
    ["one element", () => rows(1)],
    ["rows shorter than a vector", () => rows(3)],
    ["rows of odd length", () => rows(7, 41)],
    ["one tile", (tile) => tiled(5, tile)],
    ["padded tiles", (tile) => tiled(13, padColumns(2 * tile + 3, tile))],
  ];
  const build = (type: ValueType, fill: (operand: number) => Float32Array) => ({
    attributes: {},
    inputTypes: Array.from({ length: operands }, () => type),
    inputs: Array.from({ length: operands }, (_, operand) => fill(operand)),
  });
  return [
    ...shapes.map(([name, typeOf], index): ConformanceCase<Record<string, never>> => ({
      name,
      seed: index,
      tolerance,
      build: ({ tile, random }) => build(typeOf(tile), () => normals(random, typeOf(tile), 3)),
    })),
    {
      name: "NaN and infinities beside ordinary numbers",
      seed: 99,
      tolerance,
      build({ tile, random }) {
        const type = tiled(7, 2 * tile);
        // Each special value meets ordinary ones and other special ones; its neighbours are ordinary.
        return build(
          type,
          (operand) =>
            normals(random, type).map((value, i) =>
              i % 3 === operand ? special[Math.floor(i / 3) % special.length] : value
            ),
        );
      },
    },
  ];
}

/** Operands in float64 for a gradient check: three by five, away from anything special. */
export function gradientOperands(operands: number): {
  attributes: Record<string, never>;
  inputTypes: ValueType[];
  inputs: Float64Array[];
} {
  const type = tiled(3, 5);
  const inputs = Array.from(
    { length: operands },
    (_, operand) =>
      Float64Array.from({ length: elementCount(type) }, (_, i) => 3 * Math.sin(1 + i + 7 * operand)),
  );
  return { attributes: {}, inputTypes: inputs.map(() => type), inputs };
}
