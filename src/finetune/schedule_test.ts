import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { bertGolden } from "../graph/golden/mod.ts";
import {
  constant,
  learningRateSchedule,
  learningRateScheduleNames,
  linear,
  warmupStepsOf,
} from "./schedule.ts";

const factors = (schedule: ReturnType<typeof linear>, steps: number) =>
  Array.from({ length: steps }, (_, step) => schedule.factor(step));

Deno.test("linear gives the rates of PyTorch and transformers in the golden run", () => {
  const { training, float64 } = bertGolden();
  const schedule = linear({ warmupSteps: training.warmupSteps, totalSteps: training.steps });
  assert.deepEqual(
    factors(schedule, training.steps).map((factor) => training.learningRate * factor),
    float64.training.learningRates,
  );
});

Deno.test("linear rises from 0 to the peak in the warm-up and falls to 0 at the end", () => {
  assert.deepEqual(factors(linear({ warmupSteps: 4, totalSteps: 8 }), 10), [
    0,
    0.25,
    0.5,
    0.75,
    1,
    0.75,
    0.5,
    0.25,
    0,
    0,
  ]);
});

Deno.test("linear without a warm-up starts at the peak", () => {
  assert.deepEqual(factors(linear({ warmupSteps: 0, totalSteps: 4 }), 5), [1, 0.75, 0.5, 0.25, 0]);
});

Deno.test("linear with a warm-up longer than the training only rises", () => {
  assert.deepEqual(factors(linear({ warmupSteps: 4, totalSteps: 2 }), 2), [0, 0.25]);
});

Deno.test("linear stays in [0, 1], peaks where the warm-up ends and is monotone on each side of it", () => {
  const length = fc.record({ warmupSteps: fc.nat(200), decaySteps: fc.integer({ min: 1, max: 200 }) });
  fc.assert(fc.property(length, ({ warmupSteps, decaySteps }) => {
    const totalSteps = warmupSteps + decaySteps;
    const values = factors(linear({ warmupSteps, totalSteps }), totalSteps + 3);
    assert.equal(values[warmupSteps], 1);
    assert.equal(values[totalSteps - 1], 1 / decaySteps);
    values.forEach((value, step) => {
      assert.ok(value >= 0 && value <= 1);
      if (step === 0) return;
      if (step <= warmupSteps) assert.ok(value > values[step - 1]);
      else assert.ok(value < values[step - 1] || value === 0);
    });
  }));
});

Deno.test("constant keeps the peak rate", () => {
  assert.deepEqual(factors(constant({ warmupSteps: 2, totalSteps: 3 }), 4), [1, 1, 1, 1]);
});

Deno.test("learningRateSchedule finds every schedule by its name and names them all when it cannot", () => {
  const length = { warmupSteps: 1, totalSteps: 2 };
  for (const name of learningRateScheduleNames) assert.equal(learningRateSchedule(name, length).name, name);
  assert.throws(
    () => learningRateSchedule("toString", length),
    new InputError("Unknown learning-rate schedule toString: wanted one of linear, constant"),
  );
});

Deno.test("schedules refuse lengths that are no whole numbers of steps", () => {
  for (const bad of [-1, 1.5, NaN]) {
    assert.throws(() => linear({ warmupSteps: bad, totalSteps: 9 }), InputError);
    assert.throws(() => constant({ warmupSteps: 0, totalSteps: bad }), InputError);
  }
});

Deno.test("warmupStepsOf rounds up and refuses what is no ratio", () => {
  assert.equal(warmupStepsOf(0.1, 101), 11);
  assert.equal(warmupStepsOf(0, 101), 0);
  assert.throws(() => warmupStepsOf(10, 100), InputError);
});
