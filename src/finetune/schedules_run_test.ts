/** Whole runs with every learning-rate schedule: the rates are the schedule's, and a stop changes none of them. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { learningRateSchedule, learningRateScheduleNames, takesWarmup } from "./schedules/mod.ts";
import { interruptAt, metricsOf, refuses, TinyFolder } from "./tiny_run.ts";

const scheduleOptions: Readonly<Record<string, FinetuneSettings["scheduleOptions"]>> = {
  cosine: { endRatio: 0.1 },
  cosine_with_restarts: { cycles: 2 },
  polynomial: { power: 2 },
  cyclic_linear: { cycleSteps: 5, endRatio: 0.2 },
  one_cycle: { pctStart: 0.5 },
};

/** Twelve steps with an evaluation, so a line of metrics, after every second one. */
const short = { epochs: 2, sparsity: 0, evalSteps: 2, maximumEvalSamples: 8, threads: 1 };

Deno.test("finetune follows every schedule, and goes on with it where it was stopped", async (test) => {
  await using folder = await TinyFolder.create();
  for (const name of learningRateScheduleNames) {
    await test.step(name, async () => {
      const settings = folder.settings({
        ...short,
        learningRateSchedule: name,
        scheduleOptions: scheduleOptions[name],
        warmupSteps: takesWarmup(name) ? 3 : undefined,
        out: folder.at(name),
      });
      await interruptAt(settings, 7);
      const { out, steps } = await finetune({ ...settings, resume: true });
      const schedule = learningRateSchedule(name, {
        ...scheduleOptions[name],
        totalSteps: steps,
        warmupSteps: settings.warmupSteps,
      });
      const lines = metricsOf(out);
      assert.deepEqual(lines.map(({ step }) => step), [2, 4, 6, 8, 10, 12]);
      for (const { step, learning_rate } of lines) {
        assert.equal(learning_rate, 1e-2 * schedule.factor(Number(step) - 1), `after step ${step}`);
      }
    });
  }
});

Deno.test("one_cycle moves β₁ and the momentum: a cycle that stands still is the constant, another is not", async () => {
  await using folder = await TinyFolder.create();
  const weightsOf = async (changes: Partial<FinetuneSettings>) => {
    const settings = folder.settings({
      ...short,
      evalSteps: 0,
      learningRateSchedule: "one_cycle",
      ...changes,
    });
    const { out } = await finetune({ ...settings, overwrite: true });
    return folder.snapshot(out).get("model.safetensors");
  };
  const kinds: Partial<FinetuneSettings>[] = [
    { optimizer: "adamw", optimizerOptions: { beta1: 0.8 } },
    { optimizer: "sgd", optimizerOptions: { momentum: 0.8 } },
  ];
  for (const kind of kinds) {
    const constant = await weightsOf({ ...kind, scheduleOptions: { cycleMomentum: false } });
    const cycled = (baseMomentum: number) =>
      weightsOf({ ...kind, scheduleOptions: { baseMomentum, maxMomentum: 0.8 } });
    assert.equal(await cycled(0.8), constant);
    assert.notEqual(await cycled(0.7), constant);
  }
});

Deno.test("finetune refuses schedules that make no sense with one line", async () => {
  await using folder = await TinyFolder.create();
  const cases: [Partial<FinetuneSettings>, string | RegExp][] = [
    [
      { learningRateSchedule: "sine" },
      /^Unknown learning-rate schedule sine: wanted one of constant, constant_with_warmup, linear, /,
    ],
    [
      { learningRateSchedule: "constant", warmupSteps: 2 },
      /constant takes no warm-up and 2 steps were asked/,
    ],
    [{ warmupSteps: 25 }, /warmupSteps is 25.*no more than the 24 steps there are/],
    [{ warmupSteps: 2, warmupRatio: 0.1 }, /warmup_steps and warmup_ratio exclude each other/],
    [{ scheduleOptions: { power: 2 } }, /linear.*power is 2.*wanted none/],
    [
      { learningRateSchedule: "polynomial", scheduleOptions: { power: "high" as never } },
      /power is "high": wanted a positive number/,
    ],
    [
      { learningRateSchedule: "one_cycle", scheduleOptions: { pctStart: 2 } },
      /pct_start is 2: wanted a number in \[0, 1\]/,
    ],
    [{ scheduleOptions: { speed: 1 } as never }, /speed/],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});
