/**
 * `deno task finetune`: flags to settings, and a run told to the reader as it goes.
 * @module
 */
import { errorMessage } from "../core/errors.ts";
import { reviewSettings } from "../finetune/default_run.ts";
import type { FinetuneResult } from "../finetune/mod.ts";
import { defaultBatchSize, finetuneDefaults, type FinetuneSettings } from "../finetune/options.ts";
import type { EvaluationRecord } from "../finetune/state.ts";
import { finetune } from "../../mod.ts";
import {
  type Command,
  jsonOnStandardOutput,
  makeCommand,
  parseList,
  parseNumber,
  runCommand,
  writeJson,
} from "./command.ts";
import { noteLastModel } from "./last_model.ts";
import { formatDuration, ProgressDisplay } from "./progress.ts";

const d = finetuneDefaults;

/** The command with all its flags. */
export function finetuneCommand(): Command {
  const number = parseNumber;
  return makeCommand(
    "finetune",
    "Fine-tune a BERT encoder while pruning it, evaluate it, and export the sparse model.\n" +
      "Without --train: the embedded reviews, offline, in about a minute.",
  )
    .option("--model <dir|hub id>", "model to start from")
    .option(
      "--init <preset|file>",
      "start from random weights: bert-tiny, bert-mini, bert-small, bert-base, or a config.json",
    )
    .option("--tokenizer <dir>", "tokenizer for --init; default: a vocabulary made from the training texts")
    .option("--task <name>", "text-classification", "text-classification")
    .option("--train <file>", "training data: .tsv, .csv, .jsonl, each also .gz")
    .option("--eval <file>", "evaluation data")
    .option("--text-column <name>", "column of the text (or a number, for files without a header)")
    .option("--pair-column <name>", "column of the second text")
    .option("--label-column <name>", "column of the label")
    .option("--label-names <a,b,…>", "names for the classes, in order", parseList)
    .option("--max-length <tokens>", `longest sequence (default ${d.maximumLength})`, number)
    .option("--max-train-samples <n>", "use the first n training rows", number)
    .option("--max-eval-samples <n>", "use the first n evaluation rows", number)
    .option(
      "--epochs <n>",
      `passes over the training data (default ${d.epochs}; reviews ${reviewSettings.epochs})`,
      number,
    )
    .option("--batch-size <n>", `sequences in a step (default ${defaultBatchSize})`, number)
    .option(
      "--tokens-per-batch <n>",
      "instead of --batch-size: a step takes as many sequences as fit in n tokens, so that steps are even",
      number,
    )
    .option("--group-by-length", "put sequences of like length together", d.groupByLength)
    .option(
      "--learning-rate <x>",
      `peak learning rate of AdamW (default ${d.learningRate}; reviews ${reviewSettings.learningRate})`,
      number,
    )
    .option("--weight-decay <x>", "decoupled decay of matrices and embeddings", number, d.weightDecay)
    .option("--adam-beta1 <x>", "AdamW's β₁", number, d.beta1)
    .option("--adam-beta2 <x>", "AdamW's β₂", number, d.beta2)
    .option("--adam-epsilon <x>", "AdamW's ε", number, d.epsilon)
    .option("--max-grad-norm <x>", "clip gradients to this global norm; 0: never", number, d.maximumNorm)
    .option(
      "--warmup-ratio <x>",
      `share of the steps in which the rate rises (default ${d.warmupRatio})`,
      number,
    )
    .option("--sparsity <x>", "share of the encoder's linear weights to prune, in [0, 1)", number, d.sparsity)
    .option("--pattern <name>", "unstructured or 4x1", d.pattern)
    .option("--pruning-scope <name>", "layer: the same sparsity everywhere; global: one ranking", d.scope)
    .option(
      "--prune-begin <x>",
      `fraction of the run at which pruning begins (default ${d.pruneBegin}; reviews ${reviewSettings.pruneBegin})`,
      number,
    )
    .option(
      "--prune-end <x>",
      `fraction at which the final sparsity is reached (default ${d.pruneEnd}; reviews ${reviewSettings.pruneEnd})`,
      number,
    )
    .option("--prune-refreshes <n>", "mask refreshes between the two", number, d.pruneRefreshes)
    .option("--dense-training", "train pruned layers with dense kernels too, for comparison", false)
    .option("--gradient-checkpointing", "run layers again backwards: less memory, more time", false)
    .option("--seed <n>", "seed of everything random", number, d.seed)
    .option("--device <name>", "auto, cpu or webgpu", d.device)
    .option("--threads <n>", "worker threads (default: one per usable core)", number)
    .option("--isa <name>", "instruction set (default: the fastest there is)")
    .option("--out <dir>", `output folder (default ${reviewSettings.out} or runs/<name of the data>)`)
    .option("--overwrite", "replace the model in the output folder", false)
    .option("--resume", "continue the run saved in the output folder", false)
    .option(
      "--save-steps <n>",
      "save the training state every n steps, besides after each epoch",
      number,
      d.saveSteps,
    );
}

