/** Recipes and pruning settings that cannot be: one line that says where, and nothing on disk changes. */
import { type Changes, refuses, TinyFolder } from "./tiny_run.ts";

const gradual = "init_sparsity: 0, final_sparsity: 0.5";
const query = "bert.encoder.layer.0.attention.self.query";

/** Lists of modifiers, a line each, and what is said of them behind the path. */
const lists: readonly [list: readonly string[], message: string | RegExp][] = [
  [
    ["!PruneModifier {}"],
    /, line 2: there is no modifier PruneModifier: wanted one of EpochRangeModifier, .*, DistillationModifier$/,
  ],
  [
    [`!GMPruningModifier {${gradual}, sparsty: 1}`],
    /, line 2: GMPruningModifier has a field sparsty: wanted one of start_epoch, .*, mask_type, global_sparsity, score_type$/,
  ],
  [
    ['!GMPruningModifier {init_sparsity: 0, final_sparsity: "half"}'],
    ', line 2: GMPruningModifier: final_sparsity is "half": wanted a number in [0, 1), or a map from such numbers to params',
  ],
  [
    [`!GMPruningModifier {${gradual}, leave_enabled: 1}`],
    ", line 2: GMPruningModifier: leave_enabled is 1: wanted true or false",
  ],
  [
    [`!GMPruningModifier {${gradual}, params: 7}`],
    ", line 2: GMPruningModifier: params is 7: wanted a name, re: and a regular expression, or __ALL_PRUNABLE__; or a list of these",
  ],
  [
    ["!GMPruningModifier {init_sparsity: 0.6, final_sparsity: 0.5}"],
    ", line 2: GMPruningModifier: init_sparsity is 0.6: wanted at most final_sparsity, 0.5",
  ],
  [
    [
      `!GMPruningModifier {${gradual}, end_epoch: 1}`,
      "!GMPruningModifier {init_sparsity: 0.3, final_sparsity: 0.9, start_epoch: 2, end_epoch: 3}",
    ],
    /, line 3: GMPruningModifier: init_sparsity is 0.3 where .*, line 2: GMPruningModifier leaves bert.* at 0.5: wanted at least 0.5$/,
  ],
  [
    [
      `!GMPruningModifier {${gradual}, start_epoch: 0, end_epoch: 2}`,
      `!OBSPruningModifier {${gradual}, start_epoch: 1, end_epoch: 3, params: ["re:.*query"]}`,
    ],
    new RegExp(
      `, line 3: OBSPruningModifier: it prunes ${query}.weight from step 6, and .*, line 2: GMPruningModifier until ` +
        "step 12: wanted one modifier at a time$",
    ),
  ],
  [
    [`!GMPruningModifier {${gradual}, start_epoch: 2, end_epoch: 1}`],
    ", line 2: GMPruningModifier: end_epoch is 1: wanted at least start_epoch, 2",
  ],
  [
    [`!GMPruningModifier {${gradual}, end_epoch: 9}`],
    /, line 2: GMPruningModifier: end_epoch is 9: wanted .*4/,
  ],
  [
    [`!GMPruningModifier {${gradual}, start_step: 99}`],
    /, line 2: GMPruningModifier: start_step is 99: wanted .*24/,
  ],
  [
    [`!GMPruningModifier {${gradual}, mask_type: [3, 1]}`],
    /^.*bert.encoder.layer.0.*weight \[\d+, \d+\] in the pattern \[3,1\]: wanted outputs in multiples of 3$/,
  ],
  [
    [`!GMPruningModifier {${gradual}, mask_type: 3by1}`],
    /, line 2: GMPruningModifier: mask_type is "3by1": wanted unstructured, /,
  ],
  [
    [`!GMPruningModifier {${gradual}, params: ["re:.*decoder"]}`],
    /, line 2: GMPruningModifier: Pruning target re:.\*decoder matches no weight: wanted one of bert\./,
  ],
  [
    ["!ConstantPruningModifier {}"],
    "Pruning method constant finds no zero among the 4096 weights of its targets: wanted a pruned model",
  ],
  [
    ["!DistillationModifier {}"],
    ", line 2: DistillationModifier: it has no teacher: wanted teacher: dense, a model folder, or --teacher",
  ],
  [
    ["!EpochRangeModifier {end_epoch: 2}", "!EpochRangeModifier {end_epoch: 3}"],
    /, line 3: EpochRangeModifier: .*, line 2: EpochRangeModifier is there before it: wanted one EpochRangeModifier$/,
  ],
  [
    ["!OptimizerModifier {optimizer: metaadamw, meta_options: {heads: 0}}"],
    ", line 2: OptimizerModifier: MetaAdamW's heads is 0: wanted a whole number of at least 1",
  ],
  [
    [`!MovementPruningModifier {${gradual}, soft: true, mask_type: "2:4"}`],
    ", line 2: MovementPruningModifier: mask_type is 2:4 and soft is true: wanted single weights or blocks",
  ],
  [["!MovementPruningModifier {init_sparsity: 0.2, final_sparsity: 0.5}"], tooEarly(0.2, 0)],
  [
    [
      `!MovementPruningModifier {${gradual}, end_epoch: 2, params: ["re:.*query"]}`,
      `!MovementPruningModifier {${gradual}, start_epoch: 1, params: ["re:.*key"], soft: true}`,
    ],
    new RegExp(
      ", line 3: MovementPruningModifier: it trains scores from step 6, and .*, line 2: MovementPruningModifier until step 12: " +
        "wanted movement to one sparsity at a time$",
    ),
  ],
  [
    ['!MovementPruningModifier {init_sparsity: 0, final_sparsity: {0.5: ["re:.*key"], 0.7: ["re:.*query"]}}'],
    /, line 2: MovementPruningModifier: it trains scores from step 0, and .* until step 23: wanted movement to one /,
  ],
  [[`!MovementPruningModifier {${gradual}, inter_func: one-shot}`], tooEarly(0.5, 0)],
  [[`!MovementPruningModifier {${gradual}, start_epoch: 1, end_epoch: 1}`], tooEarly(0.5, 6)],
  [[`!GMPruningModifier {${gradual}, score_type: movement, start_epoch: 4}`], tooEarly(0.5, 23)],
];

