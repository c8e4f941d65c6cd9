import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import type { Modifier } from "./modifiers.ts";
import { parseRecipe } from "./parse.ts";
import { writeRecipe } from "./write.ts";

const parse = (text: string, recipeArgs?: string) => parseRecipe(text, { source: "r.yaml", recipeArgs });

/** Without places, which differ between a recipe and its print. */
const fieldsOf = (modifiers: readonly Modifier[]) => modifiers.map(({ place: _, ...fields }) => fields);

const legacy = `
num_epochs: &epochs 30
targets: [re:.*query.weight, "re:.*key.weight"]
final: eval(start + 0.2)      # refers to what comes later
start: 0.7

modifiers:
  - !EpochRangeModifier
    start_epoch: 0
    end_epoch: *epochs
pruning_modifiers:
  - !OBSPruningModifier
      params: eval(targets)
      init_sparsity: eval(start)
      final_sparsity: eval(final)
      start_epoch: eval(num_epochs * 2 / 30)
      end_epoch: 26
      update_frequency: 4.0
      leave_enabled: True
      damp: 1e-7
distillation_modifiers:
  - !DistillationModifier
     hardness: 1.0
  - !ConstantPruningModifier {params: __ALL_PRUNABLE__}
`;

Deno.test("parseRecipe reads SparseML's form: variables, aliases, several lists, tags on maps", () => {
  const { variables, modifiers } = parse(legacy);
  assert.equal(variables.get("num_epochs"), 30);
  assert.equal(variables.get("final"), 0.7 + 0.2);
  assert.deepEqual(modifiers, [
    {
      modifier: "EpochRangeModifier",
      place: "r.yaml, line 8: EpochRangeModifier",
      start_epoch: 0,
      end_epoch: 30,
    },
    {
      modifier: "OBSPruningModifier",
      place: "r.yaml, line 12: OBSPruningModifier",
      start_epoch: 2,
      end_epoch: 26,
      update_frequency: 4,
      init_sparsity: 0.7,
      final_sparsity: 0.7 + 0.2,
      params: ["re:.*query.weight", "re:.*key.weight"],
      leave_enabled: true,
      inter_func: "cubic",
      mask_type: "unstructured",
      global_sparsity: true,
      num_grads: 1024,
      damp: 1e-7,
      fisher_block_size: 50,
      num_recomputations: 1,
    },
    {
      modifier: "DistillationModifier",
      place: "r.yaml, line 22: DistillationModifier",
      hardness: 1,
      temperature: 2,
    },
    {
      modifier: "ConstantPruningModifier",
      place: "r.yaml, line 24: ConstantPruningModifier",
      params: ["__ALL_PRUNABLE__"],
    },
  ]);
});

Deno.test("parseRecipe takes variables from --recipe-args, before anything is evaluated", () => {
  const { variables, modifiers } = parse(
    legacy,
    `{"start": 0.5, "targets": "re:.*", "num_epochs": "eval(10 * 3)"}`,
  );
  assert.equal(variables.get("final"), 0.7);
  assert.deepEqual(
    modifiers.flatMap((each) =>
      each.modifier === "OBSPruningModifier" ? [each.init_sparsity, each.params] : []
    ),
    [0.5, ["re:.*"]],
  );
  const cases: [string, string][] = [
    [
      `{"sparsity": 1}`,
      "--recipe-args: the recipe has no variable sparsity: wanted one of num_epochs, targets, final, start",
    ],
    [`[1]`, "--recipe-args is [1]: wanted a JSON object of variables"],
    [`{"start": 1`, `--recipe-args is not valid JSON: line 1, column 12: found the end, wanted "," or "}"`],
  ];
  for (const [json, message] of cases) assert.throws(() => parse(legacy, json), new InputError(message));
});

Deno.test("parseRecipe finds the recipe of a Markdown file between two lines ---, with the lines of the file", () => {
  const text =
    "<!--\nnotes: [\n-->\n---\nmodifiers:\n  - !EpochRangeModifier\n    end_epoch: 3\n---\n# Title: {\n";
  const [modifier] = parseRecipe(text, { source: "r.md" }).modifiers;
  assert.equal(modifier.place, "r.md, line 6: EpochRangeModifier");
  assert.throws(
    () => parseRecipe("# Title\n---\n", { source: "r.md" }),
    new InputError("r.md has no front matter: wanted the recipe between two lines ---"),
  );
});

