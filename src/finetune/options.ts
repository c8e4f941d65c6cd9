/**
 * What a fine-tuning run can be told, its defaults, and the checks that turn bad input into one clear line.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { BatchLimit } from "../data/batches.ts";
import type { PruningScope } from "../pruning/method.ts";
import { checkThreads } from "../plan/executor.ts";
import { parsePattern, type Pattern } from "../pruning/pattern.ts";

/** Settings of a run. Fractions of the run are of its optimiser steps. */
export interface FinetuneSettings {
  /** What the model is for. */
  readonly task: "text-classification";
  /** Folder or hub id of the model to start from; with `init` absent too, the embedded default. */
  readonly model?: string;
  /** Preset name or config file: start from random weights. */
  readonly init?: string;
  /** Training file; absent only for the embedded default. */
  readonly train?: string;
  /** Evaluation file. */
  readonly evaluation?: string;
  /** Column of the text, where its name is unusual. */
  readonly textColumn?: string;
  /** Column of the second text. */
  readonly pairColumn?: string;
  /** Column of the label. */
  readonly labelColumn?: string;
  /** Names for the classes 0, 1, … of integer labels. */
  readonly labelNames?: readonly string[];
  /** Tokenizer folder for `init`; a model brings its own. */
  readonly tokenizer?: string;
  /** Longest sequence in tokens; longer texts are truncated. */
  readonly maximumLength: number;
  /** Use the first rows only. */
  readonly maximumTrainSamples?: number;
  /** Use the first evaluation rows only. */
  readonly maximumEvalSamples?: number;
  /** Passes over the training data. */
  readonly epochs: number;
  /** Sequences in a step; absent without `tokensPerBatch`: `defaultBatchSize`. */
  readonly batchSize?: number;
  /** Instead of `batchSize`: a step takes as many sequences as have so many tokens together, and at least one. */
  readonly tokensPerBatch?: number;
  /** Whether sequences of like length come together; `planEpoch` says what that is good for. */
  readonly groupByLength: boolean;
  /** Peak rate. */
  readonly learningRate: number;
  /** Decoupled decay of matrices and embeddings; biases and LayerNorm have none. */
  readonly weightDecay: number;
  /** AdamW's β₁. */
  readonly beta1: number;
  /** AdamW's β₂. */
  readonly beta2: number;
  /** AdamW's ε. */
  readonly epsilon: number;
  /** Gradients are scaled down to this global norm; 0 switches it off. */
  readonly maximumNorm: number;
  /** Fraction of the run in which the learning rate rises from 0. */
  readonly warmupRatio: number;
  /** Share of the encoder's linear weights that are zero in the end, in [0, 1). */
  readonly sparsity: number;
  /** Which weights are pruned together. */
  readonly pattern: Pattern;
  /** Whether every matrix reaches the sparsity, or all together. */
  readonly scope: PruningScope;
  /** Fraction of the run at which pruning begins: up to here the model is dense. */
  readonly pruneBegin: number;
  /** Fraction of the run at which the final sparsity is reached: from here on the mask is constant. */
  readonly pruneEnd: number;
  /** Mask refreshes between the two. */
  readonly pruneRefreshes: number;
  /** Train pruned layers with dense kernels and masks throughout, for comparison; default false. */
  readonly denseTraining?: boolean;
  /** Run layers again in the backward pass instead of keeping them: less memory, more time, the same numbers. */
  readonly gradientCheckpointing?: boolean;
  /** Seed of everything random. */
  readonly seed: number;
  /** Where to compute. */
  readonly device: "auto" | "cpu" | "webgpu";
  /** Worker threads; absent: one for each core this process may use. */
  readonly threads?: number;
  /** Instruction set; absent: the fastest. */
  readonly isa?: string;
  /** Output folder. */
  readonly out: string;
  /** Replace what the output folder holds. */
  readonly overwrite: boolean;
  /** Continue the run saved in `out`. */
  readonly resume: boolean;
  /** Steps between saves of the training state, besides one after each epoch; 0: after epochs only. */
  readonly saveSteps: number;
}

/** Defaults of a run on files, in the words and values of the Hugging Face trainer where it has them. */
export const finetuneDefaults = {
  task: "text-classification",
  maximumLength: 128,
  epochs: 3,
  groupByLength: false,
  learningRate: 5e-5,
  weightDecay: 0.01,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  maximumNorm: 1,
  warmupRatio: 0.06,
  sparsity: 0.9,
  pattern: "unstructured",
  scope: "layer",
  pruneBegin: 0.3,
  pruneEnd: 0.7,
  pruneRefreshes: 40,
  seed: 42,
  device: "auto",
  overwrite: false,
  resume: false,
  saveSteps: 0,
} as const satisfies Partial<FinetuneSettings>;

