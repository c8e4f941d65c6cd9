/**
 * Selecting columns, and its gradient, on the GPU.
 * @module
 */
import { scatterCalls, scatterScratchBytes } from "../embedding/wgsl_scatter.ts";
import { defineLowering, type Shader, wholeRange } from "../shader.ts";
import { callShader, type FeatureVector, featureVector, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { selectColumns, selectColumnsGradient } from "./operation.ts";

function selectShader(type: FeatureVector["type"]): Shader {
  return writeShader({
    key: `select_columns_${type}`,
    reads: { x: `array<${type}>`, columns: "array<i32>" },
    writes: { y: `array<${type}>` },
    sizes: { vectors: "u32", selected: "u32" },
    main: `
  let i = group * ${workgroupSize}u + lane;
  let s = i / sizes.vectors;
  if (s >= sizes.selected) { return; }
  let column = columns[s];
  if (column >= 0) { y[i] = x[u32(column) * sizes.vectors + i % sizes.vectors]; } else { y[i] = ${type}(); }`,
  });
}

/** y[s] = x[columns[s]], 0 where columns[s] is −1. */
export const selectColumnsShaders = defineLowering({
  operation: selectColumns,
  lower({ inputs: [x, columns], outputs: [y], target }) {
    const [features, selected] = y.type.shape;
    const { type, count: vectors } = featureVector(features);
    const ranges = [x!, columns!, y].map((operand) => wholeRange(operand, "selectColumns"));
    const groups = Math.ceil(selected * vectors / workgroupSize);
    return [callShader(selectShader(type), ranges, [vectors, selected], groups, target)];
  },
});

/** gradX[c] = Σ over the s with columns[s] = c of gradY[s]: on the device a matrix is a table with a row for each column. */
export const selectColumnsGradientShaders = defineLowering({
  operation: selectColumnsGradient,
  scratchBytes({ attributes, inputTypes: [gradY] }) {
    const [features, selected] = gradY!.shape;
    return scatterScratchBytes(features, selected, attributes.columns);
  },
  lower({ inputs, outputs, scratch, target }) {
    const [features, selected] = inputs[0]!.type.shape;
    const [source, rows, range] = [...inputs, ...outputs].map((operand) =>
      wholeRange(operand!, "selectColumnsGradient")
    );
    const results = [{ range, firstRow: 0, rows: outputs[0].type.shape[1] }];
    return scatterCalls({ source, rows, results, scratch, features, columns: selected, target });
  },
});
