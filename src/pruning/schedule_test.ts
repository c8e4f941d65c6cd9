import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import {
  constantSchedule,
  pruningSchedule,
  pruningScheduleNames,
  type PruningScheduleOptions,
} from "./schedule.ts";

const ramps = ["cubic", "linear", "inverse_cubic", "polynomial"] as const;

/** Sparsities at every refresh. */
function refreshed(name: string, options: PruningScheduleOptions): number[] {
  const schedule = pruningSchedule(name, options);
  return Array.from({ length: options.end + 1 }, (_, step) => step)
    .filter((step) => schedule.refreshes(step))
    .map((step) => Number(schedule.sparsity(step).toFixed(4)));
}

Deno.test("cubic gives Zhu and Gupta's values", () => {
  const quarters = { initialSparsity: 0, begin: 100, end: 500, every: 100 };
  assert.deepEqual(refreshed("cubic", { ...quarters, finalSparsity: 0.9 }), [0, 0.5203, 0.7875, 0.8859, 0.9]);
  const seven = { initialSparsity: 0.7, begin: 2, end: 26, every: 4 };
  const golden = {
    0.8: [0.7, 0.7421, 0.7704, 0.7875, 0.7963, 0.7995, 0.8],
    0.9: [0.7, 0.7843, 0.8407, 0.875, 0.8926, 0.8991, 0.9],
    0.97: [0.7, 0.8137, 0.89, 0.9363, 0.96, 0.9688, 0.97],
  };
  for (const [finalSparsity, wanted] of Object.entries(golden)) {
    assert.deepEqual(refreshed("cubic", { ...seven, finalSparsity: Number(finalSparsity) }), wanted);
  }
});

Deno.test("the other ramps have SparseML's values at the quarters, and begin and end where cubic does", () => {
  const quarters = { initialSparsity: 0.1, finalSparsity: 0.9, begin: 4, end: 8, every: 1 };
  // 0.1 + 0.8 · y, with y of SparseML's interpolation functions.
  const golden = {
    linear: [0.1, 0.3, 0.5, 0.7, 0.9],
    inverse_cubic: [0.1, 0.1732, 0.265, 0.396, 0.9],
    cubic: [0.1, 0.5625, 0.8, 0.8875, 0.9],
    polynomial: [0.1, 0.5625, 0.8, 0.8875, 0.9],
  };
  for (const [name, wanted] of Object.entries(golden)) {
    assert.deepEqual(refreshed(name, quarters), wanted, name);
  }
  const squares = { ...quarters, exponent: 2 };
  assert.deepEqual(refreshed("polynomial", squares), [0.1, 0.45, 0.7, 0.85, 0.9]);
});

Deno.test("one-shot prunes once, at its begin, and constant asks for nothing", () => {
  const options = { initialSparsity: 0, finalSparsity: 0.8, begin: 3, end: 9, every: 1 };
  const steps = Array.from({ length: 12 }, (_, step) => step);
  const once = pruningSchedule("one-shot", options);
  assert.deepEqual(steps.filter((step) => once.refreshes(step)), [3]);
  assert.deepEqual([2, 3, 11].map((step) => once.sparsity(step)), [0, 0.8, 0.8]);
  assert.deepEqual([once.begin, once.end], [3, 3]);
  for (const constant of [pruningSchedule("constant", options), constantSchedule(3)]) {
    assert.deepEqual(steps.filter((step) => constant.refreshes(step)), [3]);
    assert.ok(steps.every((step) => constant.sparsity(step) === 0));
    assert.equal(constant.name, "constant");
  }
});

Deno.test("between refreshes the sparsity is that of the latest one", () => {
  const schedule = pruningSchedule("cubic", {
    initialSparsity: 0.2,
    finalSparsity: 0.8,
    begin: 10,
    end: 20,
    every: 5,
  });
  assert.equal(schedule.sparsity(9), 0);
  assert.equal(schedule.sparsity(10), schedule.sparsity(14));
  assert.ok(Math.abs(schedule.sparsity(10) - 0.2) < 1e-15);
  assert.ok(schedule.sparsity(15) > schedule.sparsity(14));
  assert.equal(schedule.sparsity(1000), 0.8);
});

Deno.test("the last refresh is at the end even where the interval does not divide the way there", () => {
  const schedule = pruningSchedule("linear", {
    initialSparsity: 0,
    finalSparsity: 0.9,
    begin: 0,
    end: 10,
    every: 4,
  });
  const steps = Array.from({ length: 20 }, (_, step) => step);
  assert.deepEqual(steps.filter((step) => schedule.refreshes(step)), [0, 4, 8, 10]);
});

Deno.test("begin equal to end prunes once, to the final sparsity", () => {
  const schedule = pruningSchedule("cubic", {
    initialSparsity: 0,
    finalSparsity: 0.9,
    begin: 3,
    end: 3,
    every: 1,
  });
  assert.deepEqual([2, 3, 4].map((step) => schedule.refreshes(step)), [false, true, false]);
  assert.deepEqual([2, 3, 4].map((step) => schedule.sparsity(step)), [0, 0.9, 0.9]);
});

Deno.test("the sparsity never falls, changes only at refreshes and ends exactly at the final one", () => {
  const options = fc.record({
    name: fc.constantFrom(...ramps),
    first: fc.double({ min: 0, max: 1, noNaN: true }),
    second: fc.double({ min: 0, max: 1, noNaN: true }),
    begin: fc.nat(20),
    length: fc.nat(60),
    every: fc.integer({ min: 1, max: 20 }),
  });
  fc.assert(fc.property(options, ({ name, first, second, begin, length, every }) => {
    const finalSparsity = Math.max(first, second);
    const end = begin + length;
    const schedule = pruningSchedule(name, {
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
    assert.deepEqual([schedule.name, schedule.begin, schedule.end], [name, begin, end]);
  }));
});

Deno.test("pruningSchedule refuses what is no schedule, and says what was wanted", () => {
  const good = { initialSparsity: 0, finalSparsity: 0.9, begin: 0, end: 10, every: 1 };
  const bad: Partial<PruningScheduleOptions>[] = [
    { finalSparsity: 90 },
    { initialSparsity: -0.1 },
    { initialSparsity: 0.95 },
    { begin: 11 },
    { begin: 0.5 },
    { end: -1 },
    { every: 0 },
    { every: NaN },
    { exponent: 0 },
    { exponent: Infinity },
  ];
  for (const change of bad) {
    for (const name of pruningScheduleNames) {
      assert.throws(() => pruningSchedule(name, { ...good, ...change }), InputError, JSON.stringify(change));
    }
  }
  assert.throws(
    () => pruningSchedule("linear", { ...good, finalSparsity: 90 }),
    new InputError(
      "Cannot make a pruning schedule: finalSparsity is 90, wanted a number from 0 to 1",
    ),
  );
  assert.throws(
    () => pruningSchedule("linear", { ...good, initialSparsity: 0.95 }),
    new InputError(
      "Cannot make a pruning schedule: initialSparsity is 0.95, wanted at most finalSparsity, 0.9",
    ),
  );
  assert.throws(
    () => pruningSchedule("toString", good),
    new InputError(
      "Unknown pruning schedule toString: wanted one of cubic, linear, inverse_cubic, polynomial, one-shot, constant",
    ),
  );
  assert.throws(() => constantSchedule(-1), InputError);
});
