/**
 * Shaders that make each result element from the operand elements at the same place.
 * @module
 */
import { elementCount } from "../../graph/graph.ts";
import {
  defineLowering,
  linearGrid,
  type Shader,
  type ShaderCall,
  type ShaderPlacement,
  uniformWords,
  wholeRange,
} from "../shader.ts";
import { add } from "./operation.ts";

const workgroupSize = 256;

/** What differs between elementwise shaders. */
export interface ElementwiseShader {
  readonly key: string;
  /** Operands the result is made from. */
  readonly operands: 1 | 2;
  /** WGSL functions that `expression` calls. */
  readonly functions?: string;
  /** A WGSL expression of f32 `a` (and `b`). */
  readonly expression: string;
}

/** result[i] = f(a[i], b[i]) for i < count; an invocation makes one element. */
export function elementwiseShader(
  { key, operands, functions = "", expression }: ElementwiseShader,
): Shader {
  const isBinary = operands === 2;
  return {
    key,
    bindings: ["read", ...(isBinary ? ["read" as const] : []), "write", "uniform"],
    code: `
struct Sizes { count: u32, groupsX: u32 }
@group(0) @binding(0) var<storage, read> operandA: array<f32>;
${isBinary ? "@group(0) @binding(1) var<storage, read> operandB: array<f32>;" : ""}
@group(0) @binding(${operands}) var<storage, read_write> result: array<f32>;
@group(0) @binding(${operands + 1}) var<uniform> sizes: Sizes;
${functions}
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * sizes.groupsX + group.x) * ${workgroupSize}u + lane;
  if (i >= sizes.count) { return; }
  let a = operandA[i];
  ${isBinary ? "let b = operandB[i];" : ""}
  result[i] = ${expression};
}`,
  };
}

/** The one call of an elementwise shader. */
export function elementwiseCalls(
  shader: Shader,
  { inputs, outputs: [output], target }: ShaderPlacement<unknown>,
): ShaderCall[] {
  const count = elementCount(output.type);
  const workgroups = linearGrid(Math.ceil(count / workgroupSize), target);
  const operands = shader.bindings.length - 2;
  return [{
    shader,
    ranges: [...inputs.slice(0, operands), output].map((operand) => wholeRange(operand!, shader.key)),
    uniforms: uniformWords(count, workgroups[0]),
    workgroups,
  }];
}

const shader = elementwiseShader({ key: "add_f32", operands: 2, expression: "a + b" });

/** a + b. */
export const addShaders = defineLowering({
  operation: add,
  lower: (placement) => elementwiseCalls(shader, placement),
});
