/** Quantiles against tables of Student's t, summaries against numbers worked out by hand. */
import assert from "node:assert/strict";
import { summarise } from "./statistics.ts";
import { centralProbability, centralQuantile } from "./student_t.ts";

function assertClose(found: number, wanted: number, tolerance: number): void {
  assert.ok(Math.abs(found - wanted) <= tolerance, `found ${found}, wanted ${wanted}`);
}

Deno.test("quantiles of Student's t are those of the printed tables", () => {
  const table: readonly [confidence: number, degrees: number, t: number][] = [
    [0.95, 1, 12.706],
    [0.95, 2, 4.303],
    [0.95, 3, 3.182],
    [0.95, 4, 2.776],
    [0.95, 5, 2.571],
    [0.95, 9, 2.262],
    [0.95, 10, 2.228],
    [0.95, 30, 2.042],
    [0.95, 120, 1.980],
    [0.5, 1, 1.000],
    [0.99, 4, 4.604],
    [0.999, 7, 5.408],
  ];
  for (const [confidence, degrees, t] of table) {
    assertClose(centralQuantile(confidence, degrees), t, 5.1e-4);
  }
});

Deno.test("probabilities have their closed forms for one and two degrees of freedom, and rise from 0 to 1", () => {
  for (const t of [0, 0.3, 1, 2.5, 40]) {
    assertClose(centralProbability(t, 1), 2 / Math.PI * Math.atan(t), 1e-15);
    assertClose(centralProbability(t, 2), t / Math.sqrt(2 + t * t), 1e-15);
  }
  for (let degrees = 1; degrees <= 41; degrees++) {
    assert.equal(centralProbability(0, degrees), 0);
    assert.ok(centralProbability(1, degrees) < centralProbability(1.01, degrees));
    assertClose(centralProbability(Infinity, degrees), 1, 1e-12);
    assertClose(centralProbability(centralQuantile(0.9, degrees), degrees), 0.9, 1e-12);
  }
});

Deno.test("what is no distribution is refused", () => {
  for (const [t, degrees] of [[-1, 3], [NaN, 3], [1, 0], [1, 1.5]]) {
    assert.throws(() => centralProbability(t, degrees), /^RangeError: There is no t distribution at/);
  }
  for (const confidence of [0, 1, NaN]) assert.throws(() => centralQuantile(confidence, 3), RangeError);
});

Deno.test("a summary has the mean, the sample deviation and Student's interval", () => {
  // Mean 3, squares 4 + 1 + 0 + 1 + 4 = 10, variance 10/4; half an interval is 2.7764 · √(2.5/5) = 1.9632.
  const { interval, ...rest } = summarise([5, 1, 3, 4, 2]);
  assert.deepEqual(rest, { count: 5, mean: 3, deviation: Math.sqrt(2.5), least: 1, greatest: 5 });
  assertClose(interval![0], 3 - 1.9632, 1e-4);
  assertClose(interval![1], 3 + 1.9632, 1e-4);
});

Deno.test("a single number has neither deviation nor interval; no number is refused", () => {
  assert.deepEqual(summarise([2.5]), { count: 1, mean: 2.5, least: 2.5, greatest: 2.5 });
  assert.throws(() => summarise([]), /^RangeError: Cannot sum up no numbers$/);
});
