/**
 * lacuna: fine-tune BERT-like encoders while pruning them, and serve the sparse model on plain CPUs.
 *
 * ```ts ignore
 * import { pipeline } from "@lacuna/lacuna";
 *
 * const classify = await pipeline("text-classification", "runs/reviews/export", { threads: 2 });
 * console.log(await classify("the plot is anything but dull")); // { label: "positive", score: 0.99… }
 * await classify.dispose();
 * ```
 *
 * The stages meet in files: `finetune` writes a model folder, `exportModel` makes it sparse, `pipeline` answers with
 * it. `ARCHITECTURE.md` has the picture.
 * @module
 */
import type { ExportOptions, ExportResult } from "./src/export/mod.ts";
import type { EvaluateOptions, ModelEvaluation } from "./src/evaluate/mod.ts";
import type { ModelBenchOptions, ModelBenchResult } from "./bench/model.ts";
import type { FinetuneListener, FinetuneResult } from "./src/finetune/mod.ts";
import type { FoundLearningRate } from "./src/finetune/find_learning_rate.ts";
import type { FinderPoint } from "./src/finetune/learning_rate_suggestions.ts";
import type { FinetuneSettings } from "./src/finetune/options.ts";
import type { PipelineOptions, PipelineTask, TextClassificationPipeline } from "./src/infer/pipeline.ts";
import { openModel } from "./src/checkpoint/model_folder.ts";
import type { EncoderSession, SessionMode } from "./src/infer/encoder_session.ts";
import { Session } from "./src/infer/session.ts";
import { userTuning } from "./src/infer/tuning_store.ts";
import { selectMachine } from "./src/machines/mod.ts";
import { chooseThreads } from "./src/core/cores.ts";
import { WorkerDataReader } from "./workers/data_reader.ts";
import { poolFactory } from "./workers/pool.ts";
import type { GpuExecutorFactory } from "./src/webgpu/executor.ts";
import { SpareThreads } from "./workers/threads.ts";

export { InputError, Interrupted, UnsupportedError } from "./src/core/errors.ts";
export type { ExportedFile, ExportFormat, ExportOptions, ExportResult } from "./src/export/mod.ts";
export type {
  CompilingProgress,
  DataProgress,
  FinetuneListener,
  FinetuneResult,
  Stage,
  StepProgress,
} from "./src/finetune/mod.ts";
export type { ModelBenchOptions, ModelBenchResult } from "./bench/model.ts";
export type { BenchResult, BenchRow } from "./bench/result.ts";
export type { Cache, MachineDescription } from "./bench/machine.ts";
export type { LatencySummary } from "./bench/measure.ts";
export type { Calibration } from "./src/evaluate/calibration.ts";
export type { EvaluateOptions, ModelEvaluation, Robustness } from "./src/evaluate/mod.ts";
export type { Evaluation, PrimaryMetric } from "./src/evaluate/metrics.ts";
export {
  finetuneDefaults,
  type FinetuneSettings,
  type Precision,
  type TaskName,
} from "./src/finetune/options.ts";
export type { PruningMethodName, PruningOptions } from "./src/pruning/options.ts";
export type { FoundLearningRate } from "./src/finetune/find_learning_rate.ts";
export type { FinderPoint, LearningRateSuggestions } from "./src/finetune/learning_rate_suggestions.ts";
export type { OptimizerOptions } from "./src/finetune/optimizer_options.ts";
export type { OptimizerName } from "./src/kernels/optimizer/optimizers.ts";
export type { FeatureVersion } from "./src/finetune/meta/features.ts";
export type { Grouping } from "./src/finetune/meta/groups.ts";
export type { MetaMode, MetaObjective, MetaOptions, MetaTerm } from "./src/finetune/meta/options.ts";
export type { ScheduleOptions } from "./src/finetune/schedules/mod.ts";
export type { BertConfig } from "./models/config.ts";
export type { Encoding, Tokenizer } from "./src/data/tokenizer.ts";
export type { EncoderSession, SessionInput, SessionMode } from "./src/infer/encoder_session.ts";
export type { LayerChoice } from "./src/infer/weights.ts";
export type { PruningScope } from "./src/pruning/method.ts";
export type { Pattern } from "./src/pruning/pattern.ts";
export type { LayerSparsity, SparsityReport } from "./src/pruning/sparsity.ts";
export type { EvaluationRecord, StageName } from "./src/finetune/state.ts";
export type {
  CallOptions,
  ClassScore,
  PipelineInput,
  PipelineOptions,
  PipelineTask,
  TextClassificationPipeline,
} from "./src/infer/pipeline.ts";

// Stages are imported when they are called: a server that answers needs neither the trainer nor the exporter.

/** How `finetune` reports and is stopped. */
export interface FinetuneCallbacks {
  /** Hears messages, steps and evaluations. */
  readonly listener?: FinetuneListener;
  /** Aborting saves the state; the promise then rejects with `Interrupted`. */
  readonly signal?: AbortSignal;
}