/** Sequences in a step of a run that is told nothing about its batches. */
export const defaultBatchSize = 32;

/** Sequences in a step; undefined where tokens decide. */
export function batchSizeOf({ batchSize, tokensPerBatch }: FinetuneSettings): number | undefined {
  return batchSize ?? (tokensPerBatch === undefined ? defaultBatchSize : undefined);
}

/** How large batches may grow. */
export function batchLimitOf(settings: FinetuneSettings): BatchLimit {
  return { sequences: batchSizeOf(settings) ?? Infinity, tokens: settings.tokensPerBatch ?? Infinity };
}

function check(condition: boolean, name: string, found: unknown, wanted: string): void {
  if (!condition) throw new InputError(`${name} is ${found}: wanted ${wanted}`);
}

/** Checks every number and combination. Throws `InputError` at the first that is wrong. */
export function checkSettings(settings: FinetuneSettings): void {
  const s = settings;
  const count = (name: string, value: number, least = 1) =>
    check(Number.isSafeInteger(value) && value >= least, name, value, `a whole number of at least ${least}`);
  const within = (name: string, value: number, low: number, high: number, open = "") =>
    check(
      value >= low && (open === ")" ? value < high : value <= high),
      name,
      value,
      `a number in [${low}, ${high}${open || "]"}`,
    );
  check(
    s.task === "text-classification",
    "--task",
    s.task,
    "text-classification, the one task of this version",
  );
  count("--epochs", s.epochs);
  if (s.batchSize !== undefined) count("--batch-size", s.batchSize);
  if (s.tokensPerBatch !== undefined) count("--tokens-per-batch", s.tokensPerBatch);
  count("--max-length", s.maximumLength, 3);
  count("--prune-refreshes", s.pruneRefreshes);
  count("--save-steps", s.saveSteps, 0);
  count("--seed", s.seed, 0);
  if (s.threads !== undefined) checkThreads(s.threads);
  if (s.maximumTrainSamples !== undefined) count("--max-train-samples", s.maximumTrainSamples);
  if (s.maximumEvalSamples !== undefined) count("--max-eval-samples", s.maximumEvalSamples);
  check(
    s.learningRate > 0 && s.learningRate < Infinity,
    "--learning-rate",
    s.learningRate,
    "a positive number",
  );
  check(s.epsilon > 0 && s.epsilon < Infinity, "--adam-epsilon", s.epsilon, "a positive number");
  check(s.maximumNorm >= 0, "--max-grad-norm", s.maximumNorm, "a number of at least 0");
  within("--weight-decay", s.weightDecay, 0, 1);
  within("--adam-beta1", s.beta1, 0, 1, ")");
  within("--adam-beta2", s.beta2, 0, 1, ")");
  within("--warmup-ratio", s.warmupRatio, 0, 1);
  within("--sparsity", s.sparsity, 0, 1, ")");
  within("--prune-begin", s.pruneBegin, 0, 1);
  within("--prune-end", s.pruneEnd, 0, 1);
  check(
    s.pruneBegin <= s.pruneEnd,
    "--prune-begin",
    s.pruneBegin,
    `no more than --prune-end, which is ${s.pruneEnd}`,
  );
  parsePattern(s.pattern);
  check(s.scope === "layer" || s.scope === "global", "--pruning-scope", s.scope, "layer or global");
  if (s.model !== undefined && s.init !== undefined) {
    throw new InputError(`--model ${s.model} and --init ${s.init} exclude each other: wanted one of them`);
  }
  if (s.train === undefined && (s.model !== undefined || s.init !== undefined)) {
    throw new InputError("--train is missing: wanted a training file (.tsv, .csv or .jsonl, also .gz)");
  }
  if (s.train !== undefined && s.model === undefined && s.init === undefined) {
    throw new InputError(
      "--model or --init is missing: wanted a model folder, a hub id, or a preset to start from",
    );
  }
  if (s.batchSize !== undefined && s.tokensPerBatch !== undefined) {
    throw new InputError(
      `--batch-size ${s.batchSize} and --tokens-per-batch ${s.tokensPerBatch} exclude each other: wanted one of them`,
    );
  }
  if (s.overwrite && s.resume) {
    throw new InputError("--overwrite and --resume exclude each other: wanted one of them");
  }
}
