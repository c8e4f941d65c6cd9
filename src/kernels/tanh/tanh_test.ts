import { centralDifferences, conform } from "../conformance.ts";
import { elementwiseCases, gradientOperands } from "../add/elementwise_cases.ts";
import { tanh, tanhGradient } from "./operation.ts";

// The relative error of `emit_math.ts`; denormal results have fewer bits.
Deno.test("tanh conforms", (t) => conform(t, tanh, elementwiseCases(1, { relative: 4e-7, absolute: 1e-43 })));

Deno.test("tanhGradient conforms", (t) =>
  // 1 − y² cancels near |y| = 1, where one rounding of y² is all that is left.
  conform(t, tanhGradient, elementwiseCases(2, { relative: 1e-6, absolute: 1e-6 })));

Deno.test("tanh has the gradient of its reference", () => {
  centralDifferences(tanh, { seed: 1, ...gradientOperands(1) });
});
