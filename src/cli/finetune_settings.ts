/**
 * From the flags of `deno task finetune` to a run's settings.
 * @module
 */
import { reviewSettings } from "../finetune/default_run.ts";
import { finetuneDefaults, type FinetuneSettings } from "../finetune/options.ts";

/** Settings from parsed flags. */
export function settingsOf(flags: Record<string, unknown>): FinetuneSettings {
  const f = flags as Record<string, never>;
  const embedded = f.train === undefined && f.model === undefined && f.init === undefined;
  const defaults = embedded
    ? { ...finetuneDefaults, ...reviewSettings }
    : { ...finetuneDefaults, out: defaultFolder(f.train) };
  const usualWarmup = embedded && f.warmupSteps === undefined &&
    f.lrSchedulerType === finetuneDefaults.learningRateSchedule;
  return {
    task: f.task,
    model: f.model,
    init: f.init,
    tokenizer: f.tokenizer,
    train: f.train,
    evaluation: f.eval,
    textColumn: f.textColumn,
    pairColumn: f.pairColumn,
    labelColumn: f.labelColumn,
    labelNames: f.labelNames,
    inputLength: f.inputLength,
    horizon: f.horizon,
    targetColumn: f.targetColumn,
    maximumLength: f.maxLength ?? (embedded ? reviewSettings.maximumLength : undefined),
    maximumTrainSamples: f.maxTrainSamples,
    maximumEvalSamples: f.maxEvalSamples,
    epochs: f.epochs ?? defaults.epochs,
    batchSize: f.batchSize,
    tokensPerBatch: f.tokensPerBatch,
    groupByLength: f.groupByLength,
    accumulation: f.gradientAccumulationSteps,
    optimizer: f.optimizer,
    optimizerOptions: {
      beta1: f.adamBeta1,
      beta2: f.adamBeta2,
      epsilon: f.adamEpsilon,
      amsgrad: f.amsgrad,
      momentum: f.momentum,
      dampening: f.dampening,
      nesterov: f.nesterov,
      alpha: f.alpha,
      centered: f.centered,
    },
    metaMode: f.metaMode,
    metaOptions: f.metaOptions,
    learningRate: f.learningRate ?? defaults.learningRate,
    learningRateSchedule: f.lrSchedulerType,
    scheduleOptions: f.lrSchedulerKwargs,
    warmupRatio: f.warmupRatio ?? (usualWarmup ? reviewSettings.warmupRatio : undefined),
    warmupSteps: f.warmupSteps,
    weightDecay: f.weightDecay,
    layerDecay: f.layerLrDecay,
    freeze: f.freeze,
    maximumNorm: f.maxGradNorm,
    labelSmoothing: f.labelSmoothingFactor,
    classWeights: f.classWeights,
    earlyStopping: f.earlyStoppingPatience,
    earlyStoppingThreshold: f.earlyStoppingThreshold,
    evalSteps: f.evalSteps,
    sparsity: f.sparsity,
    pattern: f.pattern,
    scope: f.pruningScope,
    pruningMethod: f.pruningMethod,
    pruningOptions: f.pruningOptions,
    pruningSchedule: f.pruningSchedule,
    pruningTargets: f.pruneTargets,
    pruneBegin: f.pruneBegin ?? defaults.pruneBegin,
    pruneEnd: f.pruneEnd ?? defaults.pruneEnd,
    pruneRefreshes: f.pruneRefreshes,
    teacher: f.teacher,
    hardness: f.hardness,
    temperature: f.temperature,
    recipe: f.recipe,
    recipeArguments: f.recipeArgs,
    denseTraining: f.denseTraining,
    gradientCheckpointing: f.gradientCheckpointing,
    seed: f.seed,
    device: f.device,
    precision: f.precision,
    threads: f.threads,
    isa: f.isa,
    out: f.out ?? defaults.out,
    overwrite: f.overwrite,
    resume: f.resume,
    saveSteps: f.saveSteps,
  };
}

/** `…/SST-2/train.tsv.gz` trains into `runs/SST-2`; a file of another name into `runs/<that name>`. */
function defaultFolder(train: string | undefined): string {
  const parts = (train ?? "model").split(/[\\/]/);
  const stem = parts.at(-1)!.replace(/\.gz$/, "").replace(/\.[^.]+$/, "");
  return `runs/${stem === "train" && parts.length > 1 ? parts.at(-2) : stem}`;
}