function tooEarly(sparsity: number, step: number): RegExp {
  return new RegExp(
    `, line 2: \\w+: it prunes to ${sparsity} at its first refresh, step ${step}, when movement has trained no scores: ` +
      "wanted a ramp from init_sparsity 0 to a later end$",
  );
}

Deno.test("finetune refuses recipes that cannot be, with their line", async () => {
  await using folder = await TinyFolder.create();
  for (const [list, message] of lists) {
    const recipe = await folder.write(
      "r.yaml",
      `modifiers:\n${list.map((each) => `  - ${each}\n`).join("")}`,
    );
    const isWhere = typeof message === "string" && message.startsWith(",");
    await refuses(folder, { recipe }, isWhere ? `/r.yaml${message}` : message);
  }
});

Deno.test("finetune refuses files that are no recipe, and arguments that are none of its variables", async () => {
  await using folder = await TinyFolder.create();
  const recipe = await folder.write(
    "r.yaml",
    "level: 0.5\nmodifiers:\n  - !SetWeightDecayModifier {weight_decay: 0}\n",
  );
  const files: Record<string, [content: string, message: string | RegExp]> = {
    "tabs.yaml": [
      "modifiers:\n\t- !EpochRangeModifier {}\n",
      /^\/tabs.yaml, line 2, column 1 is not valid YAML: /,
    ],
    "open.yaml": ["modifiers: [\n", /^\/open.yaml, line 2, column 1 is not valid YAML: /],
    "text.yaml": ["prune it", "/text.yaml is no recipe: wanted a map of variables and modifiers"],
    "stages.yaml": [
      "run_modifiers:\n  pruning: []\n",
      /^\/stages.yaml, line 2: run_modifiers is no list: wanted /,
    ],
    "plain.md": ["# A recipe\n", "/plain.md has no front matter: wanted the recipe between two lines ---"],
    "sum.yaml": [
      "modifiers:\n  - !EpochRangeModifier {end_epoch: eval(epochs * 2)}\n",
      /^\/sum.yaml, line 2: EpochRangeModifier: end_epoch.*epochs/,
    ],
  };
  for (const [name, [content, message]] of Object.entries(files)) {
    await refuses(folder, { recipe: await folder.write(name, content) }, message);
  }
  const missing = folder.at("none.yaml");
  await refuses(folder, { recipe: missing }, "--recipe is /none.yaml: wanted a recipe file, .yaml or .md");
  await refuses(folder, { recipe: folder.path }, /^--recipe is : wanted a recipe file/);
  const recipeArguments = (json: string, message: string) =>
    refuses(folder, { recipe, recipeArguments: json }, `--recipe-args${message}`);
  await recipeArguments("level=1", ' is not valid JSON: line 1, column 1: found "l", wanted a value');
  await recipeArguments(
    '{"level": 1',
    ' is not valid JSON: line 1, column 12: found the end, wanted "," or "}"',
  );
  await recipeArguments("[0.5]", " is [0.5]: wanted a JSON object of variables");
  await recipeArguments('{"levle": 1}', ": the recipe has no variable levle: wanted one of level");
  await refuses(folder, { recipeArguments: "{}" }, "--recipe-args is {}: wanted --recipe with it");
});

Deno.test("finetune refuses settings that the recipe beside them overrules", async () => {
  await using folder = await TinyFolder.create();
  const recipe = await folder.write(
    "r.yaml",
    "modifiers:\n  - !OptimizerModifier {optimizer: metaadamw}\n  - !SetLearningRateModifier {learning_rate: 1}\n",
  );
  const cases: [Changes, string][] = [
    [{ metaMode: "paper" }, "--meta-mode is paper, and /r.yaml says all about the optimizer"],
    [{ warmupSteps: 2 }, "--warmup-steps is 2, and /r.yaml says all about the learning rate"],
    [
      { pruningOptions: { gradients: 4 } },
      '--pruning-options is {"gradients":4}, and /r.yaml says all about the pruning',
    ],
    [{ teacher: "dense" }, "--teacher is dense, and /r.yaml says all about the distillation"],
  ];
  for (const [changes, message] of cases) {
    await refuses(folder, { recipe, ...changes }, `${message}: wanted it in the recipe or in --recipe-args`);
  }
});
