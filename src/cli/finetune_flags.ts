/**
 * The flags of `deno task finetune`. `finetune_settings.ts` has what they come to.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { reviewSettings } from "../finetune/default_run.ts";
import { metaModes } from "../finetune/meta/options.ts";
import { trainableWith } from "../finetune/optimizer_options.ts";
import {
  defaultBatchSize,
  defaultMaximumLength,
  defaultPruneRefreshes,
  finetuneDefaults,
  forecastingDefaults,
  taskNames,
} from "../finetune/options.ts";
import { learningRateScheduleNames } from "../finetune/schedules/mod.ts";
import { patternForms } from "../pruning/pattern.ts";
import { type Command, makeCommand, parseList, parseNumber as number } from "./command.ts";

const d = finetuneDefaults;

/** The command with all its flags. */
export function finetuneCommand(): Command {
  const command = makeCommand(
    "finetune",
    "Fine-tune a BERT encoder while pruning it, evaluate it, and export the sparse model.\n" +
      "Without --train: the embedded reviews, offline, in about a minute.",
  );
  for (const add of [addData, addTraining, addOptimizer, addPruning, addRun]) add(command);
  return command;
}

function addData(command: Command): void {
  command
    .option("--model <dir|hub id>", "model to start from")
    .option(
      "--init <preset|file>",
      "start from random weights: bert-tiny, bert-mini, bert-small, bert-base, or a config.json",
    )
    .option("--tokenizer <dir>", "tokenizer for --init; default: a vocabulary made from the training texts")
    .option("--task <name>", taskNames.join(", "), d.task)
    .option("--train <file>", "training data: .tsv, .csv, .jsonl, .txt for masked-lm; each also .gz")
    .option("--eval <file>", "evaluation data")
    .option("--text-column <name>", "column of the text (or a number, for files without a header)")
    .option("--pair-column <name>", "column of the second text")
    .option("--label-column <name>", "column of the label")
    .option("--label-names <a,b,…>", "names for the classes, in order", parseList)
    .option(
      "--input-length <steps>",
      `forecasting: steps that are seen (default ${forecastingDefaults.inputLength})`,
      number,
    )
    .option(
      "--horizon <steps>",
      `forecasting: steps behind them that are forecast (default ${forecastingDefaults.horizon})`,
      number,
    )
    .option("--target-column <name>", "forecasting: column that is forecast, or all (default: the last)")
    .option("--max-length <tokens>", `longest sequence (default ${defaultMaximumLength})`, number)
    .option("--max-train-samples <n>", "use the first n training rows", number)
    .option("--max-eval-samples <n>", "use the first n evaluation rows", number);
}

function addTraining(command: Command): void {
  command
    .option(
      "--epochs <n>",
      byDefault("passes over the training data", d.epochs, reviewSettings.epochs),
      number,
    )
    .option("--batch-size <n>", `sequences in a batch (default ${defaultBatchSize})`, number)
    .option(
      "--tokens-per-batch <n>",
      "instead of --batch-size: a batch takes as many sequences as fit in n tokens, so that steps are even",
      number,
    )
    .option("--group-by-length", "put sequences of like length together", d.groupByLength)
    .option("--gradient-accumulation-steps <n>", "batches that make one step", number, d.accumulation)
    .option(
      "--label-smoothing-factor <x>",
      "share of a label that all classes share",
      number,
      d.labelSmoothing,
    )
    .option("--class-weights <balanced|a,b,…>", "weights of the classes in the loss", classWeights)
    .option(
      "--freeze <names>",
      "parameters not to train: names of modules, or re: and an expression",
      parseList,
    )
    .option(
      "--early-stopping-patience <n>",
      "end after n evaluations without a better one",
      number,
      d.earlyStopping,
    )
    .option(
      "--early-stopping-threshold <x>",
      "what counts as better",
      number,
      d.earlyStoppingThreshold,
    )
    .option("--eval-steps <n>", "evaluate every n steps, besides after each epoch", number, d.evalSteps)
    .option("--gradient-checkpointing", "run layers again backwards: less memory, more time", false);
}

