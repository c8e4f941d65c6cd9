/** `deno task compare`: the grid a command line means, the runs it makes, the shipped grids, and one real comparison. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { flagsOf, type Grid } from "../compare/grid.ts";
import { planRuns } from "../compare/run_grid.ts";
import { exists } from "../core/files.ts";
import { checkSettings } from "../finetune/check_settings.ts";
import { metaOptions } from "../finetune/meta/options.ts";
import type { FinetuneResult } from "../finetune/mod.ts";
import { optimizerSettingsOf } from "../finetune/optimizer_options.ts";
import type { FinetuneSettings } from "../finetune/options.ts";
import { TinyFolder } from "../finetune/tiny_run.ts";
import { normaliseFlags } from "./command.ts";
import { describeProgress, finetuneRunner } from "./compare.ts";
import { compareCommand, gridOf, settingsOfFlags } from "./compare_flags.ts";
import { runTask } from "./start_task.ts";

function gridOfArgs(...args: string[]): Promise<Grid> {
  return gridOf(compareCommand().parse(normaliseFlags(args), { from: "user" }));
}

const flagsByVariant = (grid: Grid) =>
  Object.fromEntries(grid.variants.map((variant) => [variant.name, flagsOf(grid, variant)]));

Deno.test("--optimizers makes a grid; all other flags are those of every run", async () => {
  const grid = await gridOfArgs(
    ...["--optimizers", "adamw,sgd", "--train_file", "t.tsv", "--learning-rate", "1e-3", "--seeds", "2"],
    ...["--freeze", "a,b", "--lr-scheduler-kwargs", '{"power":2}', "--amsgrad", "--controls", "0.5"],
  );
  assert.deepEqual([grid.name, grid.baseline, grid.seeds], ["adamw-sgd", "adamw", [1, 2]]);
  const all = {
    train: "t.tsv",
    "learning-rate": 1e-3,
    freeze: ["a", "b"],
    "lr-scheduler-kwargs": { power: 2 },
    amsgrad: true,
  };
  assert.deepEqual(flagsByVariant(grid), {
    adamw: { ...all, optimizer: "adamw" },
    "adamw, rate × 0.5": { ...all, optimizer: "adamw", "learning-rate": 5e-4 },
    sgd: { ...all, optimizer: "sgd" },
  });
  const settings = settingsOfFlags(flagsOf(grid, grid.variants[1]), "adamw");
  assert.deepEqual(
    [
      settings.train,
      settings.learningRate,
      settings.freeze,
      settings.scheduleOptions,
      settings.optimizerOptions?.amsgrad,
    ],
    ["t.tsv", 5e-4, ["a", "b"], { power: 2 }, true],
  );
});

const gridText = `
name: two
base: { train: t.tsv, learning-rate: 0.01, epochs: 3 }
seeds: 4
baseline: adamw
variants: { adamw: {}, slow: { learning-rate: 0.001 } }
controls: { of: adamw, learning-rate: [2] }
`;

Deno.test("flags beside a grid file take the place of its base, and controls follow", async () => {
  await using folder = await TinyFolder.create();
  const file = await folder.write("grid.yaml", gridText);
  const grid = await gridOfArgs(file, "--learning-rate", "0.1", "--seeds", "1", "--baseline", "slow");
  assert.deepEqual([grid.baseline, grid.seeds], ["slow", [1]]);
  const all = { train: "t.tsv", epochs: 3 };
  assert.deepEqual(flagsByVariant(grid), {
    adamw: { ...all, "learning-rate": 0.1 },
    "adamw, rate × 2": { ...all, "learning-rate": 0.2 },
    slow: { ...all, "learning-rate": 0.001 },
  });
});

Deno.test("flags that do not go together end with one line", async () => {
  await using folder = await TinyFolder.create();
  const file = await folder.write("grid.yaml", gridText);
  const cases: [args: string[], message: string][] = [
    [[], "there is nothing to compare: wanted a grid file, or --optimizers and the flags of a run"],
    [
      [file, "--optimizers", "sgd"],
      `--optimizers is given with the grid file ${file}: wanted one of the two`,
    ],
    [[file, "--controls", "2"], `--controls is given with the grid file ${file}: wanted one of the two`],
    [
      ["--optimizers", "sgd", "--optimizer", "adam"],
      "--optimizer is given with --optimizers: wanted one of the two",
    ],
    [["--optimizers", "sgd", "--set", "a=b"], "--set a is given without a grid file: wanted none"],
    [["--optimizers", "sgd", "--set", "a"], "--set is a: wanted name=value"],
    [
      ["--optimizers", "sgd", "--seeds", "0"],
      "--optimizers: seeds is 0: wanted how many, or a list of whole numbers that differ",
    ],
    [["--optimizers", "sgd", "--baseline", "adam"], '--optimizers: baseline is "adam": wanted one of sgd'],
    [[file, "--set", "data=x"], `--set data=x: ${file} has no \${data}: wanted none`],
  ];
  for (const [args, message] of cases) {
    await assert.rejects(async () => await gridOfArgs(...args), { name: "InputError", message });
  }
  assert.throws(() => settingsOfFlags({ epochs: "many" }, "slow"), {
    name: "InputError",
    message: "variant slow: option '--epochs <n>' argument 'many' is invalid. wanted a number",
  });
});

/** What finetune gives, as far as a comparison reads it. */
function fakeResult({ learningRate, threads, out }: FinetuneSettings): FinetuneResult {
  const metrics = { accuracy: learningRate };
  const primary = { name: "accuracy", value: learningRate, higherIsBetter: true };
  const evaluation = { loss: 1, examples: 2, metrics, primary, completedSteps: 5, sparsity: 0.5 };
  const result = {
    evaluation,
    steps: 5,
    seconds: 1,
    threads,
    isa: "avx2",
    sparsity: { overall: 0.4, layers: [] },
    out,
  };
  return result as unknown as FinetuneResult;
}