Deno.test("what writeRecipe prints is read as the same modifiers", () => {
  const everything = legacy + `
more_modifiers:
  - !MagnitudePruningModifier
    params: []
    init_sparsity: __FROM_PARAM__
    final_sparsity: {0.8: [re:.*query.weight], "0.9": bert.encoder.layer.0.output.dense, eval(start): [a, b]}
    start_fraction: 0.1
    end_step: 1000
    updates: 10
    mask_type: [8, 2]
    inter_func: polynomial
    exponent: 2
  - !LearningRateScheduleModifier {schedule: one_cycle, learning_rate: 5e-5, three_phase: true, anneal_strategy: cos}
  - !OptimizerModifier {optimizer: sgd, momentum: 0.9, nesterov: true}
  - !OBSPruningModifier {init_sparsity: 0, final_sparsity: 0.5, grad_sampler_kwargs: {batch_size: 16}, params: "re:[a'\\"#: ]+"}
`;
  const { modifiers } = parse(everything);
  const text = writeRecipe(modifiers);
  assert.deepEqual(fieldsOf(parse(text).modifiers), fieldsOf(modifiers));
  assert.equal(writeRecipe(parse(text).modifiers), text);
  assert.deepEqual(parse(writeRecipe([])).modifiers, []);
});

/** A recipe of one modifier, whose fields begin on line 3. */
const one = (name: string, ...fields: string[]) =>
  [`modifiers:`, `  - !${name}`, ...fields.map((field) => `    ${field}`)].join("\n");

const gradual = (...fields: string[]) =>
  one("GMPruningModifier", "init_sparsity: 0", "final_sparsity: 0.9", ...fields);

