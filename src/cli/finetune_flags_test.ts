/** The flags of optimisers, schedules and losses: what the command makes of them is what the same settings make. */
import assert from "node:assert/strict";
import { finetune, InputError } from "../../mod.ts";
import { metricsOf, TinyFolder } from "../finetune/tiny_run.ts";
import { normaliseFlags } from "./command.ts";
import { finetuneCommand } from "./finetune_flags.ts";
import { runTask } from "./start_task.ts";

const files = ["--init", "config.json", "--train", "train.tsv", "--eval", "eval.tsv", "--max-length", "24"];

Deno.test("finetune --seeds with every flag of the optimiser gives the models of these settings, and their spread", async () => {
  await using folder = await TinyFolder.create();
  const flags = {
    "--optimizer": "sgd",
    "--momentum": "0.9",
    "--learning-rate": "0.02",
    "--lr-scheduler-type": "one_cycle",
    "--lr-scheduler-kwargs": '{"pctStart":0.4,"maxMomentum":0.9}',
    "--gradient-accumulation-steps": "2",
    "--label-smoothing-factor": "0.1",
    "--class-weights": "1,2",
    "--layer-lr-decay": "0.9",
    "--freeze": "bert.embeddings,re:.*layer\\.0",
    "--early-stopping-patience": "1",
    "--early-stopping-threshold": "2",
    "--eval-steps": "2",
    "--weight-decay": "0.1",
    "--max-grad-norm": "0.5",
    "--sparsity": "0",
    "--epochs": "2",
    "--batch-size": "8",
    "--threads": "1",
    "--seed": "3",
    "--seeds": "2",
    "--out": "out",
    "--json": "-",
  };
  const args = [...files, ...Object.entries(flags).flat(), "--nesterov"];
  const { code, stdout, errors } = await runTask("finetune", args, { cwd: folder.path });
  assert.equal(code, 0, errors.join("\n"));
  assert.ok(
    errors.includes("stopped at step 4 of 12: no improvement, and --early-stopping-patience is 1"),
    errors.join("\n"),
  );
  const { seeds, runs } = JSON.parse(stdout);
  const accuracies: number[] = runs.map(({ eval: evaluation }: { eval: { accuracy: number } }) =>
    evaluation.accuracy
  );
  assert.deepEqual(runs.map(({ seed, steps }: Record<string, number>) => [seed, steps]), [[3, 4], [4, 4]]);
  assert.deepEqual(Object.keys(seeds), ["loss", "accuracy", "macro_f1", "matthews", "f1"]);
  assert.equal(seeds.accuracy.mean, (accuracies[0] + accuracies[1]) / 2);
  assert.deepEqual([seeds.accuracy.min, seeds.accuracy.max], accuracies.toSorted((a, b) => a - b));
  assert.ok(Math.abs(seeds.accuracy.std - Math.abs(accuracies[0] - accuracies[1]) / Math.SQRT2) < 1e-12);

  const same = await finetune(folder.settings({
    optimizer: "sgd",
    optimizerOptions: { momentum: 0.9, nesterov: true },
    learningRate: 0.02,
    learningRateSchedule: "one_cycle",
    scheduleOptions: { pctStart: 0.4, maxMomentum: 0.9 },
    accumulation: 2,
    labelSmoothing: 0.1,
    classWeights: [1, 2],
    layerDecay: 0.9,
    freeze: ["bert.embeddings", "re:.*layer\\.0"],
    earlyStopping: 1,
    earlyStoppingThreshold: 2,
    evalSteps: 2,
    weightDecay: 0.1,
    maximumNorm: 0.5,
    sparsity: 0,
    epochs: 2,
    batchSize: 8,
    threads: 1,
    seed: 4,
    out: folder.at("same"),
  }));
  assert.deepEqual(folder.resultOf(folder.at("out", "seed-4")), folder.resultOf(same.out));
  assert.deepEqual(metricsOf(same.out).map(({ step }) => step), [2, 4]);
});

Deno.test("finetune --find-lr prints and writes what it found, draws a chart, and trains nothing", async () => {
  await using folder = await TinyFolder.create();
  const meta = [
    "--optimizer",
    "metaadamw",
    "--meta-mode",
    "paper",
    "--meta-options",
    '{"grouping":"single"}',
  ];
  const args = [
    ...files,
    ...meta,
    "--threads",
    "1",
    "--find-lr",
    "--out",
    "runs/tiny",
    "--json",
    "found.json",
  ];
  const before = folder.snapshot();
  const { code, stdout, errors } = await runTask("finetune", args, { cwd: folder.path });
  assert.equal(code, 0, errors.join("\n"));
  const { suggested, suggestion, points, chart } = JSON.parse(
    await Deno.readTextFile(folder.at("found.json")),
  );
  assert.equal(chart, "runs/tiny-learning-rate.html");
  assert.equal(points.length, 100);
  assert.equal(suggested, suggestion.valley);
  assert.match(stdout, /^ *valley +\d/m);
  assert.ok(stdout.includes(`chart: ${chart}`), stdout);
  const page = await Deno.readTextFile(folder.at(chart));
  assert.match(page, /<svg/);
  assert.match(page, /Line chart of the loss over the learning rate/);
  const added = [...folder.snapshot().keys()].filter((name) => !before.has(name));
  assert.deepEqual(added, ["found.json", "runs", chart]);
});

Deno.test("flags that hold more than a number are refused with one line", () => {
  const cases: [string[], RegExp][] = [
    [["--lr-scheduler-kwargs", "power=2"], /power=2 is no JSON object: wanted one such as '\{"name": 1\}'/],
    [["--meta-options", "[1]"], /\[1\] is no JSON object/],
    [["--class-weights", "1,heavy"], /heavy.*wanted a number|wanted a number.*heavy/],
    [["--momentum", "much"], /'much' is invalid.*wanted a number/],
  ];
  for (const [args, message] of cases) {
    const command = finetuneCommand().exitOverride().configureOutput({ writeErr: () => {} });
    assert.throws(() => command.parse(normaliseFlags(args), { from: "user" }), (error) => {
      assert.match((error as Error).message, message);
      assert.doesNotMatch((error as Error).message, /\n/);
      return error instanceof InputError || (error as { code: string }).code === "commander.invalidArgument";
    });
  }
});
