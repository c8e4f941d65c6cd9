/**
 * GELU and its gradient on the GPU.
 * @module
 */
import { elementwiseCalls, elementwiseShader } from "../add/wgsl.ts";
import { defineLowering } from "../shader.ts";
import { erfFunction } from "../wgsl_math.ts";
import { gelu, geluGradient } from "./operation.ts";

const shader = elementwiseShader({
  key: "gelu_f32",
  operands: 1,
  functions: erfFunction,
  expression: `0.5 * a * (1.0 + erf(a * ${Math.SQRT1_2}))`,
});

const gradientShader = elementwiseShader({
  key: "gelu_gradient_f32",
  operands: 2,
  functions: erfFunction,
  expression: `a * (0.5 * (1.0 + erf(b * ${Math.SQRT1_2})) + b * exp(-0.5 * b * b) * ${
    1 / Math.sqrt(2 * Math.PI)
  })`,
});

/** y = x · Φ(x). */
export const geluShaders = defineLowering({
  operation: gelu,
  lower: (placement) => elementwiseCalls(shader, placement),
});

/** gradX = gradY · (Φ(x) + x·φ(x)). */
export const geluGradientShaders = defineLowering({
  operation: geluGradient,
  lower: (placement) => elementwiseCalls(gradientShader, placement),
});
