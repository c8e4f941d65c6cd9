import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { obertDefaults } from "../pruning/obert/options.ts";
import { type FlagSettings, modifiersOfFlags, overlay } from "./flags.ts";
import { parseRecipe } from "./parse.ts";
import { writeRecipe } from "./write.ts";

const pruning = {
  method: "magnitude",
  sparsity: 0.9,
  pattern: "4x1",
  scope: "global",
  begin: 0.3,
  end: 0.7,
  refreshes: 40,
} as const;

const flags: FlagSettings = {
  epochs: 3,
  learningRate: { schedule: "linear", peak: 5e-5, options: { warmupRatio: 0.06, endRatio: undefined } },
  weightDecay: 0.01,
  optimizer: { name: "adamw", constants: { beta1: 0.8, amsgrad: true } },
  pruning,
  distillation: { teacher: "dense", hardness: 0.5, temperature: 2 },
};

const fieldsOf = (flags: FlagSettings) =>
  modifiersOfFlags(flags).map((
    { place, ...fields },
  ) => (assert.match(place, /^the flags: \w+Modifier$/), fields));

Deno.test("modifiersOfFlags says in modifiers what flags say, defaults filled in", () => {
  assert.deepEqual(fieldsOf(flags), [
    { modifier: "EpochRangeModifier", start_epoch: 0, end_epoch: 3 },
    { modifier: "OptimizerModifier", optimizer: "adamw", beta1: 0.8, amsgrad: true },
    { modifier: "LearningRateScheduleModifier", schedule: "linear", learning_rate: 5e-5, warmup_ratio: 0.06 },
    { modifier: "SetWeightDecayModifier", weight_decay: 0.01 },
    {
      modifier: "GMPruningModifier",
      start_fraction: 0.3,
      end_fraction: 0.7,
      updates: 40,
      init_sparsity: 0,
      final_sparsity: 0.9,
      params: [],
      leave_enabled: true,
      inter_func: "cubic",
      mask_type: "4x1",
      global_sparsity: true,
      score_type: "magnitude",
    },
    { modifier: "DistillationModifier", hardness: 0.5, temperature: 2, teacher: "dense" },
  ]);
  assert.deepEqual(fieldsOf({}), []);
  assert.deepEqual(fieldsOf({ pruning: { ...pruning, sparsity: 0 } }), []);
});

Deno.test("what flags say can be printed as a recipe and read again", () => {
  const printed = writeRecipe(modifiersOfFlags(flags));
  const { modifiers } = parseRecipe(printed, { source: "printed" });
  assert.deepEqual(modifiers.map(({ place: _, ...fields }) => fields), fieldsOf(flags));
});

Deno.test("MetaAdamW's mode and options are printed and read again, values of every kind", () => {
  const metaOptions = {
    updateEvery: 7,
    gating: true,
    priorities: [1, 0.5, 2],
    fixed: { alpha: 1, beta: 0.5 },
  };
  const optimizer = {
    name: "metaadamw",
    metaMode: "paper",
    metaOptions: { ...metaOptions, lambda: undefined },
  };
  const [fields] = fieldsOf({ optimizer });
  assert.deepEqual(fields, {
    modifier: "OptimizerModifier",
    optimizer: "metaadamw",
    meta_mode: "paper",
    meta_options: { ...metaOptions, lambda: null },
  });
  const { modifiers: [{ place: _, ...read }] } = parseRecipe(writeRecipe(modifiersOfFlags({ optimizer })), {
    source: "printed",
  });
  assert.deepEqual(read, fields);
});

Deno.test("pruning methods have their modifiers and constants", () => {
  const modifier = (changes: Partial<NonNullable<FlagSettings["pruning"]>>) =>
    fieldsOf({ pruning: { ...pruning, ...changes } })[0] as Record<string, unknown>;
  const movement = modifier({ method: "movement", scoreLearningRate: 0.1, targets: ["re:.*query"] });
  assert.deepEqual(
    [movement.modifier, movement.score_learning_rate, movement.soft, movement.params],
    ["MovementPruningModifier", 0.1, false, ["re:.*query"]],
  );
  const soft = modifier({ method: "soft-movement", penalty: 400 });
  assert.deepEqual([soft.modifier, soft.soft, soft.penalty], ["MovementPruningModifier", true, 400]);
  const obert = modifier({
    method: "obert",
    gradients: 64,
    dampening: 1e-6,

    recomputations: 4,
  });
  assert.deepEqual(
    [obert.modifier, obert.num_grads, obert.damp, obert.fisher_block_size, obert.num_recomputations],
    ["OBSPruningModifier", 64, 1e-6, obertDefaults.blockSize, 4],
  );
  assert.deepEqual(modifier({ method: "constant", sparsity: 0 }), {
    modifier: "ConstantPruningModifier",
    params: [],
  });
});

Deno.test("modifiersOfFlags refuses constants of another method, and options that are none", () => {
  assert.throws(
    () => modifiersOfFlags({ pruning: { ...pruning, gradients: 64 } }),
    /^InputError: the flags: GMPruningModifier has a field num_grads: wanted one of /,
  );
  assert.throws(
    () => modifiersOfFlags({ learningRate: { schedule: "linear", peak: 1, options: { warmUp: 3 } } }),
    /^InputError: the flags: LearningRateScheduleModifier has a field warm_up: wanted one of /,
  );
  assert.throws(
    () => modifiersOfFlags({ distillation: { hardness: 2, temperature: 2 } }),
    new InputError("the flags: DistillationModifier: hardness is 2: wanted a number in [0, 1]"),
  );
});

Deno.test("overlay takes from the defaults what a recipe says nothing about", () => {
  const recipe = parseRecipe(
    "modifiers:\n  - !SetLearningRateModifier {learning_rate: 1}\n  - !ConstantPruningModifier {}\n",
    { source: "r.yaml" },
  ).modifiers;
  assert.deepEqual(overlay(modifiersOfFlags(flags), recipe).map(({ modifier }) => modifier), [
    "EpochRangeModifier",
    "OptimizerModifier",
    "SetWeightDecayModifier",
    "DistillationModifier",
    "SetLearningRateModifier",
    "ConstantPruningModifier",
  ]);
});
