/**
 * What a fine-tuning run can be told, and its defaults. `check_settings.ts` has the checks.
 * @module
 */
import type { BatchLimit } from "../data/batches.ts";
import type { OptimizerName } from "../kernels/optimizer/optimizers.ts";
import type { PruningScope } from "../pruning/method.ts";
import type { PruningMethodName, PruningOptions } from "../pruning/options.ts";
import type { Pattern } from "../pruning/pattern.ts";
import type { MetaMode, MetaOptions } from "./meta/options.ts";
import type { OptimizerOptions } from "./optimizer_options.ts";
import type { ScheduleOptions } from "./schedules/mod.ts";

/** What a model can be trained for. */
export type TaskName = "text-classification" | "regression" | "masked-lm" | "forecasting";

/** All of them. */
export const taskNames: readonly TaskName[] = [
  "text-classification",
  "regression",
  "masked-lm",
  "forecasting",
];

/** What a GPU keeps activations and their gradients in: float32 or float16. */
export type Precision = "fp32" | "fp16";

/** Settings of a run. Fractions of the run are of its optimiser steps. */
export interface FinetuneSettings {
  /** What the model is for. */
  readonly task: TaskName;
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
  /** Forecasting: steps that are seen; absent: those of `forecastingDefaults`. */
  readonly inputLength?: number;
  /** Forecasting: steps behind them that are forecast; absent: those of `forecastingDefaults`. */
  readonly horizon?: number;
  /** Forecasting: column that is forecast, or `all`; absent: the last, as ETT's OT. */
  readonly targetColumn?: string;
  /** Tokenizer folder for `init`; a model brings its own. */
  readonly tokenizer?: string;
  /** Longest sequence in tokens; longer texts are truncated. Absent: `defaultMaximumLength`. */
  readonly maximumLength?: number;
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
  /** Batches whose gradients make one step. */
  readonly accumulation: number;
  /** What updates the weights. */
  readonly optimizer: OptimizerName | "metaadamw";
  /** Its constants, in PyTorch's words and with PyTorch's defaults. */
  readonly optimizerOptions?: OptimizerOptions;
  /** How MetaAdamW's controller is made; default `sound`. */
  readonly metaMode?: MetaMode;
  /** What is to be different from the mode. */
  readonly metaOptions?: Partial<MetaOptions>;
  /** Peak rate. */
  readonly learningRate: number;
  /** How the rate changes over the run. */
  readonly learningRateSchedule: string;
  /** What else the schedule takes. */
  readonly scheduleOptions?: Omit<ScheduleOptions, "totalSteps" | "warmupSteps" | "warmupRatio">;
  /** Fraction of the run in which the rate rises from 0; absent without `warmupSteps`: `defaultWarmupRatio`. */
  readonly warmupRatio?: number;
  /** The same in steps. */
  readonly warmupSteps?: number;
  /** Decay of matrices and embeddings; biases and LayerNorm have none. */
  readonly weightDecay: number;
  /** Factor on the rate from one layer to the one below; 1: all alike. */
  readonly layerDecay: number;
  /** Names or `re:` expressions of parameters that are not trained. */
  readonly freeze?: readonly string[];
  /** Gradients are scaled down to this global norm; 0 switches it off. */
  readonly maximumNorm: number;
  /** Share of the label's probability that all classes share. */
  readonly labelSmoothing: number;
  /** Weights of the classes in the loss, or `balanced`: by how rare they are. */
  readonly classWeights?: "balanced" | readonly number[];
  /** Evaluations at the final sparsity without an improvement after which the run ends; 0: never. */
  readonly earlyStopping: number;
  /** What counts as an improvement. */
  readonly earlyStoppingThreshold: number;
  /** Steps between evaluations, besides one after each epoch; 0: after epochs only. */
  readonly evalSteps: number;
  /** Share of the encoder's linear weights that are zero in the end, in [0, 1). */
  readonly sparsity: number;
  /** Which weights are pruned together. */
  readonly pattern: Pattern;
  /** Whether every matrix reaches the sparsity, or all together. */
  readonly scope: PruningScope;
  /** What says which weights matter. */
  readonly pruningMethod: PruningMethodName;
  /** Its constants. */
  readonly pruningOptions?: PruningOptions;
  /** How sparsity rises. */
  readonly pruningSchedule: string;
  /** Names or `re:` expressions of the matrices to prune; absent: all linear layers of the encoder. */
  readonly pruningTargets?: readonly string[];
  /** Fraction of the run at which pruning begins: up to here the model is dense. */
  readonly pruneBegin: number;
  /** Fraction of the run at which the final sparsity is reached: from here on the mask is constant. */
  readonly pruneEnd: number;
  /** Mask refreshes between the two. Absent: `defaultPruneRefreshes`, and at every step for movement pruning. */
  readonly pruneRefreshes?: number;
  /** Whose answers are learned too: a model folder, or `dense`: this model just before it is pruned. */
  readonly teacher?: string;
  /** Share of the loss that is about the teacher's answers. */
  readonly hardness: number;
  /** Temperature at which answers are compared. */
  readonly temperature: number;
  /**
   * Recipe file: what it says takes the place of the settings of the same meaning. Of these, those without a default must be
   * absent.
   */
  readonly recipe?: string;
  /** Values for the recipe's variables: a JSON object. */
  readonly recipeArguments?: string;
  /** Train pruned layers with dense kernels and masks throughout, for comparison; default false. */
  readonly denseTraining?: boolean;
  /** Run layers again in the backward pass instead of keeping them: less memory, more time, the same numbers. */
  readonly gradientCheckpointing?: boolean;
  /** Seed of everything random. */
  readonly seed: number;
  /** Where to compute. `dawn` is WebGPU through Chrome's implementation of it. */
  readonly device: "auto" | "cpu" | "webgpu" | "dawn";
  /** What activations are kept and multiplied in; `fp16` is for GPUs. Weights, sums and the optimiser are float32 in any case. */
  readonly precision: Precision;
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
  epochs: 3,
  groupByLength: false,
  accumulation: 1,
  optimizer: "adamw",
  learningRate: 5e-5,
  learningRateSchedule: "linear",
  weightDecay: 0.01,
  layerDecay: 1,
  maximumNorm: 1,
  labelSmoothing: 0,
  earlyStopping: 0,
  earlyStoppingThreshold: 0,
  evalSteps: 0,
  sparsity: 0.9,
  pattern: "unstructured",
  scope: "layer",
  pruningMethod: "magnitude",
  pruningSchedule: "cubic",
  pruneBegin: 0.3,
  pruneEnd: 0.7,
  hardness: 0.5,
  temperature: 2,
  seed: 42,
  device: "auto",
  precision: "fp32",
  overwrite: false,
  resume: false,
  saveSteps: 0,
} as const satisfies Partial<FinetuneSettings>;

/** Windows of a series that is forecast: four days of hours tell a day. */
export const forecastingDefaults = { inputLength: 96, horizon: 24 } as const;

/** Share of the steps in which the rate rises, where the schedule takes a warm-up and nothing is told of it. */
export const defaultWarmupRatio = 0.06;

/** Tokens of the longest sequence, where nothing is told of it. */
export const defaultMaximumLength = 128;

/**
 * Mask refreshes of methods that look at weights. Movement's masks follow its scores at every step, as its paper has it: on
 * SST-2 (5,000 phrases, four passes, two layers of MiniLM, 90 %) eight refreshes end at 50.9 %, every step at 80.4 %.
 */
export const defaultPruneRefreshes = 40;

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