/**
 * Fine-tunes and prunes a model, evaluates it, and exports it.
 *
 * @param settings What to train on what; `finetuneDefaults` has the usual values.
 * @throws InputError for bad settings, files or data; nothing existing is lost then.
 */
export async function finetune(
  settings: FinetuneSettings,
  callbacks: FinetuneCallbacks = {},
): Promise<FinetuneResult> {
  const { finetune } = await import("./src/finetune/mod.ts");
  return await finetune(settings, { ...trainingFactories(), ...callbacks });
}

/**
 * Finds a learning rate for a run: trains with rising rates for a hundred steps, and writes nothing.
 *
 * @param settings Those of the run; its schedule, length and output folder do not matter.
 * @throws InputError for settings, files or data that the run could not have.
 */
export async function findLearningRate(
  settings: FinetuneSettings,
  callbacks: FinetuneCallbacks & { readonly point?: (point: FinderPoint, index: number) => void } = {},
): Promise<FoundLearningRate> {
  const { findRunLearningRate } = await import("./src/finetune/find_run.ts");
  return await findRunLearningRate(settings, { ...trainingFactories(), ...callbacks });
}

/** What trains: workers, a reader, and a GPU if the run takes one. */
function trainingFactories() {
  const createGpu: GpuExecutorFactory = async (options) => {
    const { createGpuExecutor } = await import("./workers/gpu.ts");
    return await createGpuExecutor(options);
  };
  return { createExecutor: poolFactory(), createReader: () => new WorkerDataReader(), createGpu };
}

/**
 * Evaluates a finished model on a labelled file: metrics, calibration, and how it does on disturbed texts.
 *
 * @throws InputError for a model or a file that cannot be used.
 */
export async function evaluate(options: EvaluateOptions): Promise<ModelEvaluation> {
  const { evaluateModel } = await import("./src/evaluate/mod.ts");
  return await evaluateModel(options, poolFactory());
}

/**
 * Times a model folder against ONNX Runtime and transformers.js with the same weights and threads, in turns.
 *
 * @throws InputError for a model or a number that cannot be used.
 */
export async function bench(options: ModelBenchOptions): Promise<ModelBenchResult> {
  // By a name that Deno does not read ahead: the runtimes compared with would cost every program 40 ms at its start.
  const module = new URL("./bench/model.ts", import.meta.url).href;
  const { benchModel } = await import(module) as typeof import("./bench/model.ts");
  return await benchModel(options);
}

/**
 * Writes the deployable folder of a model, all files or none.
 *
 * @throws InputError for a bad model, format or output folder.
 */
export async function exportModel(options: ExportOptions): Promise<ExportResult> {
  const { exportModel } = await import("./src/export/mod.ts");
  return await exportModel(options);
}

/**
 * Opens a model folder (or hub id) to answer with. Call the result with a text or a list of texts, and `dispose()` it.
 *
 * @throws InputError when the folder holds no usable model.
 */
export async function pipeline(
  task: PipelineTask,
  model: string,
  options: PipelineOptions = {},
): Promise<TextClassificationPipeline> {
  using spare = new SpareThreads(chooseThreads(options.threads).count);
  const { openPipeline } = await import("./src/infer/pipeline.ts");
  return await openPipeline(task, model, options, poolFactory({ ...options, spare }));
}

/** How `openSession` runs a model. */
export interface OpenSessionOptions {
  /** Most tokens in one run, default 512; longer calls are cut. At least the model's positions. */
  readonly maximumTokens?: number;
  /** Run every layer with the dense kernels, for comparison. */
  readonly dense?: boolean;
  /** Worker threads; default: the cores this process may use, by affinity and container quota. */
  readonly threads?: number;
  /** `latency` (default): all threads answer one call after another. `throughput`: each answers its own. */
  readonly mode?: SessionMode;
  /** Keep each thread on a core of its own: only where nothing else runs. Default: if `LACUNA_PIN` is `1`. */
  readonly pin?: boolean;
  /** Instruction set; default: the fastest there is. */
  readonly isa?: string;
  /** Measure at the first load which kernels are fastest here, for a quarter of a second; default true. */
  readonly tune?: boolean;
}

/**
 * Opens a model folder (or hub id) for token ids in, logits out: what `pipeline` is built on, for callers that
 * tokenise themselves. `dispose()` the session in the end.
 *
 * @throws InputError when the folder holds no usable model.
 */
export async function openSession(model: string, options: OpenSessionOptions = {}): Promise<EncoderSession> {
  using spare = new SpareThreads(chooseThreads(options.threads).count);
  return await Session.open(await openModel(model), {
    ...options,
    machine: selectMachine(options.isa),
    createExecutor: poolFactory({ ...options, spare }),
    tuning: options.tune === false ? undefined : userTuning(),
  });
}
