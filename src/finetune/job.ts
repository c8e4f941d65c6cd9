/**
 * What a run works on: the examples, the tokenizer and the model to start from, read and checked before anything
 * is computed.
 * @module
 */
import { type BertConfig, parseBertConfig } from "../../models/config.ts";
import { isPresetName, presetConfig, presetNames } from "../../models/presets.ts";
import { type Model, newlyInitialisedMessage, openModel } from "../checkpoint/model_folder.ts";
import { tokenizerFileNames } from "../checkpoint/tokenizer_files.ts";
import { InputError } from "../core/errors.ts";
import { pathKind, readBytes, readJson } from "../core/files.ts";
import type { EncodedSet } from "../data/encoded_set.ts";
import type { NumberedExample } from "../data/example_set.ts";
import type { DataKind, DataReader, DataSource } from "../data/reader.ts";
import { formatDataReport } from "../data/report.ts";
import type { ForecastWindow } from "../data/series.ts";
import { labelsOf } from "../data/table.ts";
import { checkTokenizer, loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { wordPieceFiles } from "../data/wordpiece.ts";
import { makeReviews, reviewTokenizerFiles } from "../reviews/reviews.ts";
import { reviewModel } from "./default_run.ts";
import { defaultMaximumLength, type FinetuneSettings } from "./options.ts";
import { forecastingTask } from "./tasks/forecasting_task.ts";
import { type TextTask, type TextTaskName, textTasks } from "./tasks/mod.ts";
import type { FinetuneTask } from "./tasks/task.ts";
import type { Student } from "./teacher_model.ts";
import type { Teaching } from "./teaching.ts";
import type { Trainer } from "./trainer.ts";

/** Everything a run needs, ready to be trained on. */
export interface Job<Example> {
  readonly task: FinetuneTask<Example>;
  /** What `config.json` of the result will hold. */
  readonly configJson: Readonly<Record<string, unknown>>;
  /** None where the task is not about texts. */
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  /** What the data are like, for the reader. */
  readonly dataReport: string;
  /** Short hashes of what is trained on, and evaluated with. */
  readonly digests: { readonly train: string; readonly evaluation: string };
  /** What a model folder must fit to be a teacher; absent where none can be. */
  readonly student?: Student;
  /** Why the result cannot be exported; absent: it can. */
  readonly unexportable?: string;
  /** Puts the starting weights into the trainer. */
  initialise(trainer: Trainer<Example>, say: (text: string) => void): Promise<void>;
}

/** What a job is made with, besides the settings. */
export interface JobContext {
  readonly reader: DataReader;
  readonly progress: (rows: number, totalRows: number) => void;
  /** Tile of the machine that trains (`usualTile`). */
  readonly tile: number;
  /** Lessons; absent where there is no teacher. */
  readonly teaching?: Teaching;
}

/** What kind of examples a job has is known to its task alone. */
export type AnyJob = Job<never>;

/** Reads and tokenises the data, and opens the model. Throws `InputError` for whatever of them cannot be used. */
export async function prepareJob(settings: FinetuneSettings, context: JobContext): Promise<AnyJob> {
  const job = settings.task === "forecasting"
    ? await forecastingJob(settings, context)
    : await textJob(settings, settings.task, context);
  return job as unknown as AnyJob;
}

async function textJob(
  settings: FinetuneSettings,
  taskName: TextTaskName,
  { reader, progress, tile, teaching }: JobContext,
): Promise<Job<NumberedExample>> {
  const task = textTasks[taskName];
  const { labels: found, rows } = await reader.read(sourceOf(settings, task.data));
  const labels = task.data === "classes" ? await orderedLabels(found, settings.model) : found;
  const { head } = task;
  const options = labels.length > 0 ? { labels, head } : { head };
  const model = settings.model === undefined ? undefined : await openModel(settings.model, options);
  const tokenizer = loadTokenizer(model?.tokenizerFiles ?? await startingTokenizer(settings, reader));
  const config = model?.config ?? await startingConfig(settings, tokenizer, labels);
  checkTokenizer(tokenizer, config);
  const { maximumLength = defaultMaximumLength } = settings;
  if (maximumLength > config.maximumPositions) {
    throw new InputError(
      `--max-length is ${maximumLength}: wanted at most ${config.maximumPositions}, the positions the model has`,
    );
  }
  const { files: tokenizerFiles } = tokenizer;
  const { report, digests, ...data } = await reader.encode(
    { tokenizerFiles, labels, maximumLength },
    (done) => progress(done, rows),
  );
  const learned = task.learn(data, config, tokenizer, {
    labelSmoothing: settings.labelSmoothing,
    classWeights: classWeightsOf(settings, labels, data.train),
    teaching: teaching && { lessons: teaching, tile },
  });
  return {
    task: learned,
    digests,
    configJson: resultConfigJson(task.configJson, config, model?.configJson),
    tokenizerFiles,
    dataReport: formatDataReport(report),
    student: head === "classifier"
      ? { labels: config.labels, tokenizerFiles, longestExample: longestOf(learned.train) }
      : undefined,
    async initialise(trainer, say) {
      if (model) await loadWeights(model, trainer as unknown as Trainer<never>, say);
      else trainer.initialise();
    },
  };
}

function longestOf({ lengths }: { readonly lengths: ArrayLike<number> }): number {
  let longest = 0;
  for (let index = 0; index < lengths.length; index++) longest = Math.max(longest, lengths[index]);
  return longest;
}

async function forecastingJob(
  settings: FinetuneSettings,
  { tile }: JobContext,
): Promise<Job<ForecastWindow>> {
  const refused = [
    ["--model", settings.model],
    ["--init", settings.init],
    ["--eval", settings.evaluation],
    ["--tokenizer", settings.tokenizer],
    ["--max-length", settings.maximumLength],
    ["--text-column", settings.textColumn],
    ["--pair-column", settings.pairColumn],
    ["--label-column", settings.labelColumn],
    ["--label-names", settings.labelNames],
    ["--max-eval-samples", settings.maximumEvalSamples],
    ["--label-smoothing-factor", settings.labelSmoothing || undefined],
    ["--class-weights", settings.classWeights],
    ["--teacher", settings.teacher],
  ].find(([, value]) => value !== undefined);
  if (refused) {
    throw new InputError(
      `${refused[0]} is ${
        refused[1]
      }: wanted none with --task forecasting, which takes a series of numbers, --train, ` +
        "and evaluates on a part of it",
    );
  }
  const task = await forecastingTask({
    series: settings.train!,
    inputLength: settings.inputLength,
    horizon: settings.horizon,
    target: settings.targetColumn,
    limit: settings.maximumTrainSamples,
    tile,
  });
  return {
    task,
    digests: task.digests,
    configJson: task.configJson,
    tokenizerFiles: new Map(),
    dataReport: task.dataReport,
    unexportable: "a forecaster has no pipeline yet",
    initialise: (trainer) => Promise.resolve(trainer.initialise()),
  };
}

/**
 * The weights of the classes in the loss: those given, or n / (classes · how many have it), so that the weights of all
 * examples have the mean 1.
 */
function classWeightsOf(
  { classWeights }: FinetuneSettings,
  labels: readonly string[],
  { labels: classes }: EncodedSet,
): readonly number[] | undefined {
  if (classWeights === undefined) return undefined;
  if (classWeights === "balanced") {
    const counts = new Float64Array(labels.length);
    for (const label of classes) counts[label]++;
    return Array.from(counts, (count) => count === 0 ? 0 : classes.length / (labels.length * count));
  }
  const isWeight = (weight: number) => weight >= 0 && weight < Infinity;
  const hasSome = classWeights.some((weight) => weight > 0);
  if (classWeights.length !== labels.length || !classWeights.every(isWeight) || !hasSome) {
    throw new InputError(
      `--class-weights are ${classWeights.join(", ")}: wanted balanced, or ${labels.length} numbers of ` +
        `at least 0 and one above, for ${labels.join(", ")}`,
    );
  }
  return classWeights;
}

/** The classes in the order of the starting model, where it has the same: its head then keeps its meaning. */
async function orderedLabels(
  labels: readonly string[],
  model: string | undefined,
): Promise<readonly string[]> {
  if (model === undefined) return labels;
  const stored = (await openModel(model, { labels })).storedLabels;
  const isSameSet = stored.length === labels.length && stored.every((label) => labels.includes(label));
  return isSameSet ? stored : labels;
}

/** Fields of `config.json` that say what a model is for; a new head brings its own. */
const headFields: readonly string[] = ["architectures", "id2label", "label2id", "num_labels", "problem_type"];

/** The starting model's fields, those this project does not know too, with the new head's in place of the old. */
function resultConfigJson(
  configJson: TextTask["configJson"],
  config: BertConfig,
  start: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return configJson(
    config,
    Object.fromEntries(Object.entries(start).filter(([field]) => !headFields.includes(field))),
  );
}

/** The files of the settings, or the embedded reviews. */
function sourceOf(settings: FinetuneSettings, kind: DataKind): DataSource {
  const { train, evaluation, textColumn, pairColumn, labelColumn, labelNames } = settings;
  const { maximumTrainSamples, maximumEvalSamples } = settings;
  if (train !== undefined) {
    const columns = { textColumn, pairColumn, labelColumn };
    return {
      files: { kind, train, evaluation, ...columns, labelNames, maximumTrainSamples, maximumEvalSamples },
    };
  }
  const reviews = makeReviews({ seed: settings.seed, train: 8000, evaluation: 1000 });
  return {
    texts: {
      train: reviews.train.slice(0, maximumTrainSamples),
      evaluation: reviews.evaluation.slice(0, maximumEvalSamples),
      labels: labelsOf(reviews.train),
    },
  };
}

async function startingTokenizer(
  settings: FinetuneSettings,
  reader: DataReader,
): Promise<ReadonlyMap<string, Uint8Array>> {
  if (settings.init === undefined) return reviewTokenizerFiles();
  if (settings.tokenizer === undefined) return wordPieceFiles(await reader.vocabulary());
  const files = new Map<string, Uint8Array>();
  for (const name of tokenizerFileNames) {
    const path = `${settings.tokenizer}/${name}`;
    if (await pathKind(path) === "file") files.set(name, await readBytes(path));
  }
  if (files.size === 0) {
    throw new InputError(
      `--tokenizer ${settings.tokenizer} holds no tokenizer: wanted tokenizer.json or vocab.txt`,
    );
  }
  return files;
}

async function startingConfig(
  settings: FinetuneSettings,
  tokenizer: Tokenizer,
  labels: readonly string[],
): Promise<BertConfig> {
  const named = labels.length > 0 ? { labels } : {};
  const changes = { ...named, vocabularySize: tokenizer.vocabularySize, padTokenId: tokenizer.padId };
  const { init } = settings;
  if (init === undefined) return { ...reviewModel, ...changes };
  if (isPresetName(init)) return presetConfig(init, changes);
  if (await pathKind(init) !== "file") {
    throw new InputError(`--init is ${init}: wanted a config file or one of ${presetNames.join(", ")}`);
  }
  return { ...parseBertConfig(await readJson(init), init, { newHead: true }), ...changes };
}

async function loadWeights(
  model: Model,
  trainer: Trainer<never>,
  say: (text: string) => void,
): Promise<void> {
  const message = newlyInitialisedMessage(model);
  if (message) say(message);
  const missing = new Set(model.missing);
  trainer.initialise(missing);
  for (const slot of trainer.layout.slots) {
    if (missing.has(slot.name)) continue;
    const weight = await model.tensors.weight(slot.name, slot.shape);
    if (!weight.every(Number.isFinite)) {
      throw new InputError(`${model.dir}: ${slot.name} holds NaN or infinite weights, wanted numbers`);
    }
    trainer.parameter(slot).set(weight);
  }
}
