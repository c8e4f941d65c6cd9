/** Verdicts against numbers worked out by hand. */
import assert from "node:assert/strict";
import { summarise } from "../core/statistics.ts";
import { verdictOf } from "./verdict.ts";

Deno.test("a verdict needs an interval that leaves 0 out, and knows which way is better", () => {
  const up = summarise([1, 2, 3, 2]); // 2 ± 3.182 · 0.408
  const around = summarise([-1, 2, 3, -2]);
  assert.equal(verdictOf(up, true), "better");
  assert.equal(verdictOf(up, false), "worse");
  assert.equal(verdictOf(summarise([-1, -2, -3, -2]), true), "worse");
  assert.equal(verdictOf(summarise([-1, -2, -3, -2]), false), "better");
  assert.equal(verdictOf(around, true), "no difference shown");
  assert.equal(verdictOf(summarise([100]), true), "no difference shown");
  assert.equal(verdictOf(summarise([0, 0, 0]), true), "no difference shown");
});
