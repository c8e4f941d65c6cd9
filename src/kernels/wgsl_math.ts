/**
 * Functions that WGSL lacks, or has too coarse, as text. The polynomials are those of the CPU's kernels (`emit_math.ts`).
 * @module
 */
import { erf, tanh } from "./emit_math.ts";

/** A WGSL literal: a decimal point or an exponent makes a number an f32. */
export function f32Literal(value: number): string {
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** Horner's rule. */
export function polynomial(coefficients: readonly number[], x: string): string {
  return coefficients.reduceRight(
    (inner, coefficient) =>
      inner === "" ? f32Literal(coefficient) : `fma(${inner}, ${x}, ${f32Literal(coefficient)})`,
    "",
  );
}

/** `fn erf(x: f32) -> f32`. NaN gives NaN: a comparison with it is false. */
export const erfFunction = `
fn erf(x: f32) -> f32 {
  if (abs(x) >= ${f32Literal(erf.bound)}) { return sign(x); }
  let square = x * x;
  return x * (${polynomial(erf.numerator, "square")}) / (${polynomial(erf.denominator, "square")});
}`;

/** `fn hyperbolicTangent(x: f32) -> f32`. Near 0 it is x, which keeps denormal numbers where arithmetic would flush them. */
export const tanhFunction = `
fn hyperbolicTangent(x: f32) -> f32 {
  if (abs(x) < 4e-4) { return x; }
  if (abs(x) >= ${f32Literal(tanh.bound)}) { return sign(x); }
  let square = x * x;
  return x * (${polynomial(tanh.numerator, "square")}) / (${polynomial(tanh.denominator, "square")});
}`;
