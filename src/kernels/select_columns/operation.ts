/**
 * Selecting columns, for instance the first token of every sequence, and its gradient.
 * @module
 */
import { tiled, type ValueType } from "../../graph/graph.ts";
import {
  type Operand,
  type Operation,
  shapeError,
  splitRange,
  type Step,
  type Target,
} from "../../graph/operation.ts";
import { callKernel } from "../kernel.ts";
import { type ColumnKernel, selectColumnsGradientKernel, selectColumnsKernel } from "./kernel.ts";
import { selectColumnsGradientReference, selectColumnsReference } from "./reference.ts";

/** y[·, s] = x[·, columns[s]], 0 where columns[s] is −1. Operands: x tiled [features, any], columns i32 [selected]. */
export const selectColumns: Operation<Record<never, never>> = {
  name: "selectColumns",

  infer(inputs) {
    const [x, columns] = inputs;
    if (!isMatrix(x) || !isList(columns)) {
      throw shapeError("selectColumns", "f32 tiled [features, columns], i32 rows [selected]", inputs);
    }
    return [tiled(x.shape[0], columns.shape[0])];
  },

  reference([x, columns], { inputTypes }) {
    const [features, xColumns] = inputTypes[0]!.shape;
    return [selectColumnsReference(x!, columns!, features, xColumns)];
  },

  gradient({ graph, node, outputGradients: [gradY] }) {
    const [x, columns] = node.inputs;
    if (!gradY) return [undefined, undefined];
    const attributes = { columns: x!.type.shape[1] };
    return [graph.apply(selectColumnsGradient, attributes, [gradY, columns])[0], undefined];
  },

  lower: ({ inputs: [x, columns], outputs: [y], target }) => [
    shareRows("selectColumns", selectColumnsKernel(target.tile), x!, y, columns!, target),
  ],
};

/** How wide the matrix was that the columns were selected from. */
export interface SelectColumnsGradientAttributes {
  /** Columns of that matrix, padding included. */
  readonly columns: number;
}

/** gradX[·, c] = Σ gradY[·, s] over the s with columns[s] = c, 0 in columns that were not selected. */
export const selectColumnsGradient: Operation<SelectColumnsGradientAttributes> = {
  name: "selectColumnsGradient",

  infer(inputs, attributes) {
    const [gradY, columns] = inputs;
    if (!isMatrix(gradY) || !isList(columns) || columns.shape[0] !== gradY.shape[1]) {
      throw shapeError(
        "selectColumnsGradient",
        "f32 tiled [features, selected], i32 rows [selected]",
        inputs,
      );
    }
    return [tiled(gradY.shape[0], attributes.columns)];
  },

  reference([gradY, columns], { outputTypes }) {
    const [features, xColumns] = outputTypes[0].shape;
    return [selectColumnsGradientReference(gradY!, columns!, features, xColumns)];
  },

  lower: ({ inputs: [gradY, columns], outputs: [gradX], target }) => [
    shareRows(
      "selectColumnsGradient",
      selectColumnsGradientKernel(target.tile),
      gradX,
      gradY!,
      columns!,
      target,
    ),
  ],
};

/** One step in which every worker does a share of the features. */
function shareRows(
  name: string,
  kernel: ColumnKernel,
  whole: Operand,
  selection: Operand,
  columns: Operand,
  { tile, workers }: Target,
): Step {
  const features = selection.type.shape[0];
  const calls = splitRange(features, workers).map(({ begin, end }) =>
    begin === end ? [] : [callKernel(kernel, {
      whole: whole.address + begin * tile * 4,
      selection: selection.address + begin * tile * 4,
      columns: columns.address,
      selected: columns.type.shape[0],
      wholeColumns: whole.type.shape[1],
      rows: end - begin,
      tileBytes: features * tile * 4,
    })]
  );
  return { name, calls };
}

function isMatrix(type: ValueType | undefined): type is ValueType {
  return type?.dtype === "f32" && type.layout === "tiled" && type.shape.length === 2;
}

function isList(type: ValueType | undefined): type is ValueType {
  return type?.dtype === "i32" && type.shape.length === 1;
}