Deno.test("a run is made with its seed, threads and folder, which goes afterwards unless it is kept", async () => {
  await using folder = await TinyFolder.create();
  await folder.write("grid.yaml", gridText.replace("t.tsv", `${folder.at("train.tsv")}, init: bert-tiny`));
  const [, planned] = await planRuns(await gridOfArgs(folder.at("grid.yaml"), "--seeds", "1"));
  for (const keep of [false, true]) {
    let settings: FinetuneSettings | undefined;
    const runner = finetuneRunner({ folder: folder.at("runs"), threads: 3, keep }, async (given) => {
      settings = given;
      await Deno.mkdir(given.out, { recursive: true });
      return fakeResult(given);
    });
    const outcome = await runner(planned);
    assert.deepEqual(
      [settings!.seed, settings!.threads, settings!.out, settings!.overwrite, settings!.learningRate],
      [1, 3, folder.at("runs", "adamw-rate-2-seed-1"), true, 0.02],
    );
    assert.deepEqual(
      [outcome.primary.value, outcome.sparsity, outcome.threads, outcome.steps],
      [0.02, 0.4, 3, 5],
    );
    assert.equal(await exists(settings!.out), keep);
  }
  const failing = finetuneRunner({ folder: folder.at("runs"), threads: 1, keep: false }, async ({ out }) => {
    await Deno.mkdir(out, { recursive: true });
    throw new Error("diverged");
  });
  await assert.rejects(failing(planned), /^Error: diverged$/);
  assert.equal(await exists(folder.at("runs", "adamw-rate-2-seed-1")), false);
});

Deno.test("a line of progress says what a run came to and what is left", () => {
  const run = { key: "k", variant: "adamw", seed: 3 };
  const primary = { name: "accuracy", value: 0.8125, higherIsBetter: true };
  const outcome = {
    steps: 1,
    seconds: 12,
    threads: 1,
    isa: "avx2",
    sparsity: 0,
    loss: 0.4321,
    metrics: {},
    primary,
  };
  assert.equal(
    describeProgress({ record: { ...run, ...outcome }, done: 7, total: 45, remainingSeconds: 500 }),
    "7/45  adamw, seed 3: accuracy 0.813, loss 0.432, 12 s; 8 min 20 s left",
  );
  assert.equal(
    describeProgress({
      record: { ...run, error: "NaN", isInput: false },
      done: 45,
      total: 45,
      remainingSeconds: 0,
    }),
    "45/45  adamw, seed 3: failed: NaN",
  );
});

const shipped = fileURLToPath(new URL("../../bench/compare", import.meta.url));

