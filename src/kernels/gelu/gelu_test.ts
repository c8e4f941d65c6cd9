import assert from "node:assert/strict";
import { centralDifferences, conform } from "../conformance.ts";
import { elementwiseCases, gradientOperands } from "../add/elementwise_cases.ts";
import { gelu, geluGradient } from "./operation.ts";
import { erf } from "./reference.ts";

// The errors of `emit_math.ts` relative to |x|, for |x| up to about 12.
Deno.test("gelu conforms", (t) =>
  conform(t, gelu, elementwiseCases(1, { relative: 2.2e-7, absolute: 2e-6 })));

// The derivative's error of 2.2e-7 times the largest upstream gradient, 20.
Deno.test("geluGradient conforms", (t) =>
  conform(t, geluGradient, elementwiseCases(2, { relative: 4e-7, absolute: 5e-6 })));

Deno.test("gelu has the gradient of its reference", () => {
  centralDifferences(gelu, { seed: 1, ...gradientOperands(1) });
});

Deno.test("the reference erf agrees with tabulated values", () => {
  // Abramowitz and Stegun, table 7.1, and DLMF 7.
  const table: [number, number][] = [
    [0, 0],
    [0.5, 0.5204998778],
    [1, 0.8427007929],
    [1.5, 0.9661051465],
    [2, 0.9953222650],
    [6.5, 1],
  ];
  for (const [x, wanted] of table) {
    assert(Math.abs(erf(x) - wanted) < 1e-10, `erf(${x}) is ${erf(x)}, wanted ${wanted}`);
    assert.equal(erf(-x), -erf(x));
  }
  assert(Number.isNaN(erf(NaN)));
});
