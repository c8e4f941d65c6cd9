import assert from "node:assert/strict";
import { InputError } from "../../core/errors.ts";
import { fastaiOneCycle, learningRateSchedule, type ScheduleOptions } from "./mod.ts";

/** Numbers of PyTorch's OneCycleLR with a peak rate of 1, one for each update. */
const golden: readonly (ScheduleOptions & { rates: number[]; momenta: number[] })[] = [{
  totalSteps: 10,
  rates: [0.04, 0.52, 1, 0.95048463, 0.81174565, 0.61126202, 0.38874198, 0.18825835, 0.04951937, 4e-6],
  momenta: [0.95, 0.9, 0.85, 0.854952, 0.868826, 0.888874, 0.911126, 0.931174, 0.945048, 0.95],
}, {
  totalSteps: 10,
  threePhase: true,
  rates: [0.04, 0.52, 1, 0.52, 0.04, 0.036180722, 0.026181722, 0.013822278, 0.003823278, 4e-6],
  momenta: [0.95, 0.9, 0.85, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95],
}, {
  totalSteps: 7,
  pctStart: 0.25,
  annealStrategy: "linear",
  rates: [0.04, 0.952381143, 0.761905714, 0.571430286, 0.380954857, 0.190479429, 4e-6],
  momenta: [0.95, 0.8547619, 0.87380952, 0.89285714, 0.91190476, 0.93095238, 0.95],
}, {
  totalSteps: 8,
  threePhase: true,
  annealStrategy: "linear",
  divFactor: 10,
  finalDivFactor: 100,
  rates: [0.1, 0.742857143, 0.614285714, 0.095285714, 0.071714286, 0.048142857, 0.024571429, 0.001],
  momenta: [0.95, 0.87857143, 0.89285714, 0.95, 0.95, 0.95, 0.95, 0.95],
}];

for (const { rates, momenta, ...options } of golden) {
  Deno.test(`one_cycle gives PyTorch's rates and momenta: ${JSON.stringify(options)}`, () => {
    const schedule = learningRateSchedule("one_cycle", options);
    rates.forEach((rate, step) => {
      const found = [schedule.factor(step), schedule.momentum!(step)];
      const what = `step ${step}: ${found}, wanted ${rate}, ${momenta[step]}`;
      assert.ok(Math.abs(found[0] - rate) < 1e-8 && Math.abs(found[1] - momenta[step]) < 1e-6, what);
    });
  });
}

Deno.test("one_cycle without cycled momentum has none", () => {
  const schedule = learningRateSchedule("one_cycle", { totalSteps: 4, cycleMomentum: false });
  assert.equal(schedule.momentum, undefined);
});

Deno.test("one_cycle has no update after its last", () => {
  const schedule = learningRateSchedule("one_cycle", { totalSteps: 4 });
  for (const step of [4, 5, -1, NaN]) {
    assert.throws(() => schedule.factor(step), RangeError);
    assert.throws(() => schedule.momentum!(step), RangeError);
  }
});

Deno.test("one_cycle is finite where a phase has no length, and in runs of a few steps", () => {
  for (const threePhase of [false, true]) {
    for (let totalSteps = 1; totalSteps <= 12; totalSteps++) {
      for (const pctStart of [0, 0.1, 0.25, 0.3, 1 / totalSteps, 0.5]) {
        if (threePhase && pctStart > 0.5) continue;
        const schedule = learningRateSchedule("one_cycle", { totalSteps, pctStart, threePhase });
        for (let step = 0; step < totalSteps; step++) {
          const [rate, momentum] = [schedule.factor(step), schedule.momentum!(step)];
          const what = `${totalSteps} steps, pctStart ${pctStart}, step ${step}: ${rate}, ${momentum}`;
          assert.ok(rate > 3.9e-6 && rate <= 1 && momentum > 0.849 && momentum < 0.951, what);
        }
        assert.ok(Math.abs(schedule.factor(totalSteps - 1) - 4e-6) < 1e-12 || totalSteps * pctStart === 1);
      }
    }
  }
});

Deno.test("one_cycle in fastai's way ends at 1e-5 of the peak", () => {
  const schedule = learningRateSchedule("one_cycle", { totalSteps: 100, ...fastaiOneCycle });
  assert.ok(Math.abs(schedule.factor(0) - 0.04) < 1e-12);
  assert.ok(Math.abs(schedule.factor(24) - 1) < 1e-12);
  assert.ok(Math.abs(schedule.factor(99) - 1e-5) < 1e-12);
});

Deno.test("one_cycle refuses bad options with one line", () => {
  const refused: readonly [Partial<ScheduleOptions>, RegExp][] = [
    [{ pctStart: 1.1 }, /one_cycle: pctStart is 1\.1, wanted a number from 0 to 1$/],
    [{ pctStart: 0.6, threePhase: true }, /pctStart is 0\.6, wanted a number from 0 to 0\.5/],
    [{ annealStrategy: "step" as "cos" }, /annealStrategy is step, wanted cos or linear/],
    [{ threePhase: 1 as never }, /threePhase is 1, wanted a boolean/],
    [{ divFactor: 0 }, /divFactor is 0, wanted/],
    [{ finalDivFactor: Infinity }, /finalDivFactor is Infinity/],
    [{ maxMomentum: 1 }, /maxMomentum is 1, wanted/],
    [{ baseMomentum: 0.96 }, /baseMomentum is 0\.96, wanted a number from 0 to maxMomentum, which is 0\.95/],
    [{ cycles: 2 }, /cycles is 2, wanted none: it takes pctStart, /],
  ];
  for (const [options, message] of refused) {
    assert.throws(
      () => learningRateSchedule("one_cycle", { totalSteps: 9, ...options }),
      (error) => error instanceof InputError && message.test(error.message),
      JSON.stringify(options),
    );
  }
});
