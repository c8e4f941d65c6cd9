/** Grids: what a file and its variables come to, and the one line for whatever is wrong with them. */
import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { flagArguments, type KnownFlags } from "./flags.ts";
import { flagsOf, type Grid, makeGrid } from "./grid.ts";
import { type GridVariables, parseGridFile } from "./grid_file.ts";

const text = `
name: optimizers-sst2
description: Which one learns best?
base:
  model: \${model}
  train: \${data}/SST-2/train.tsv.gz
  learning-rate: 2e-5
  warmup-ratio: 0.1
seeds: 3
baseline: AdamW
variants:
  AdamW:
  SGD: { optimizer: sgd, learning-rate: 0.01, momentum: 0.9, nesterov: true }
  one-cycle: { lr-scheduler-type: one_cycle, warmup-ratio: null, lr-scheduler-kwargs: { pctStart: 0.4 } }
  frozen: { freeze: [embeddings, "re:layer\\\\.0"], amsgrad: false }
controls: { of: AdamW, learning-rate: [0.5, 0.75] }
`;

const valued = [
  "model",
  "train",
  "learning-rate",
  "warmup-ratio",
  "optimizer",
  "momentum",
  "freeze",
  "lr-scheduler-type",
  "lr-scheduler-kwargs",
];
const switches = ["nesterov", "amsgrad"];
const knownFlags: KnownFlags = new Map(
  [...valued, ...switches].map((name) => [name, { takesValue: !switches.includes(name) }]),
);

const variables = { model: "bert-tiny", data: "glue" };

function gridOf(changed = text, values: GridVariables = variables): Grid {
  return makeGrid(parseGridFile(changed, "grid.yaml", values), { source: "grid.yaml", knownFlags });
}

Deno.test("a grid file gives variants with all their flags, controls after the variant they are made of", () => {
  const grid = gridOf();
  assert.deepEqual(
    [grid.name, grid.description, grid.baseline, grid.seeds],
    ["optimizers-sst2", "Which one learns best?", "AdamW", [1, 2, 3]],
  );
  const base = { model: "bert-tiny", train: "glue/SST-2/train.tsv.gz" };
  const rates = { "learning-rate": 2e-5, "warmup-ratio": 0.1 };
  assert.deepEqual(
    grid.variants.map((variant) => [variant.name, flagsOf(grid, variant), variant.controlOf]),
    [
      ["AdamW", { ...base, ...rates }, undefined],
      ["AdamW, rate × 0.5", { ...base, ...rates, "learning-rate": 1e-5 }, "AdamW"],
      ["AdamW, rate × 0.75", { ...base, ...rates, "learning-rate": 1.5e-5 }, "AdamW"],
      [
        "SGD",
        { ...base, ...rates, optimizer: "sgd", "learning-rate": 0.01, momentum: 0.9, nesterov: true },
        undefined,
      ],
      [
        "one-cycle",
        {
          ...base,
          "learning-rate": 2e-5,
          "lr-scheduler-type": "one_cycle",
          "lr-scheduler-kwargs": { pctStart: 0.4 },
        },
        undefined,
      ],
      ["frozen", { ...base, ...rates, freeze: ["embeddings", "re:layer\\.0"] }, undefined],
    ],
  );
});

Deno.test("combinations are variants with one of each", () => {
  const changed = text.replace(
    "controls:",
    `combinations:
  - { plain: {}, nesterov: { nesterov: true } }
  - 0.8: { momentum: 0.8 }
    0.9: { momentum: 0.9 }
controls:`,
  );
  const grid = gridOf(changed);
  assert.deepEqual(grid.variants.slice(6).map(({ name, flags }) => [name, flags]), [
    ["plain, 0.8", { momentum: 0.8 }],
    ["plain, 0.9", { momentum: 0.9 }],
    ["nesterov, 0.8", { nesterov: true, momentum: 0.8 }],
    ["nesterov, 0.9", { nesterov: true, momentum: 0.9 }],
  ]);
  assert.equal(gridOf(changed.replace("baseline: AdamW", "baseline: plain, 0.9")).baseline, "plain, 0.9");
  assert.throws(() => gridOf(text.replace("controls:", "combinations: 1\ncontrols:")), {
    message: "grid.yaml: combinations is 1: wanted a list of maps",
  });
});

Deno.test("flags become the arguments of a command", () => {
  assert.deepEqual(
    flagArguments({
      optimizer: "sgd",
      "learning-rate": 1e-7,
      nesterov: true,
      amsgrad: false,
      momentum: null,
      freeze: ["a", "b"],
      "lr-scheduler-kwargs": { pctStart: 0.4 },
    }),
    [
      "--optimizer=sgd",
      "--learning-rate=1e-7",
      "--nesterov",
      "--freeze=a,b",
      '--lr-scheduler-kwargs={"pctStart":0.4}',
    ],
  );
});

