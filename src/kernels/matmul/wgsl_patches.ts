/**
 * Reading the operands of a product, and writing its result, in pieces of four: the parts that all its shaders share, as text.
 * @module
 */
import type { BindingUse, Shader } from "../shader.ts";
import { erfFunction } from "../wgsl_math.ts";
import { type ProductPrecision, type ProductTraits, traitsKey } from "./wgsl_product.ts";

/** Where a shader puts its sums: in the result, or, as one of several shares of the depth, beside those of the others. */
export type ProductDestination = "result" | "partials";

/** The uniform words: `rows, columns, depth` of the product and the depth of one workgroup's share. */
const sizesStruct = "struct Sizes { rows: u32, columns: u32, depth: u32, shareDepth: u32 }";

/** `vec4f` or `vec4h`, what operands are multiplied as. */
export function operandVector(precision: ProductPrecision): string {
  return precision === "fp16" ? "vec4h" : "vec4f";
}

/** `mat4x4f` or `mat4x4h`, a patch of an operand. */
export function operandMatrix(precision: ProductPrecision): string {
  return precision === "fp16" ? "mat4x4h" : "mat4x4f";
}

/** The bindings of a product's shader: A, B, bias?, addend?, result, sizes. */
function productBindings({ bias, addend }: ProductTraits): BindingUse[] {
  const operands = 2 + Number(bias) + Number(addend);
  return [...new Array<BindingUse>(operands).fill("read"), "write", "uniform"];
}

/** A shader of a product: `name` is the configuration's, and the code begins with `productDeclarations`. */
export function productShader(
  name: string,
  traits: ProductTraits,
  destination: ProductDestination,
  code: string,
): Shader {
  const suffix = destination === "partials" ? "_partials" : "";
  return { key: `matmul_${name}_${traitsKey(traits)}${suffix}`, code, bindings: productBindings(traits) };
}

/**
 * Declarations: the bindings, `patchA`, `patchB` and `finish`.
 *
 * A patch is four of an operand's rows (of A) or columns (of B) by four steps of depth, as a matrix whose column n holds the
 * four at depth k + n, however the operand lies in memory. Past the last row or column it holds anything, for WebGPU keeps
 * reads inside of the binding and results there are dropped. Past the depth it is zero in both operands, so that NaN and infinities stay in their row or column.
 */
export function productDeclarations(
  traits: ProductTraits,
  precision: ProductPrecision,
  destination: ProductDestination,
): string {
  const { aTransposed, bTransposed, aVectors, bVectors, resultVectors, bias, addend, depthTail } = traits;
  const shared = { depthTail, precision };
  const bindings = [
    readBinding("operandA", aVectors),
    readBinding("operandB", bVectors),
    bias && readBinding("bias", resultVectors),
    addend && readBinding("addend", resultVectors),
    `var<storage, read_write> result: array<${resultVectors ? "vec4f" : "f32"}>;`,
    "var<uniform> sizes: Sizes;",
  ].filter((line) => line !== false);
  return `${precision === "fp16" ? "enable f16;\n" : ""}${sizesStruct}
${bindings.map((line, index) => `@group(0) @binding(${index}) ${line}`).join("\n")}
${patchFunction({ ...shared, name: "A", extent: "rows", depthContiguous: !aTransposed, vectors: aVectors })}
${patchFunction({ ...shared, name: "B", extent: "columns", depthContiguous: bTransposed, vectors: bVectors })}
${finishFunction(traits, destination)}`;
}

function readBinding(name: string, vectors: boolean): string {
  return `var<storage, read> ${name}: array<${vectors ? "vec4f" : "f32"}>;`;
}

interface PatchOperand {
  readonly name: "A" | "B";
  /** The size that is not the depth. */
  readonly extent: "rows" | "columns";
  /** Whether neighbours in memory are neighbours in depth. */
  readonly depthContiguous: boolean;
  readonly vectors: boolean;
  readonly depthTail: boolean;
  readonly precision: ProductPrecision;
}

/** `fn patchX(first, k)`, and `fn lineX(outer, k)` for four numbers that are neighbours in memory. */
function patchFunction(operand: PatchOperand): string {
  const { name, depthContiguous, precision } = operand;
  const matrix = operandMatrix(precision);
  const lines = [0, 1, 2, 3].map((n) =>
    depthContiguous ? `line${name}(first + ${n}u, k)` : `line${name}(first, k + ${n}u)`
  );
  const patch = `${matrix}(\n    ${lines.join(",\n    ")})`;
  return `
fn line${name}(outer: u32, k: u32) -> ${operandVector(precision)} {
  ${lineBody(operand)}
}
fn patch${name}(first: u32, k: u32) -> ${matrix} {
  return ${depthContiguous ? `transpose(${patch})` : patch};
}`;
}

function lineBody({ name, extent, depthContiguous, vectors, depthTail, precision }: PatchOperand): string {
  const vector = operandVector(precision);
  const place = depthContiguous ? "outer * sizes.depth + k" : `k * sizes.${extent} + outer`;
  if (vectors) {
    const value = `${vector}(operand${name}[(${place}) / 4u])`;
    return `return ${depthTail ? `select(${vector}(), ${value}, k < sizes.depth)` : value};`;
  }
  const scalars = [0, 1, 2, 3].map((n) => {
    const value = `operand${name}[${place} + ${n}u]`;
    const step = depthContiguous ? `k + ${n}u` : "k";
    return depthTail ? `select(0.0, ${value}, ${step} < sizes.depth)` : value;
  });
  return `return ${vector}(vec4f(\n    ${scalars.join(",\n    ")}));`;
}

/** `fn finish(row, column, share, sums)`: four neighbours of the result, of which some may lie outside of it. */
function finishFunction(
  { resultVectors, bias, addend, activation }: ProductTraits,
  destination: ProductDestination,
): string {
  const gelu = activation === "gelu";
  const first = destination === "partials" ? "(share * sizes.rows + row)" : "row";
  const epilogue = (biasAt: string, at: string) =>
    [
      bias && `value += bias[${biasAt}];`,
      gelu && `value = ${resultVectors ? "gelu4" : "gelu"}(value);`,
      addend && `value += addend[${at}];`,
    ].filter(Boolean).join("\n    ");
  const body = resultVectors
    ? `  if (row < sizes.rows && column < sizes.columns) {
    let at = (${first} * sizes.columns + column) / 4u;
    var value = sums;
    ${epilogue("column / 4u", "at")}
    result[at] = value;
  }`
    : [0, 1, 2, 3].map((n) =>
      `  if (row < sizes.rows && column + ${n}u < sizes.columns) {
    let at = ${first} * sizes.columns + column + ${n}u;
    var value = sums[${n}];
    ${epilogue(`column + ${n}u`, "at")}
    result[at] = value;
  }`
    ).join("\n");
  return `${gelu ? geluFunctions : ""}
fn finish(row: u32, column: u32, share: u32, sums: vec4f) {
${body}
}`;
}

const geluFunctions = `${erfFunction}
fn gelu(x: f32) -> f32 { return 0.5 * x * (1.0 + erf(x * ${Math.SQRT1_2})); }
fn gelu4(x: vec4f) -> vec4f { return vec4f(gelu(x.x), gelu(x.y), gelu(x.z), gelu(x.w)); }`;
