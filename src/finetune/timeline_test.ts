import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { pruningSchedule } from "../pruning/schedule.ts";
import { modifiersOfFlags } from "../recipes/flags.ts";
import { parseRecipe } from "../recipes/parse.ts";
import { metaOptions } from "./meta/options.ts";
import { epochsAskedFor, optimizerAskedFor, timelineOf, type TimelineRun } from "./timeline.ts";

const epochsOf = (epochs: number, steps: number) =>
  Array.from({ length: epochs + 1 }, (_, epoch) => steps * epoch);

/** 30 epochs of 10 steps. */
const run: TimelineRun = {
  epochBegins: epochsOf(30, 10),
  prunable: [{ name: "encoder.layer.0.output.dense.weight", weights: 4, zeros: 0, sparsity: 0 }],
  learningRate: 1e-3,
  weightDecay: 0.1,
};

const modifiersOf = (list: string) => parseRecipe(`modifiers:\n${list}`, { source: "r.yaml" }).modifiers;
const timeline = (list: string, changes: Partial<TimelineRun> = {}) =>
  timelineOf(modifiersOf(list), { ...run, ...changes });

Deno.test("flags give the steps, sparsities and rates that they gave before there were modifiers", () => {
  const settings = fc.record({
    totalSteps: fc.integer({ min: 1, max: 400 }),
    places: fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
    refreshes: fc.integer({ min: 1, max: 50 }),
    sparsity: fc.double({ min: 0.01, max: 0.99, noNaN: true }),
    peak: fc.double({ min: 1e-6, max: 1, noNaN: true }),
    warmupRatio: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(fc.property(settings, ({ totalSteps, places, refreshes, sparsity, peak, warmupRatio }) => {
    const [from, to] = places.toSorted((a, b) => a - b);
    const modifiers = modifiersOfFlags({
      learningRate: { schedule: "linear", peak, options: { warmupRatio } },
      weightDecay: 0.01,
      pruning: {
        method: "magnitude",
        sparsity,
        pattern: "4x1",
        scope: "layer",
        begin: from,
        end: to,
        refreshes,
      },
    });
    const { rateAt, weightDecayAt, pruning: [{ schedule }] } = timelineOf(modifiers, {
      ...run,
      epochBegins: [0, totalSteps],
    });
    const begin = Math.min(totalSteps - 1, Math.round(from * totalSteps));
    const end = Math.min(totalSteps - 1, Math.round(to * totalSteps));
    const wanted = pruningSchedule("cubic", {
      initialSparsity: 0,
      finalSparsity: sparsity,
      begin,
      end,
      every: Math.max(1, Math.ceil((end - begin) / refreshes)),
    });
    const warmup = Math.ceil(totalSteps * warmupRatio);
    for (let step = 0; step < totalSteps; step++) {
      assert.equal(schedule.refreshes(step), wanted.refreshes(step));
      assert.equal(schedule.sparsity(step), wanted.sparsity(step));
      const factor = step < warmup ? step / warmup : (totalSteps - step) / (totalSteps - warmup);
      assert.deepEqual(rateAt(step), { learningRate: peak * factor });
      assert.equal(weightDecayAt(step), 0.01);
    }
  }));
});

const function_ = (fields: string) => `  - !LearningRateFunctionModifier {${fields}}\n`;

Deno.test("oBERT's rates: a ramp of two epochs, then one of four again and again, each to the end", () => {
  const { rateAt } = timeline(
    function_("lr_func: linear, init_lr: 8e-5, final_lr: 8e-6, start_epoch: 0, end_epoch: 2") +
      function_(
        "lr_func: cyclic_linear, init_lr: 8e-5, final_lr: 8e-6, cycle_epochs: 4, start_epoch: 2, end_epoch: 30",
      ),
  );
  const rate = (step: number) => Number((rateAt(step).learningRate * 1e6).toFixed(9));
  assert.equal(rate(0), 80);
  assert.equal(rate(10), 44);
  for (let cycle = 0; cycle < 7; cycle++) {
    assert.equal(rate(20 + 40 * cycle), 80);
    assert.equal(rate(20 + 40 * cycle + 13), 56);
    assert.equal(rate(20 + 40 * cycle + 39), 8);
  }
});

Deno.test("functions reach their end, keep it until the next modifier, and may rise", () => {
  const { rateAt } = timeline(
    function_("lr_func: cosine, init_lr: 0, final_lr: 1, start_epoch: 1, end_epoch: 3") +
      "  - !SetLearningRateModifier {learning_rate: 0.25, start_epoch: 5}\n",
  );
  const rate = (step: number) => Number(rateAt(step).learningRate.toFixed(9));
  assert.deepEqual([0, 9].map(rate), [1e-3, 1e-3]);
  assert.deepEqual([10, 15, 20, 30, 49].map(rate), [0, 0.146446609, 0.5, 1, 1]);
  assert.deepEqual([50, 299].map(rate), [0.25, 0.25]);
});

Deno.test("a schedule over part of a run counts from its begin; one_cycle brings its momentum", () => {
  const { rateAt } = timeline(
    "  - !LearningRateScheduleModifier {schedule: one_cycle, learning_rate: 1, start_epoch: 1, end_epoch: 2}\n",
  );
  const shown = ({ learningRate, momentum }: { learningRate: number; momentum?: number }) => [
    Number(learningRate.toFixed(6)),
    momentum && Number(momentum.toFixed(6)),
  ];
  // PyTorch's OneCycleLR over 10 steps.
  assert.deepEqual(shown(rateAt(0)), [0.001, undefined]);
  assert.deepEqual(shown(rateAt(10)), [0.04, 0.95]);
  assert.deepEqual(shown(rateAt(12)), [1, 0.85]);
  assert.deepEqual(shown(rateAt(16)), [0.388742, 0.911126]);
  assert.deepEqual(shown(rateAt(19)), [4e-6, 0.95]);
  assert.deepEqual(rateAt(299), rateAt(19));
});

Deno.test("options of schedules arrive", () => {
  const { rateAt } = timeline(
    "  - !LearningRateScheduleModifier {schedule: cyclic_linear, learning_rate: 1, end_ratio: 0.5, cycle_epochs: 0.3}\n",
  );
  assert.deepEqual([0, 1, 2, 3].map((step) => rateAt(step).learningRate), [1, 0.75, 0.5, 1]);
  const polynomial = timeline(
    "  - !LearningRateScheduleModifier {schedule: polynomial, learning_rate: 1, power: 2, warmup_steps: 100}\n",
  );
  assert.deepEqual([50, 200].map((step) => polynomial.rateAt(step).learningRate), [0.5, 0.25]);
});

Deno.test("weight decay changes where it is set", () => {
  const { weightDecayAt } = timeline(
    "  - !SetWeightDecayModifier {weight_decay: 0, start_epoch: 20}\n" +
      "  - !SetWeightDecayModifier {weight_decay: 0.01, start_epoch: 2}\n",
  );
  assert.deepEqual([0, 19, 20, 199, 200].map(weightDecayAt), [0.1, 0.1, 0.01, 0.01, 0]);
});

const pruned = "  - !GMPruningModifier {init_sparsity: 0, final_sparsity: 0.9, start_epoch: 1}\n";

Deno.test("distillation has the recipe's teacher, the flags' before it, and none where that is disabled", () => {
  const list = "  - !DistillationModifier {hardness: 1, start_epoch: 2, teacher: dense}\n" +
    "  - !DistillationModifier {temperature: 5.5, end_epoch: 2, teacher: models/teacher}\n";
  assert.deepEqual(timeline(pruned + list).distillation, [
    { teacher: "models/teacher", hardness: 0.5, temperature: 5.5, begin: 0, end: 20 },
    { teacher: "dense", hardness: 1, temperature: 2, begin: 20, end: 300 },
  ]);
  assert.deepEqual(timeline(pruned + list, { teacher: "t" }).distillation.map(({ teacher }) => teacher), [
    "t",
    "t",
  ]);
  assert.deepEqual(timeline(list, { teacher: "disable" }).distillation, []);
});

Deno.test("the dense model teaches from where it is pruned", () => {
  const teaching = "  - !DistillationModifier {teacher: dense}\n";
  assert.deepEqual(timeline(pruned + teaching).distillation.map(({ begin, end }) => [begin, end]), [[
    10,
    300,
  ]]);
  assert.throws(
    () => timeline("  - !ConstantPruningModifier {}\n" + teaching),
    new InputError(
      "r.yaml, line 3: DistillationModifier: teacher is dense and nothing is pruned: wanted a model folder",
    ),
  );
  assert.throws(
    () => timeline(pruned + teaching.replace("dense", "dense, end_epoch: 1")),
    new InputError(
      "r.yaml, line 3: DistillationModifier: it ends at step 10 and its teacher is there from step 10: wanted a later end",
    ),
  );
});

Deno.test("length and optimiser are what the modifiers ask for", () => {
  const modifiers = modifiersOf(
    "  - !EpochRangeModifier {end_epoch: 30}\n  - !OptimizerModifier {optimizer: sgd, momentum: 0.9}\n",
  );
  assert.equal(epochsAskedFor(modifiers), 30);
  assert.deepEqual(optimizerAskedFor(modifiers), { name: "sgd", options: { momentum: 0.9 } });
  assert.equal(timelineOf(modifiers, run).totalSteps, 300);
  assert.deepEqual([epochsAskedFor([]), optimizerAskedFor([])], [undefined, undefined]);
});

Deno.test("MetaAdamW's mode and options are the recipe's to say, and checked where they stand", () => {
  const asked = (fields: string) => optimizerAskedFor(modifiersOf(`  - !OptimizerModifier {${fields}}\n`));
  assert.deepEqual(asked("optimizer: metaadamw")!.meta, metaOptions());
  assert.deepEqual(
    asked(
      "optimizer: metaadamw, beta1: 0.8, meta_mode: paper, meta_options: {priorities: [1, 2, 3], gating: true}",
    ),
    {
      name: "metaadamw",
      options: { beta1: 0.8 },
      meta: metaOptions("paper", { priorities: [1, 2, 3], gating: true }),
    },
  );
  const cases = {
    "optimizer: metaadamw, meta_mode: fast": 'MetaAdamW\'s mode is "fast": wanted sound, paper or frozen',
    "optimizer: metaadamw, meta_options: {heads: 0}":
      "MetaAdamW's heads is 0: wanted a whole number of at least 1",
    "optimizer: adamw, meta_mode: paper":
      "optimizer is adamw: wanted metaadamw, whose are meta_mode and meta_options",
    "optimizer: metaadamw, meta_options: 3": "meta_options is 3: wanted a map of options",
  };
  for (const [fields, message] of Object.entries(cases)) {
    assert.throws(() => asked(fields), new InputError(`r.yaml, line 2: OptimizerModifier: ${message}`));
  }
});

Deno.test("timelineOf refuses with one line that names the modifier", () => {
  const linear = function_("lr_func: linear, init_lr: 1, final_lr: 0, end_epoch: 5");
  const cases: [string, string][] = [
    [
      "  - !EpochRangeModifier {end_epoch: 8}\n",
      "r.yaml, line 2: EpochRangeModifier: end_epoch is 8: wanted 30, the epochs of the run",
    ],
    [
      linear + "  - !SetLearningRateModifier {learning_rate: 1, start_epoch: 4}\n",
      "r.yaml, line 3: SetLearningRateModifier: it sets the learning rate from step 40, and r.yaml, line 2: " +
      "LearningRateFunctionModifier until step 50: wanted one modifier at a time",
    ],
    [
      "  - !SetLearningRateModifier {learning_rate: 1}\n" + linear,
      "r.yaml, line 3: LearningRateFunctionModifier: it sets the learning rate from step 0, and r.yaml, line 2: " +
      "SetLearningRateModifier until step 0: wanted one modifier at a time",
    ],
    [
      function_("lr_func: linear, init_lr: 1, final_lr: 0, start_epoch: 5, end_fraction: 0.1"),
      "r.yaml, line 2: LearningRateFunctionModifier: it begins at step 50 and ends at step 30: wanted the end after the begin",
    ],
    [
      function_("lr_func: linear, init_lr: 1, final_lr: 0, start_epoch: 5, end_epoch: 5"),
      "r.yaml, line 2: LearningRateFunctionModifier: it begins and ends at step 50: wanted a step or more",
    ],
    [
      function_("lr_func: linear, init_lr: 1, final_lr: 0, end_epoch: 31"),
      "r.yaml, line 2: LearningRateFunctionModifier: end_epoch is 31: wanted at most 30, the epochs of the run",
    ],
    [
      "  - !LearningRateScheduleModifier {schedule: triangle, learning_rate: 1}\n",
      "r.yaml, line 2: LearningRateScheduleModifier: Unknown learning-rate schedule triangle: wanted one of constant, " +
      "constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial, cyclic_linear, one_cycle",
    ],
    [
      "  - !SetWeightDecayModifier {weight_decay: 0}\n  - !SetWeightDecayModifier {weight_decay: 1, start_epoch: 0}\n",
      "r.yaml, line 3: SetWeightDecayModifier: it and r.yaml, line 2: SetWeightDecayModifier set the weight decay at step 0: " +
      "wanted one modifier at a time",
    ],
    [
      "  - !DistillationModifier {}\n",
      "r.yaml, line 2: DistillationModifier: it has no teacher: wanted teacher: dense, a model folder, or --teacher",
    ],
    [
      "  - !DistillationModifier {teacher: t}\n  - !DistillationModifier {teacher: t, start_epoch: 3}\n",
      "r.yaml, line 3: DistillationModifier: it distils from step 30, and r.yaml, line 2: DistillationModifier until step " +
      "300: wanted one modifier at a time",
    ],
  ];
  for (const [list, message] of cases) assert.throws(() => timeline(list), new InputError(message));
  assert.throws(
    () => optimizerAskedFor(modifiersOf("  - !OptimizerModifier {optimizer: sgd, beta1: 0.9}\n")),
    /^InputError: r\.yaml, line 2: OptimizerModifier: beta1 is 0\.9: sgd has none, it takes momentum, dampening, nesterov$/,
  );
  assert.throws(
    () =>
      epochsAskedFor(
        modifiersOf("  - !EpochRangeModifier {end_epoch: 1}\n  - !EpochRangeModifier {end_epoch: 2}\n"),
      ),
    new InputError(
      "r.yaml, line 3: EpochRangeModifier: r.yaml, line 2: EpochRangeModifier is there before it: wanted one " +
        "EpochRangeModifier",
    ),
  );
});

Deno.test("every shipped recipe makes a timeline of short and long runs", () => {
  const folder = new URL("../../models/recipes/", import.meta.url);
  for (const { name } of Deno.readDirSync(folder)) {
    const text = Deno.readTextFileSync(new URL(name, folder));
    for (const [epochs, steps] of [[1, 20], [3, 7], [30, 1]]) {
      const recipeArgs = `{"num_epochs": ${epochs}}`;
      const { modifiers } = parseRecipe(text, { source: name, recipeArgs });
      const teacher = name === "sparse-transfer.yaml" ? "models/teacher" : undefined;
      const { totalSteps, rateAt } = timelineOf(modifiers, {
        ...run,
        epochBegins: epochsOf(epochs, steps),
        teacher,
      });
      assert.equal(totalSteps, epochs * steps);
      for (let step = 0; step < totalSteps; step++) {
        const { learningRate } = rateAt(step);
        assert.ok(learningRate >= 0 && learningRate <= 1.5e-4, `${name}: ${learningRate} at step ${step}`);
      }
    }
  }
});
