import assert from "node:assert/strict";
import { rows, tiled } from "../../graph/graph.ts";
import { centralDifferences, conform } from "../conformance.ts";
import { elementwiseCases, gradientOperands } from "./elementwise_cases.ts";
import { add } from "./operation.ts";

Deno.test("add conforms", (t) => conform(t, add, elementwiseCases(2, { relative: 0, absolute: 0 })));

Deno.test("add has the gradient of its reference", () => {
  centralDifferences(add, { seed: 1, ...gradientOperands(2) });
});

Deno.test("add rejects operands of different types", () => {
  assert.throws(() => add.infer([tiled(2, 4), tiled(2, 8)], {}), /Cannot apply add: .*\[2, 4\].*\[2, 8\]/);
  assert.throws(() => add.infer([tiled(2, 4), rows(2, 4)], {}), /Cannot apply add/);
  assert.throws(() => add.infer([tiled(2, 4), undefined], {}), /Cannot apply add/);
});