Deno.test("parseRecipe refuses with one line: where, what was found, what was wanted", () => {
  const cases: [string, string][] = [
    [
      "a: [1",
      "r.yaml, line 1, column 6 is not valid YAML: Flow sequence in block collection must be sufficiently indented and end with a ]",
    ],
    ["a: 1\na: 2", "r.yaml, line 2, column 1 is not valid YAML: Map keys must be unique"],
    ["- 1", "r.yaml is no recipe: wanted a map of variables and modifiers"],
    ["", "r.yaml is no recipe: wanted a map of variables and modifiers"],
    [
      "a: !!js/function x",
      "r.yaml, line 1 has the tag tag:yaml.org,2002:js/function: wanted tags on the items of modifier lists alone",
    ],
    ["a: 1\n---\nb: 2", "r.yaml, line 2, column 1 is not valid YAML: a second document begins"],
    ["? [a]\n: 1", "r.yaml, line 1 has a key that is no name: wanted a name"],
    [
      "a: *b",
      "r.yaml, line 1: there is no anchor &b",
    ],
    [
      "a: eval(b)\nb: eval(c + 1)\nc: eval(a)",
      "r.yaml, line 1: a: variables refer to each other in a circle: a → b → c → a",
    ],
    ["a: eval(d)\nb: 1", "r.yaml, line 1: a: there is no variable d: wanted one of a, b"],
    ["a: x\nb: eval(a + 1)", `r.yaml, line 2: b: eval(a + 1) needs a, which is "x": wanted a number`],
    [
      "modifiers: 3",
      `r.yaml, line 1: modifiers is no list: wanted "- !Modifier" items; stages and newer recipes are not supported`,
    ],
    [
      "modifiers:\n  - end_epoch: 3",
      "r.yaml, line 2 has no tag: wanted !, a modifier's name, and a line each for its fields",
    ],
    [
      "modifiers:\n  - !EpochRangeModifier 3",
      `r.yaml, line 2: !EpochRangeModifier has no map of fields: wanted "field: value" lines`,
    ],
    [
      one("EpochRangeModifier", "end_epoch: 1.5"),
      "r.yaml, line 3: EpochRangeModifier: end_epoch is 1.5: wanted a whole number of at least 1",
    ],
    [
      one("EpochRangeModifier"),
      "r.yaml, line 2: EpochRangeModifier has no end_epoch: wanted a whole number of at least 1",
    ],
    [
      one("DistillationModifier", "hardness: 1.5"),
      "r.yaml, line 3: DistillationModifier: hardness is 1.5: wanted a number in [0, 1]",
    ],
    [
      one("DistillationModifier", "temperature: 0"),
      "r.yaml, line 3: DistillationModifier: temperature is 0: wanted a positive number",
    ],
    [
      one("DistillationModifier", "distill_output_keys: [0]"),
      "r.yaml, line 3: DistillationModifier has a field distill_output_keys: wanted one of start_epoch, start_fraction, " +
      "start_step, end_epoch, end_fraction, end_step, hardness, temperature, teacher",
    ],
    [
      gradual("mask_type: 9:4"),
      'r.yaml, line 5: GMPruningModifier: mask_type is "9:4": wanted unstructured, 4x1, 1x4 (block4), ' +
      "[outputs,inputs] of a block such as [8,1], or N:M such as 2:4 (tensorrt) with N < M ≤ 32",
    ],
    [
      gradual("mask_type: 2:4"),
      "r.yaml, line 2: GMPruningModifier: final_sparsity is 0.9: wanted 0.5 for mask_type 2:4",
    ],
    [
      gradual("leave_enabled: false"),
      "r.yaml, line 2: GMPruningModifier: leave_enabled is false: wanted true: what is pruned stays pruned here",
    ],
    [
      gradual("start_epoch: 3", "end_epoch: 2"),
      "r.yaml, line 2: GMPruningModifier: end_epoch is 2: wanted at least start_epoch, 3",
    ],
    [
      gradual("start_epoch: 3", "start_step: 2"),
      "r.yaml, line 2: GMPruningModifier: start_epoch and start_step exclude each other: wanted one of start_epoch, " +
      "start_fraction, start_step",
    ],
    [
      gradual('params: ["re:("]'),
      `r.yaml, line 5: GMPruningModifier: params is ["re:("]: wanted a name, re: and a regular expression, or ` +
      "__ALL_PRUNABLE__; or a list of these",
    ],
    [
      gradual("start_epoch: two"),
      `r.yaml, line 5: GMPruningModifier: start_epoch is "two": wanted a number of epochs, or ` +
      "-1 for the begin or the end of the run",
    ],
    [
      one("GMPruningModifier", "init_sparsity: 0.9", "final_sparsity: 0.5"),
      "r.yaml, line 2: GMPruningModifier: init_sparsity is 0.9: wanted at most final_sparsity, 0.5",
    ],
    [
      one("GMPruningModifier", "init_sparsity: 0", "final_sparsity: {0.5: [a]}", "params: b"),
      `r.yaml, line 2: GMPruningModifier: params is ["b"]: wanted [], since final_sparsity names the parameters`,
    ],
    [
      one("GMPruningModifier", "init_sparsity: 0", "final_sparsity: {1.5: [a]}"),
      `r.yaml, line 4: GMPruningModifier: final_sparsity is {"1.5":["a"]}: wanted a number in [0, 1), or a map from such ` +
      "numbers to params",
    ],
    [
      one("LearningRateFunctionModifier", "lr_func: cyclic_linear", "init_lr: 1e-4", "final_lr: 0"),
      "r.yaml, line 2: LearningRateFunctionModifier: cyclic_linear has no cycle_epochs: wanted the length of a cycle in epochs",
    ],
    [
      one("SetLearningRateModifier", "learning_rate: .nan"),
      "r.yaml, line 3: SetLearningRateModifier: learning_rate is NaN: wanted a number of at least 0",
    ],
    [
      one("OBSPruningModifier", "init_sparsity: 0", "final_sparsity: 0.9", "mask_type: [8, 8]"),
      "r.yaml, line 2: OBSPruningModifier: fisher_block_size is 50: wanted at least 64 for mask_type [8,8]",
    ],
  ];
  for (const [text, message] of cases) assert.throws(() => parse(text), new InputError(message));
});

Deno.test("parseRecipe lists the known modifiers for an unknown one, and reads no prototype", () => {
  assert.throws(
    () => parse(one("QuantizationModifier", "start_epoch: 3")),
    /^InputError: r\.yaml, line 2: there is no modifier QuantizationModifier: wanted one of EpochRangeModifier, .*DistillationModifier$/,
  );
  assert.throws(() => parse(one("toString")), /there is no modifier toString/);
  assert.throws(
    () => parse(one("EpochRangeModifier", "end_epoch: 1", "constructor: 1")),
    /has a field constructor: wanted/,
  );
  assert.throws(
    () => parse(one("EpochRangeModifier", "end_epoch: 1", "__proto__: 1")),
    /has a field __proto__: wanted/,
  );
});

Deno.test("parseRecipe does not expand aliases without end", () => {
  const levels = Array.from(
    { length: 30 },
    (_, level) => `v${level + 1}: &v${level + 1} [*v${level}, *v${level}]`,
  );
  assert.throws(
    () => parse(["v0: &v0 [1, 1]", ...levels].join("\n")),
    new InputError("r.yaml holds too much: wanted at most 10000 values, 100 deep, aliases followed"),
  );
  assert.throws(() => parse("a: &a [*a]"), /holds too much/);
  assert.throws(() => parse("a: " + "[".repeat(20_000)), /is not valid YAML/);
});
