import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { cubicSchedule, type CubicScheduleOptions } from "./schedule.ts";

/** Sparsities at every refresh. */
function refreshed(options: CubicScheduleOptions): number[] {
  const schedule = cubicSchedule(options);
  return Array.from({ length: options.end + 1 }, (_, step) => step)
    .filter((step) => schedule.refreshes(step))
    .map((step) => Number(schedule.sparsity(step).toFixed(4)));
}

Deno.test("cubicSchedule gives Zhu and Gupta's values", () => {
  const quarters = { initialSparsity: 0, begin: 100, end: 500, every: 100 };
  assert.deepEqual(refreshed({ ...quarters, finalSparsity: 0.9 }), [0, 0.5203, 0.7875, 0.8859, 0.9]);
  const seven = { initialSparsity: 0.7, begin: 2, end: 26, every: 4 };
  const golden = {
    0.8: [0.7, 0.7421, 0.7704, 0.7875, 0.7963, 0.7995, 0.8],
    0.9: [0.7, 0.7843, 0.8407, 0.875, 0.8926, 0.8991, 0.9],
    0.97: [0.7, 0.8137, 0.89, 0.9363, 0.96, 0.9688, 0.97],
  };
  for (const [finalSparsity, wanted] of Object.entries(golden)) {
    assert.deepEqual(refreshed({ ...seven, finalSparsity: Number(finalSparsity) }), wanted);
  }
});

Deno.test("between refreshes the sparsity is that of the latest one", () => {
  const schedule = cubicSchedule({ initialSparsity: 0.2, finalSparsity: 0.8, begin: 10, end: 20, every: 5 });
  assert.equal(schedule.sparsity(9), 0);
  assert.equal(schedule.sparsity(10), schedule.sparsity(14));
  assert.ok(Math.abs(schedule.sparsity(10) - 0.2) < 1e-15);
  assert.ok(schedule.sparsity(15) > schedule.sparsity(14));
  assert.equal(schedule.sparsity(1000), 0.8);
});

Deno.test("the last refresh is at the end even where the interval does not divide the way there", () => {
  const schedule = cubicSchedule({ initialSparsity: 0, finalSparsity: 0.9, begin: 0, end: 10, every: 4 });
  const steps = Array.from({ length: 20 }, (_, step) => step);
  assert.deepEqual(steps.filter((step) => schedule.refreshes(step)), [0, 4, 8, 10]);
});

Deno.test("begin equal to end prunes once, to the final sparsity", () => {
  const schedule = cubicSchedule({ initialSparsity: 0, finalSparsity: 0.9, begin: 3, end: 3, every: 1 });
  assert.deepEqual([2, 3, 4].map((step) => schedule.refreshes(step)), [false, true, false]);
  assert.deepEqual([2, 3, 4].map((step) => schedule.sparsity(step)), [0, 0.9, 0.9]);
});

Deno.test("the sparsity never falls, changes only at refreshes and ends exactly at the final one", () => {
  const options = fc.record({
    first: fc.double({ min: 0, max: 1, noNaN: true }),
    second: fc.double({ min: 0, max: 1, noNaN: true }),
    begin: fc.nat(20),
    length: fc.nat(60),
    every: fc.integer({ min: 1, max: 20 }),
  });
  fc.assert(fc.property(options, ({ first, second, begin, length, every }) => {
    const finalSparsity = Math.max(first, second);
    const end = begin + length;
    const schedule = cubicSchedule({
      initialSparsity: Math.min(first, second),
      finalSparsity,
      begin,
      end,
      every,
    });
    for (let step = 1; step < end + 3; step++) {
      const change = schedule.sparsity(step) - schedule.sparsity(step - 1);
      assert.ok(change >= -1e-15, `falls by ${change} at ${step}`);
      if (!schedule.refreshes(step)) assert.equal(change, 0);
    }
    assert.equal(schedule.sparsity(end), finalSparsity);
  }));
});

Deno.test("cubicSchedule refuses what is no schedule, and says what was wanted", () => {
  const good = { initialSparsity: 0, finalSparsity: 0.9, begin: 0, end: 10, every: 1 };
  const bad: Partial<CubicScheduleOptions>[] = [
    { finalSparsity: 90 },
    { initialSparsity: -0.1 },
    { initialSparsity: 0.95 },
    { begin: 11 },
    { begin: 0.5 },
    { end: -1 },
    { every: 0 },
    { every: NaN },
  ];
  for (const change of bad) assert.throws(() => cubicSchedule({ ...good, ...change }), InputError);
  assert.throws(
    () => cubicSchedule({ ...good, finalSparsity: 90 }),
    new InputError(
      "Cannot make a pruning schedule: finalSparsity is 90, wanted a number from 0 to 1",
    ),
  );
});