Deno.test("seeds are how many, or which", () => {
  assert.deepEqual(gridOf(text.replace("seeds: 3", "seeds: [7, 0, 42]")).seeds, [7, 0, 42]);
});

Deno.test("a grid that is wrong ends with one line that says where", () => {
  const known = [...knownFlags.keys()].join(", ");
  const cases: [from: string, to: string, message: string | RegExp][] = [
    [
      "name: optimizers-sst2",
      "name: ../up",
      'grid.yaml: name is "../up": wanted letters, digits, -, _ and .',
    ],
    ["name: optimizers-sst2", "", 'grid.yaml: name is "missing": wanted a text'],
    [
      "description:",
      "comment:",
      "grid.yaml has a key comment: wanted one of name, description, base, seeds, baseline, variants, combinations, controls",
    ],
    [
      "  warmup-ratio: 0.1",
      "  warm-up: 1",
      `grid.yaml: base: there is no flag warm-up: wanted one of ${known}`,
    ],
    [
      "optimizer: sgd",
      "optimiser: sgd",
      `grid.yaml: variant SGD: there is no flag optimiser: wanted one of ${known}`,
    ],
    ["nesterov: true", "nesterov: 1", "grid.yaml: variant SGD: nesterov is 1: wanted true or false"],
    ["momentum: 0.9", "momentum: true", "grid.yaml: variant SGD: momentum is true: wanted a value"],
    [
      "seeds: 3",
      "seeds: 0",
      "grid.yaml: seeds is 0: wanted how many, or a list of whole numbers that differ",
    ],
    [
      "seeds: 3",
      "seeds: [1, 1]",
      "grid.yaml: seeds is [1,1]: wanted how many, or a list of whole numbers that differ",
    ],
    ["seeds: 3", "seeds: [1, -1]", /^grid.yaml: seeds is \[1,-1\]: wanted/],
    ["seeds: 3", "seeds: many", 'grid.yaml: seeds is "many": wanted how many, or a list'],
    [
      "baseline: AdamW",
      "baseline: Adam",
      'grid.yaml: baseline is "Adam": wanted one of AdamW, SGD, one-cycle, frozen',
    ],
    [
      "of: AdamW",
      "of: Adam",
      'grid.yaml: controls of is "Adam": wanted one of AdamW, SGD, one-cycle, frozen',
    ],
    [
      "  learning-rate: 2e-5",
      "",
      'grid.yaml: controls of AdamW, whose learning-rate is "not set": wanted a number',
    ],
    ["[0.5, 0.75]", "[1]", "grid.yaml: a factor of the controls is 1: wanted a positive number other than 1"],
    [
      "[0.5, 0.75]",
      "[0.5, 0.5]",
      "grid.yaml: there are two variants AdamW, rate × 0.5: wanted names that differ",
    ],
    ["[0.5, 0.75]", "0.5", "grid.yaml: controls: learning-rate is 0.5: wanted a list of factors"],
    ["  AdamW:\n", "  AdamW: fast\n", 'grid.yaml: variant AdamW is "fast": wanted a map'],
    [
      /variants:[^]*frozen.*\n/.exec(text)![0],
      "variants: {}\n",
      "grid.yaml: there are no variants: wanted at least one",
    ],
    ["baseline: AdamW", "baseline: [", /^grid.yaml, line \d+, column \d+ is not valid YAML: .+$/],
    [
      "baseline: AdamW",
      "seeds: 4",
      /^grid.yaml, line 10, column 1 is not valid YAML: Map keys must be unique$/,
    ],
  ];
  for (const [from, to, message] of cases) {
    const changed = text.replace(from, () => to);
    assert.notEqual(changed, text);
    assert.throws(() => gridOf(changed), (error) => {
      assert.ok(error instanceof InputError, String(error));
      assert.ok(!error.message.includes("\n"));
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("a variable without a value, and a value without a variable, end with one line", () => {
  assert.throws(() => gridOf(text, { model: "bert-tiny" }), {
    name: "InputError",
    message: "grid.yaml uses ${data}, which has no value: wanted --set data=VALUE",
  });
  assert.throws(() => gridOf(text, { ...variables, size: "8" }), {
    name: "InputError",
    message: "--set size=8: grid.yaml has no ${size}: wanted one of model, data",
  });
  assert.throws(() => gridOf(text.replace("${model}", "${constructor}"), { data: "glue" }), {
    message: "grid.yaml uses ${constructor}, which has no value: wanted --set constructor=VALUE",
  });
});
