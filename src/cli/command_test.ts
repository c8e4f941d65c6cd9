import assert from "node:assert/strict";
import { normaliseFlags, parseList, parseNumber } from "./command.ts";
import { finetuneCommand } from "./finetune_flags.ts";
import { settingsOf } from "./finetune_settings.ts";
import { checkSettings } from "../finetune/check_settings.ts";
import { finetuneDefaults } from "../finetune/options.ts";

Deno.test("normaliseFlags takes underscores and the names of the Hugging Face trainer, and leaves texts alone", () => {
  assert.deepEqual(
    normaliseFlags([
      "--num_train_epochs",
      "3",
      "--output-dir=a_b=c",
      "--max_seq_length=8",
      "-x_y",
      "a --b_c",
    ]),
    ["--epochs", "3", "--out=a_b=c", "--max-length=8", "-x_y", "a --b_c"],
  );
  assert.deepEqual(normaliseFlags(["--model_name_or_path", "m", "--", "--is_it", "--output_dir"]), [
    "--model",
    "m",
    "--",
    "--is_it",
    "--output_dir",
  ]);
});

Deno.test("parseNumber takes numbers and nothing else", () => {
  for (const [text, value] of [["3", 3], ["-0.1", -0.1], ["1e-5", 1e-5], ["Infinity", Infinity]] as const) {
    assert.equal(parseNumber(text), value);
  }
  for (const text of ["", " ", "x", "1x", "NaN", "1,5"]) {
    assert.throws(() => parseNumber(text), /wanted a number/);
  }
});

Deno.test("parseList splits at commas", () => {
  assert.deepEqual(parseList("bad, good,,"), ["bad", "good"]);
});

function parse(...args: string[]) {
  return settingsOf(finetuneCommand().parse(normaliseFlags(args), { from: "user" }).opts());
}

Deno.test("finetune without flags is the embedded run; its settings pass their own checks", () => {
  const settings = parse();
  checkSettings(settings);
  assert.equal(settings.train, undefined);
  assert.equal(settings.out, "runs/reviews");
});

Deno.test("finetune's flags reach the settings, and what is not given has the documented default", () => {
  const settings = parse("--init", "bert-tiny", "--train_file", "data/SST-2/train.tsv.gz");
  checkSettings(settings);
  assert.equal(settings.out, "runs/SST-2");
  for (const [name, value] of Object.entries(finetuneDefaults)) {
    assert.equal(settings[name as keyof typeof settings], value, name);
  }
  assert.equal(parse("--init", "x", "--train", "rows.csv").out, "runs/rows");

  const given = {
    "--model": ["model", "dir"],
    "--eval": ["evaluation", "e.csv"],
    "--text-column": ["textColumn", "t"],
    "--pair-column": ["pairColumn", "p"],
    "--label-column": ["labelColumn", "l"],
    "--label-names": ["labelNames", ["a", "b"]],
    "--input-length": ["inputLength", 48],
    "--horizon": ["horizon", 12],
    "--target-column": ["targetColumn", "OT"],
    "--tokenizer": ["tokenizer", "dir"],
    "--max-length": ["maximumLength", 7],
    "--max-train-samples": ["maximumTrainSamples", 8],
    "--max-eval-samples": ["maximumEvalSamples", 9],
    "--epochs": ["epochs", 2],
    "--batch-size": ["batchSize", 5],
    "--tokens-per-batch": ["tokensPerBatch", 1024],
    "--learning-rate": ["learningRate", 0.25],
    "--weight-decay": ["weightDecay", 0.5],
    "--gradient-accumulation-steps": ["accumulation", 4],
    "--label-smoothing-factor": ["labelSmoothing", 0.1],
    "--class-weights": ["classWeights", [1, 2.5]],
    "--freeze": ["freeze", ["bert.embeddings", "re:x"]],
    "--early-stopping-patience": ["earlyStopping", 3],
    "--early-stopping-threshold": ["earlyStoppingThreshold", 0.01],
    "--eval-steps": ["evalSteps", 12],
    "--optimizer": ["optimizer", "sgd"],
    "--meta-mode": ["metaMode", "paper"],
    "--meta-options": ["metaOptions", { updateEvery: 7 }],
    "--layer-lr-decay": ["layerDecay", 0.9],
    "--lr-scheduler-type": ["learningRateSchedule", "cosine"],
    "--lr-scheduler-kwargs": ["scheduleOptions", { cycles: 2 }],
    "--warmup-steps": ["warmupSteps", 30],
    "--max-grad-norm": ["maximumNorm", 4],
    "--warmup-ratio": ["warmupRatio", 0.4],
    "--sparsity": ["sparsity", 0.6],
    "--pattern": ["pattern", "4x1"],
    "--pruning-scope": ["scope", "global"],
    "--pruning-method": ["pruningMethod", "obert"],
    "--pruning-options": ["pruningOptions", { gradients: 64 }],
    "--pruning-schedule": ["pruningSchedule", "linear"],
    "--prune-targets": ["pruningTargets", ["re:query"]],
    "--teacher": ["teacher", "dense"],
    "--hardness": ["hardness", 0.9],
    "--temperature": ["temperature", 3],
    "--recipe": ["recipe", "r.yaml"],
    "--recipe-args": ["recipeArguments", '{"epochs":3}'],
    "--prune-begin": ["pruneBegin", 0.15],
    "--prune-end": ["pruneEnd", 0.95],
    "--prune-refreshes": ["pruneRefreshes", 3],
    "--seed": ["seed", 11],
    "--device": ["device", "cpu"],
    "--precision": ["precision", "fp16"],
    "--threads": ["threads", 3],
    "--isa": ["isa", "wasm"],
    "--out": ["out", "o"],
    "--save-steps": ["saveSteps", 6],
  } as const;
  for (const [flag, [name, value]] of Object.entries(given)) {
    const text = Array.isArray(value)
      ? value.join(",")
      : typeof value === "object"
      ? JSON.stringify(value)
      : String(value);
    assert.deepEqual(parse(flag, text)[name], value, flag);
  }
  const constants = {
    "--adam-beta1": ["beta1", 0.1],
    "--adam-beta2": ["beta2", 0.2],
    "--adam-epsilon": ["epsilon", 0.3],
    "--momentum": ["momentum", 0.5],
    "--dampening": ["dampening", 0.4],
    "--alpha": ["alpha", 0.8],
    "--amsgrad": ["amsgrad", true],
    "--nesterov": ["nesterov", true],
    "--centered": ["centered", true],
  } as const;
  for (const [flag, [name, value]] of Object.entries(constants)) {
    const { optimizerOptions } = value === true ? parse(flag) : parse(flag, String(value));
    assert.equal(optimizerOptions![name], value, flag);
  }
  const flags = finetuneCommand().options.map(({ long }) => long!);
  assert.equal(parse("--group_by_length").groupByLength, true);
  assert.deepEqual([settings.batchSize, settings.tokensPerBatch], [undefined, undefined]);
  for (
    const [flag, name] of [["--dense-training", "denseTraining"], [
      "--gradient_checkpointing",
      "gradientCheckpointing",
    ]] as const
  ) {
    assert.deepEqual([settings[name], parse(flag)[name]], [false, true], flag);
  }
  const others = [
    "--json",
    "--init",
    "--task",
    "--train",
    "--overwrite",
    "--resume",
    "--group-by-length",
    "--dense-training",
    "--gradient-checkpointing",
    "--find-lr",
    "--print-recipe",
    "--seeds",
  ];
  assert.deepEqual(
    new Set(flags),
    new Set([...Object.keys(given), ...Object.keys(constants), ...others]),
    "every flag is tried here",
  );
});
