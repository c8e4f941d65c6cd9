/**
 * The hyperbolic tangent and its gradient on the GPU.
 * @module
 */
import { elementwiseCalls, elementwiseShader } from "../add/wgsl.ts";
import { defineLowering } from "../shader.ts";
import { tanhFunction } from "../wgsl_math.ts";
import { tanh, tanhGradient } from "./operation.ts";

const shader = elementwiseShader({
  key: "tanh_f32",
  operands: 1,
  // The built-in function is exact to 2⁻¹⁴ or so only (WGSL §15.7.4.1).
  functions: tanhFunction,
  expression: "hyperbolicTangent(a)",
});

const gradientShader = elementwiseShader({
  key: "tanh_gradient_f32",
  operands: 2,
  expression: "a * (1.0 - b * b)",
});

/** y = tanh(x). */
export const tanhShaders = defineLowering({
  operation: tanh,
  lower: (placement) => elementwiseCalls(shader, placement),
});

/** gradX = gradY · (1 − y²). */
export const tanhGradientShaders = defineLowering({
  operation: tanhGradient,
  lower: (placement) => elementwiseCalls(gradientShader, placement),
});