for (
  const name of [...Deno.readDirSync(shipped)].map(({ name }) => name).filter((name) =>
    name.endsWith(".yaml")
  ).sort()
) {
  Deno.test(`bench/compare/${name} is a grid whose variants finetune would take`, async () => {
    const text = await Deno.readTextFile(join(shipped, name));
    const variables = new Set(Array.from(text.matchAll(/\$\{(\w+)\}/g), ([, variable]) => variable));
    const set = Array.from(variables, (variable) => ["--set", `${variable}=somewhere`]).flat();
    const grid = await gridOfArgs(join(shipped, name), ...set);
    assert.equal(grid.name, name.replace(".yaml", ""));
    assert.ok(grid.description);
    for (const variant of grid.variants) {
      const flags = flagsOf(grid, variant);
      assert.ok(flags.train, variant.name);
      const settings = settingsOfFlags(flags, variant.name);
      checkSettings(settings);
      metaOptions(settings.metaMode, settings.metaOptions);
      optimizerSettingsOf(settings.optimizer, settings.optimizerOptions);
    }
    if (!name.startsWith("optimizers")) return;
    // What a claim has to stand up to: other rates of the baseline, a controller that learns nothing, one group.
    const names = grid.variants.map(({ name }) => name);
    for (const factor of [0.5, 0.75, 1.25, 1.5]) assert.ok(names.includes(`AdamW, rate × ${factor}`));
    for (const control of ["MetaAdamW frozen", "MetaAdamW G=1"]) assert.ok(names.includes(control), control);
    assert.ok(grid.seeds.length >= 5);
  });
}

Deno.test("a comparison runs, writes its reports, and a second time has nothing to do", async () => {
  await using folder = await TinyFolder.create();
  const { path: cwd } = folder;
  const args = [
    ...["--optimizers", "adamw,sgd", "--init", "config.json", "--train", "train.tsv", "--eval", "eval.tsv"],
    ...[
      "--max-length",
      "24",
      "--batch-size",
      "32",
      "--epochs",
      "1",
      "--sparsity",
      "0",
      "--learning-rate",
      "0.01",
    ],
    ...[
      "--seeds",
      "2",
      "--jobs",
      "2",
      "--out",
      "compared",
      "--markdown",
      "out.md",
      "--html",
      "out.html",
      "--json",
      "-",
    ],
  ];
  const first = await runTask("compare", args, { cwd });
  assert.equal(first.code, 0, first.errors.join("\n"));
  const result = JSON.parse(first.stdout);
  assert.deepEqual(
    result.variants.map(({ name, runs }: { name: string; runs: number }) => [name, runs]),
    [["adamw", 2], ["sgd", 2]],
    first.errors.join("\n"),
  );
  assert.equal(result.metric.name, "accuracy");
  assert.equal(result.variants[1].vs_baseline.difference.count, 2);
  assert.deepEqual([result.variants[0].steps.least, result.variants[0].steps.greatest], [3, 3]);
  assert.ok((await Deno.readTextFile(folder.at("out.md"))).startsWith("# adamw-sgd\n"));
  assert.ok((await Deno.readTextFile(folder.at("out.html"))).includes("<svg"));
  assert.deepEqual([...Deno.readDirSync(folder.at("compared", "runs"))], []);

  const again = await runTask("compare", args, { cwd });
  assert.equal(again.code, 0, again.errors.join("\n"));
  assert.deepEqual(JSON.parse(again.stdout).variants, result.variants);
  assert.ok(!again.errors.some((line) => /^\d+\/\d+ /.test(line)), again.errors.join("\n"));
});

Deno.test("bad input ends a comparison with exit code 2 and one line before any run", async () => {
  await using folder = await TinyFolder.create();
  const run = ["--init", "config.json", "--train", "train.tsv", "--eval", "eval.tsv"];
  const cases: [args: string[], message: string][] = [
    [["none.yaml"], "Cannot read none.yaml: no such file or folder"],
    [["--optimizers", "adamw,lion", ...run], /optimizer/.source],
    [["--optimizers", "adamw", ...run, "--eval", "none.tsv"], "--eval is none.tsv: there is no such file"],
    [["--optimizers", "adamw", ...run, "--jobs", "0"], "--jobs is 0: wanted a whole number of at least 1"],
    [
      ["--optimizers", "adamw", ...run, "--html", "no/x.html"],
      "--html is no/x.html: wanted a file in a folder that exists",
    ],
  ];
  const before = folder.snapshot();
  await Promise.all(cases.map(async ([args, message]) => {
    const { code, errors } = await runTask("compare", args, { cwd: folder.path });
    assert.deepEqual([code, errors.length], [2, 1], errors.join("\n"));
    assert.ok(errors[0].includes(message), errors[0]);
  }));
  assert.deepEqual(folder.snapshot(), before);
});