function addOptimizer(command: Command): void {
  command
    .option("--optimizer <name>", trainableWith.join(", "), d.optimizer)
    .option(
      "--learning-rate <x>",
      byDefault("peak learning rate", d.learningRate, reviewSettings.learningRate),
      number,
    )
    .option("--weight-decay <x>", "decay of matrices and embeddings", number, d.weightDecay)
    .option("--adam-beta1 <x>", "β₁ of adam, adamw, metaadamw (default 0.9)", number)
    .option("--adam-beta2 <x>", "their β₂ (default 0.999)", number)
    .option("--adam-epsilon <x>", "their ε (default 1e-8)", number)
    .option("--amsgrad", "they divide by the largest second moment so far")
    .option("--momentum <x>", "of sgd and rmsprop (default 0)", number)
    .option("--dampening <x>", "of sgd (default 0)", number)
    .option("--nesterov", "sgd moves by the buffer of the next step")
    .option("--alpha <x>", "share of rmsprop's averages that is kept (default 0.99)", number)
    .option("--centered", "rmsprop divides by the deviation")
    .option("--meta-mode <name>", `of metaadamw: ${metaModes.join(", ")} (default sound)`)
    .option("--meta-options <json>", "what is to be different from the mode", jsonObject)
    .option("--max-grad-norm <x>", "clip gradients to this global norm; 0: never", number, d.maximumNorm)
    .option(
      "--layer-lr-decay <x>",
      "factor on the rate from one layer to the one below",
      number,
      d.layerDecay,
    )
    .option("--lr-scheduler-type <name>", learningRateScheduleNames.join(", "), d.learningRateSchedule)
    .option(
      "--lr-scheduler-kwargs <json>",
      "what else the schedule takes: power, cycles, pctStart, …",
      jsonObject,
    )
    .option(
      "--warmup-ratio <x>",
      "share of the steps in which the rate rises (default 0.06; reviews 0.1)",
      number,
    )
    .option("--warmup-steps <n>", "the same in steps", number)
    .option(
      "--find-lr",
      "only find a learning rate: train with rising rates, chart the loss, change nothing",
    );
}

function addPruning(command: Command): void {
  command
    .option("--sparsity <x>", "share of the encoder's linear weights to prune, in [0, 1)", number, d.sparsity)
    .option("--pattern <name>", patternForms, d.pattern)
    .option(
      "--pruning-method <name>",
      "magnitude, movement, soft-movement, obert or constant",
      d.pruningMethod,
    )
    .option("--pruning-options <json>", "constants of the method: gradients, dampening, …", jsonObject)
    .option("--pruning-scope <name>", "layer: the same sparsity everywhere; global: one ranking", d.scope)
    .option("--pruning-schedule <name>", "cubic, linear, inverse_cubic or one-shot", d.pruningSchedule)
    .option("--prune-targets <names>", "matrices to prune: names, or re: and an expression", parseList)
    .option(
      "--prune-begin <x>",
      byDefault("fraction of the run at which pruning begins", d.pruneBegin, reviewSettings.pruneBegin),
      number,
    )
    .option(
      "--prune-end <x>",
      byDefault("fraction at which the final sparsity is reached", d.pruneEnd, reviewSettings.pruneEnd),
      number,
    )
    .option(
      "--prune-refreshes <n>",
      `mask refreshes between the two (default ${defaultPruneRefreshes}; movement: at every step)`,
      number,
    )
    .option(
      "--teacher <dense|dir>",
      "learn the answers of a model too; dense: of this one before it is pruned",
    )
    .option("--hardness <x>", "share of the loss that is about the teacher", number, d.hardness)
    .option("--temperature <x>", "at which answers are compared", number, d.temperature)
    .option("--recipe <file>", "what to do when, in SparseML's words")
    .option("--recipe-args <json>", "values for the recipe's variables")
    .option("--print-recipe", "print what the flags or the recipe come to, and stop")
    .option("--dense-training", "train pruned layers with dense kernels too, for comparison", false);
}

function addRun(command: Command): void {
  command
    .option("--seed <n>", "seed of everything random", number, d.seed)
    .option("--seeds <n>", "train n times, from --seed on, and report mean and spread", number)
    .option("--device <name>", "auto, cpu, webgpu or dawn (WebGPU by Chrome's implementation)", d.device)
    .option("--precision <name>", "fp32, or on a GPU fp16: activations in half of the memory", d.precision)
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

function byDefault(what: string, usual: number, reviews: number): string {
  return `${what} (default ${usual}; reviews ${reviews})`;
}

function jsonObject(text: string): Record<string, unknown> {
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  } catch {
    // The same line for both.
  }
  throw new InputError(`${text} is no JSON object: wanted one such as '{"name": 1}'`);
}

function classWeights(text: string): "balanced" | number[] {
  return text === "balanced" ? text : parseList(text).map(number);
}