/** Settings from parsed flags. */
export function settingsOf(flags: Record<string, unknown>): FinetuneSettings {
  const f = flags as Record<string, never>;
  const embedded = f.train === undefined && f.model === undefined && f.init === undefined;
  const defaults = embedded ? { ...d, ...reviewSettings } : { ...d, out: defaultFolder(f.train) };
  return {
    model: f.model,
    init: f.init,
    tokenizer: f.tokenizer,
    train: f.train,
    evaluation: f.eval,
    textColumn: f.textColumn,
    pairColumn: f.pairColumn,
    labelColumn: f.labelColumn,
    labelNames: f.labelNames,
    maximumLength: f.maxLength ?? defaults.maximumLength,
    maximumTrainSamples: f.maxTrainSamples,
    maximumEvalSamples: f.maxEvalSamples,
    epochs: f.epochs ?? defaults.epochs,
    batchSize: f.batchSize,
    tokensPerBatch: f.tokensPerBatch,
    groupByLength: f.groupByLength,
    learningRate: f.learningRate ?? defaults.learningRate,
    weightDecay: f.weightDecay,
    beta1: f.adamBeta1,
    beta2: f.adamBeta2,
    epsilon: f.adamEpsilon,
    maximumNorm: f.maxGradNorm,
    warmupRatio: f.warmupRatio ?? defaults.warmupRatio,
    sparsity: f.sparsity,
    pattern: f.pattern,
    scope: f.pruningScope,
    pruneBegin: f.pruneBegin ?? defaults.pruneBegin,
    pruneEnd: f.pruneEnd ?? defaults.pruneEnd,
    pruneRefreshes: f.pruneRefreshes,
    denseTraining: f.denseTraining,
    gradientCheckpointing: f.gradientCheckpointing,
    seed: f.seed,
    device: f.device,
    threads: f.threads,
    isa: f.isa,
    out: f.out ?? defaults.out,
    overwrite: f.overwrite,
    resume: f.resume,
    saveSteps: f.saveSteps,
    task: f.task,
  };
}

/** `…/SST-2/train.tsv.gz` trains into `runs/SST-2`; a file of another name into `runs/<that name>`. */
function defaultFolder(train: string | undefined): string {
  const parts = (train ?? "model").split(/[\\/]/);
  const stem = parts.at(-1)!.replace(/\.gz$/, "").replace(/\.[^.]+$/, "");
  return `runs/${stem === "train" && parts.length > 1 ? parts.at(-2) : stem}`;
}

/** The result in the form of the command contract. */
export function finetuneJson(result: FinetuneResult): Record<string, unknown> {
  const metrics = (record: EvaluationRecord | undefined) =>
    record && {
      loss: record.loss,
      accuracy: record.accuracy,
      macro_f1: record.macroF1,
      matthews: record.matthews,
      examples: record.examples,
      sparsity: record.sparsity,
      step: record.completedSteps,
    };
  return {
    device: result.device,
    isa: result.isa,
    threads: result.threads,
    steps: result.steps,
    seconds: result.seconds,
    tokens_per_second: result.tokensPerSecond,
    data_wait: result.dataWait,
    stages: result.stages.map(({ name, steps, seconds, tokensPerSecond }) => ({
      name,
      steps,
      seconds,
      tokens_per_second: tokensPerSecond,
    })),
    eval: metrics(result.evaluation),
    dense_eval: metrics(result.denseEvaluation),
    sparsity: {
      overall: result.sparsity.overall,
      layers: Object.fromEntries(result.sparsity.layers.map(({ name, sparsity }) => [name, sparsity])),
    },
    out: result.out,
    export: result.exported.dir,
  };
}

