/**
 * Values in another order, on the GPU.
 * @module
 */
import { elementCount } from "../../graph/graph.ts";
import { defineLowering, wholeRange } from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { gatherValues } from "./operation.ts";

const shader = writeShader({
  key: "gather_values",
  reads: { values: "array<f32>", permutation: "array<i32>" },
  writes: { result: "array<f32>" },
  sizes: { count: "u32" },
  main: `
  let i = group * ${workgroupSize}u + lane;
  if (i < sizes.count) { result[i] = values[permutation[i]]; }`,
});

/** result[i] = values[permutation[i]]. */
export const gatherValuesShaders = defineLowering({
  operation: gatherValues,
  lower({ inputs: [values, permutation], outputs: [result], target }) {
    const count = elementCount(result.type);
    // A binding cannot be empty.
    if (count === 0) return [];
    const ranges = [values!, permutation!, result].map((operand) => wholeRange(operand, shader.key));
    return [callShader(shader, ranges, [count], Math.ceil(count / workgroupSize), target)];
  },
});
