/**
 * Checks what a run is told, so that bad input ends it with one clear line before anything is read.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { updateRule } from "../kernels/optimizer/optimizers.ts";
import { checkThreads } from "../plan/executor.ts";
import { parsePattern } from "../pruning/pattern.ts";
import { optimizerSettingsOf } from "./optimizer_options.ts";
import { type FinetuneSettings, taskNames } from "./options.ts";

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
  check(taskNames.includes(s.task), "--task", s.task, `one of ${taskNames.join(", ")}`);
  const windows = {
    "--input-length": s.inputLength,
    "--horizon": s.horizon,
    "--target-column": s.targetColumn,
  };
  for (const [name, value] of Object.entries(windows)) {
    check(value === undefined || s.task === "forecasting", name, value, "none but with --task forecasting");
  }
  check(s.precision === "fp32" || s.precision === "fp16", "--precision", s.precision, "fp32 or fp16");
  count("--epochs", s.epochs);
  if (s.batchSize !== undefined) count("--batch-size", s.batchSize);
  if (s.tokensPerBatch !== undefined) count("--tokens-per-batch", s.tokensPerBatch);
  if (s.maximumLength !== undefined) count("--max-length", s.maximumLength, 3);
  if (s.inputLength !== undefined) count("--input-length", s.inputLength);
  if (s.horizon !== undefined) count("--horizon", s.horizon);
  if (s.pruneRefreshes !== undefined) count("--prune-refreshes", s.pruneRefreshes);
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
  check(s.maximumNorm >= 0, "--max-grad-norm", s.maximumNorm, "a number of at least 0");
  within("--weight-decay", s.weightDecay, 0, 1);
  updateRule(optimizerSettingsOf(s.optimizer, s.optimizerOptions));
  count("--gradient-accumulation-steps", s.accumulation);
  count("--eval-steps", s.evalSteps, 0);
  count("--early-stopping-patience", s.earlyStopping, 0);
  check(
    s.earlyStoppingThreshold >= 0,
    "--early-stopping-threshold",
    s.earlyStoppingThreshold,
    "a number of at least 0",
  );
  within("--label-smoothing-factor", s.labelSmoothing, 0, 1, ")");
  check(s.layerDecay > 0 && s.layerDecay <= 1, "--layer-lr-decay", s.layerDecay, "a number in (0, 1]");
  within("--hardness", s.hardness, 0, 1);
  check(s.temperature > 0 && s.temperature < Infinity, "--temperature", s.temperature, "a positive number");
  if (s.warmupSteps !== undefined) count("--warmup-steps", s.warmupSteps, 0);
  if (s.warmupRatio !== undefined) within("--warmup-ratio", s.warmupRatio, 0, 1);
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
  const isEmbedded = s.model === undefined && s.init === undefined && s.task === "text-classification";
  if (s.train === undefined && !isEmbedded) {
    throw new InputError("--train is missing: wanted a training file (.tsv, .csv or .jsonl, also .gz)");
  }
  const needsModel = s.task !== "forecasting";
  if (needsModel && s.train !== undefined && s.model === undefined && s.init === undefined) {
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