/** The end of a run, for the reader. */
export function formatResult(result: FinetuneResult): string {
  const percent = (value: number) => `${(value * 100).toFixed(2)} %`;
  const line = (name: string, record: EvaluationRecord) =>
    `  ${name.padEnd(26)} accuracy ${percent(record.accuracy)}  loss ${record.loss.toFixed(4)}  ` +
    `macro F1 ${record.macroF1.toFixed(4)}`;
  const lines = [
    "",
    `${result.steps} steps in ${formatDuration(result.seconds)}, ` +
    `${
      Math.round(result.tokensPerSecond).toLocaleString("en")
    } tokens/s on ${result.threads} threads (${result.isa}), ${
      percent(result.dataWait)
    } of it waiting for data`,
  ];
  for (const { name, steps, tokensPerSecond } of result.stages) {
    const rate = `${Math.round(tokensPerSecond).toLocaleString("en")} tokens/s`;
    lines.push(`  ${name.padEnd(26)} ${String(steps).padStart(6)} steps  ${rate}`);
  }
  if (result.denseEvaluation) lines.push(line("dense, before pruning", result.denseEvaluation));
  if (result.evaluation) {
    lines.push(line(`kept, ${percent(result.sparsity.overall)} zeros`, result.evaluation));
  }
  lines.push("", "  layer                                          weights      zeros   sparsity");
  for (const layer of result.sparsity.layers) {
    lines.push(
      `  ${layer.name.replace("bert.encoder.", "").padEnd(42)} ${String(layer.weights).padStart(11)} ` +
        `${String(layer.zeros).padStart(10)} ${percent(layer.sparsity).padStart(10)}`,
    );
  }
  lines.push("", "written:");
  lines.push(
    `  ${result.out}/  the model as a Hugging Face folder (zeros stored), training state in training/`,
  );
  for (const file of result.exported.files) {
    lines.push(
      `  ${result.exported.dir}/${file.name}  ${(file.byteLength / 2 ** 20).toFixed(2)} MiB  ${file.what}`,
    );
  }
  lines.push("", "next:", `  deno task infer "the plot is anything but dull"`, "  deno task bench");
  return lines.join("\n");
}

async function run(command: Command): Promise<void> {
  const flags = command.opts();
  const settings = settingsOf(flags);
  const display = new ProgressDisplay();
  const controller = new AbortController();
  let interrupts = 0;
  Deno.addSignalListener("SIGINT", () => {
    if (++interrupts > 1) Deno.exit(1);
    display.note("stopping; once more stops at once");
    controller.abort();
  });
  const result = await finetune(settings, {
    signal: controller.signal,
    listener: {
      message: (text) => display.note(text),
      data: (progress) => display.data(progress),
      step: (progress) => display.step(progress),
      evaluation: (record, epoch) =>
        display.note(
          `epoch ${epoch.toFixed(2)}: accuracy ${(record.accuracy * 100).toFixed(2)} %, ` +
            `loss ${record.loss.toFixed(4)}, sparsity ${(record.sparsity * 100).toFixed(1)} %`,
        ),
    },
  }).finally(() => display.stop());
  // The run has succeeded by now, even where nothing may be written beside its folder.
  await noteLastModel(result.exported.dir).catch((error) =>
    console.error(`${errorMessage(error)}; infer and bench will need --model`)
  );
  if (!jsonOnStandardOutput(flags.json)) console.log(formatResult(result));
  await writeJson(flags.json, finetuneJson(result));
}

if (import.meta.main) await runCommand(finetuneCommand(), run);
