import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../../core/errors.ts";
import { bertGolden } from "../../graph/golden/mod.ts";
import { learningRateSchedule, learningRateScheduleNames, type ScheduleOptions, takesWarmup } from "./mod.ts";
import { warmupStepsOf } from "./schedule.ts";

const factors = (name: string, options: ScheduleOptions, steps = options.totalSteps) => {
  const schedule = learningRateSchedule(name, options);
  return Array.from({ length: steps }, (_, step) => schedule.factor(step));
};

function assertNear(actual: readonly number[], expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, step) => {
    assert.ok(Math.abs(value - expected[step]) < 1e-9, `step ${step}: ${value}, wanted ${expected[step]}`);
  });
}

/** What a schedule cannot be made without, besides its length. */
const needed: Readonly<Record<string, Partial<ScheduleOptions>>> = { cyclic_linear: { cycleSteps: 3 } };

Deno.test("linear gives the rates of PyTorch and transformers in the golden run", () => {
  const { training: { steps, warmupSteps, learningRate }, float64 } = bertGolden();
  assert.deepEqual(
    factors("linear", { warmupSteps, totalSteps: steps }).map((factor) => learningRate * factor),
    float64.training.learningRates,
  );
});

Deno.test("linear rises from 0 to the peak in the warm-up and falls to 0 at the end", () => {
  assert.deepEqual(factors("linear", { warmupSteps: 4, totalSteps: 8 }, 10), [
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
  assert.deepEqual(factors("linear", { totalSteps: 4 }, 5), [1, 0.75, 0.5, 0.25, 0]);
});

Deno.test("linear with nothing but a warm-up only rises", () => {
  assert.deepEqual(factors("linear", { warmupSteps: 4, totalSteps: 4 }, 6), [0, 0.25, 0.5, 0.75, 0, 0]);
});

Deno.test("linear stays in [0, 1], peaks where the warm-up ends and is monotone on each side of it", () => {
  const length = fc.record({ warmupSteps: fc.nat(200), decaySteps: fc.integer({ min: 1, max: 200 }) });
  fc.assert(fc.property(length, ({ warmupSteps, decaySteps }) => {
    const totalSteps = warmupSteps + decaySteps;
    const values = factors("linear", { warmupSteps, totalSteps }, totalSteps + 3);
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

Deno.test("constant keeps the peak rate; constant_with_warmup rises to it", () => {
  assert.deepEqual(factors("constant", { totalSteps: 3 }, 4), [1, 1, 1, 1]);
  assert.deepEqual(factors("constant_with_warmup", { warmupSteps: 2, totalSteps: 3 }, 4), [0, 0.5, 1, 1]);
});

// The numbers of the next three are those of Hugging Face's lambdas, evaluated in Python.
const length = { warmupSteps: 2, totalSteps: 8 };

Deno.test("cosine falls along half a wave, to a floor where there is one, and stays there", () => {
  const wave = [0.9330127018922194, 0.75, 0.5, 0.25, 0.06698729810778065];
  assertNear(factors("cosine", length, 10), [0, 0.5, 1, ...wave, 0, 0]);
  const above = [0.9397114317029974, 0.775, 0.55, 0.325, 0.16028856829700258];
  assertNear(factors("cosine_with_min_lr", { ...length, endRatio: 0.1 }, 10), [
    0,
    0.5,
    1,
    ...above,
    0.1,
    0.1,
  ]);
});

Deno.test("cosine_with_restarts falls from the peak in every cycle", () => {
  const expected = [0, 0.5, 1, 0.75, 0.25, 1, 0.75, 0.25, 0, 0];
  assertNear(factors("cosine_with_restarts", { ...length, cycles: 2 }, 10), expected);
  assertNear(factors("cosine_with_restarts", length, 10), factors("cosine", length, 10));
});

Deno.test("polynomial falls along a power to its end", () => {
  assertNear(
    factors("polynomial", { ...length, power: 2, endRatio: 0.1 }, 10),
    [0, 0.5, 1, 0.725, 0.5, 0.325, 0.2, 0.125, 0.1, 0.1],
  );
  assertNear(factors("polynomial", length, 10), factors("linear", length, 10));
});

Deno.test("cyclic_linear repeats its ramp, as SparseML's does, and ends each at the end ratio", () => {
  const ramp = [1, 0.7, 0.4, 0.1];
  const options = { totalSteps: 12, cycleSteps: 4, endRatio: 0.1 };
  assertNear(factors("cyclic_linear", options, 14), [...ramp, ...ramp, ...ramp, 0.1, 0.1]);
  assertNear(factors("cyclic_linear", { ...options, totalSteps: 10 }), [...ramp, ...ramp, 1, 0.1]);
  assertNear(
    factors("cyclic_linear", { ...options, totalSteps: 11, warmupSteps: 2 }),
    [0, 0.5, ...ramp, ...ramp, 1],
  );
});

Deno.test("every schedule stays in [0, 1] and keeps its last factor beyond the end", () => {
  const totals = fc.record({ warmup: fc.nat(20), rest: fc.integer({ min: 1, max: 60 }) });
  for (const name of learningRateScheduleNames.filter((name) => name !== "one_cycle")) {
    fc.assert(fc.property(totals, ({ warmup, rest }) => {
      const totalSteps = warmup + rest;
      const warmupSteps = takesWarmup(name) ? warmup : 0;
      const schedule = learningRateSchedule(name, { totalSteps, warmupSteps, ...needed[name] });
      for (let step = 0; step < totalSteps; step++) {
        const factor = schedule.factor(step);
        assert.ok(factor >= 0 && factor <= 1, `${name}, step ${step} of ${totalSteps}: ${factor}`);
      }
      assert.equal(schedule.factor(totalSteps + 7), schedule.factor(totalSteps));
      assert.equal(schedule.momentum, undefined);
    }));
  }
});

Deno.test("learningRateSchedule finds every schedule by its name and names them all when it cannot", () => {
  for (const name of learningRateScheduleNames) {
    assert.equal(learningRateSchedule(name, { totalSteps: 2, ...needed[name] }).name, name);
  }
  assert.equal(learningRateSchedule("cosine_with_min_lr", { totalSteps: 2, endRatio: 0 }).name, "cosine");
  assert.equal(learningRateSchedule("OneCycleLR", { totalSteps: 2 }).name, "one_cycle");
  assert.throws(
    () => learningRateSchedule("toString", { totalSteps: 2 }),
    new InputError(
      "Unknown learning-rate schedule toString: wanted one of constant, constant_with_warmup, linear, cosine, " +
        "cosine_with_restarts, polynomial, cyclic_linear, one_cycle",
    ),
  );
});

Deno.test("bad options are refused with one line", () => {
  const refused: readonly [string, Partial<ScheduleOptions>, RegExp][] = [
    ["linear", { totalSteps: 0 }, /linear: totalSteps is 0, wanted a whole number of at least 1/],
    ["linear", { totalSteps: 1.5 }, /totalSteps is 1\.5/],
    ["linear", { warmupSteps: -1 }, /warmupSteps is -1, wanted a whole number/],
    ["linear", { warmupSteps: NaN }, /warmupSteps is NaN/],
    ["linear", { warmupSteps: 10 }, /warmupSteps is 10, wanted no more than the 9 steps there are/],
    ["linear", { warmupRatio: 1.5 }, /Cannot warm up for 1\.5 of the training/],
    ["linear", { warmupSteps: 1, warmupRatio: 0 }, /warmupSteps 1 and warmupRatio 0 exclude each other/],
    ["linear", { endRatio: 0.5 }, /linear: endRatio is 0\.5, wanted none/],
    ["constant", { warmupSteps: 1 }, /constant takes no warm-up and 1 steps .* constant_with_warmup/],
    ["one_cycle", { warmupRatio: 0.1 }, /one_cycle takes no warm-up and 1 steps .* pctStart/],
    ["cosine", { power: 2 }, /cosine: power is 2, wanted none: it takes endRatio/],
    ["cosine", { endRatio: 1.1 }, /endRatio is 1\.1, wanted a number from 0 to 1/],
    ["cosine_with_min_lr", {}, /cosine_with_min_lr: endRatio is missing/],
    ["cosine_with_restarts", { cycles: 0 }, /cycles is 0, wanted a whole number from 1 to the 9 steps/],
    ["cosine_with_restarts", { cycles: 1.5 }, /cycles is 1\.5/],
    ["cosine_with_restarts", { cycles: 8, warmupSteps: 2 }, /cycles is 8, .* 1 to the 7 steps/],
    ["polynomial", { power: 0 }, /power is 0, wanted a positive number/],
    ["polynomial", { power: "2" as never }, /polynomial: power is "2", wanted a number/],
    ["polynomial", { lr_end: 1e-7 } as never, /lr_end is 1e-7, wanted none: it takes power, endRatio/],
    ["polynomial", { endRatio: NaN }, /endRatio is NaN/],
    ["cyclic_linear", {}, /cycleSteps is missing, wanted a whole number of at least 1/],
    ["cyclic_linear", { cycleSteps: 2.5 }, /cycleSteps is 2\.5/],
  ];
  for (const [name, options, message] of refused) {
    assert.throws(
      () => learningRateSchedule(name, { totalSteps: 9, ...options }),
      (error) => error instanceof InputError && message.test(error.message) && !error.message.includes("\n"),
      `${name} ${JSON.stringify(options)}`,
    );
  }
});

Deno.test("a warm-up may be given as a ratio; warmupStepsOf rounds up and refuses what is no ratio", () => {
  const byRatio = factors("linear", { totalSteps: 101, warmupRatio: 0.1 });
  assert.deepEqual(byRatio, factors("linear", { totalSteps: 101, warmupSteps: 11 }));
  assert.equal(warmupStepsOf(0.1, 101), 11);
  assert.equal(warmupStepsOf(0, 101), 0);
  assert.throws(() => warmupStepsOf(10, 100), InputError);
});
