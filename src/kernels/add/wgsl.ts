/**
 * Shaders that make each result element from the operand elements at the same place.
 * @module
 */
import { elementCount } from "../../graph/graph.ts";
import { defineLowering, type Shader, type ShaderCall, type ShaderPlacement, wholeRange } from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { add } from "./operation.ts";

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
  { key, operands, functions, expression }: ElementwiseShader,
): Shader {
  const isBinary = operands === 2;
  return writeShader({
    key,
    reads: { operandA: "array<f32>", operandB: isBinary && "array<f32>" },
    writes: { result: "array<f32>" },
    sizes: { count: "u32" },
    declarations: functions,
    main: `
  let i = group * ${workgroupSize}u + lane;
  if (i >= sizes.count) { return; }
  let a = operandA[i];
  ${isBinary ? "let b = operandB[i];" : ""}
  result[i] = ${expression};`,
  });
}

/** The one call of an elementwise shader. */
export function elementwiseCalls(
  shader: Shader,
  { inputs, outputs, target }: ShaderPlacement<unknown>,
): ShaderCall[] {
  const count = elementCount(outputs[0].type);
  const ranges = [...inputs, ...outputs].map((operand) => wholeRange(operand!, shader.key));
  return [callShader(shader, ranges, [count], Math.ceil(count / workgroupSize), target)];
}

const shader = elementwiseShader({ key: "add_f32", operands: 2, expression: "a + b" });

/** a + b. */
export const addShaders = defineLowering({
  operation: add,
  lower: (placement) => elementwiseCalls(shader, placement),
});
