/**
 * What a run works on: the examples, the tokenizer and the model to start from, read and checked before anything
 * is computed.
 * @module
 */
import { type BertConfig, bertConfigJson, parseBertConfig } from "../../models/config.ts";
import { isPresetName, presetConfig, presetNames } from "../../models/presets.ts";
import { type Model, newlyInitialisedMessage, openModel } from "../checkpoint/model_folder.ts";
import { tokenizerFileNames } from "../checkpoint/tokenizer_files.ts";
import { InputError } from "../core/errors.ts";
import { pathKind, readBytes, readJson } from "../core/files.ts";
import type { DataReader, DataSource, EncodedData } from "../data/reader.ts";
import { formatDataReport } from "../data/report.ts";
import { labelsOf } from "../data/table.ts";
import { checkTokenizer, loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { wordPieceFiles } from "../data/wordpiece.ts";
import { makeReviews, reviewTokenizerFiles } from "../reviews/reviews.ts";
import { reviewModel } from "./default_run.ts";
import type { FinetuneSettings } from "./options.ts";
import type { Trainer } from "./trainer.ts";

/** Everything a run needs, ready to be trained on. */
export interface Job extends Omit<EncodedData, "report"> {
  readonly config: BertConfig;
  /** What `config.json` of the result will hold. */
  readonly configJson: Readonly<Record<string, unknown>>;
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  /** What the data are like, for the reader. */
  readonly dataReport: string;
  /** Puts the starting weights into the trainer. */
  initialise(trainer: Trainer<never>, say: (text: string) => void): Promise<void>;
}

/** Reads and tokenises the data, and opens the model. Throws `InputError` for whatever of them cannot be used. */
export async function prepareJob(
  settings: FinetuneSettings,
  reader: DataReader,
  progress: (rows: number, totalRows: number) => void,
): Promise<Job> {
  const { labels: found, rows } = await reader.read(sourceOf(settings));
  const labels = await orderedLabels(found, settings.model);
  const model = settings.model === undefined ? undefined : await openModel(settings.model, { labels });
  const tokenizer = loadTokenizer(model?.tokenizerFiles ?? await startingTokenizer(settings, reader));
  const config = model?.config ?? await startingConfig(settings, tokenizer, labels);
  checkTokenizer(tokenizer, config);
  const { maximumLength } = settings;
  if (maximumLength > config.maximumPositions) {
    throw new InputError(
      `--max-length is ${maximumLength}: wanted at most ${config.maximumPositions}, the positions the model has`,
    );
  }
  const { files: tokenizerFiles } = tokenizer;
  const { report, ...data } = await reader.encode(
    { tokenizerFiles, labels, maximumLength },
    (done) => progress(done, rows),
  );
  return {
    ...data,
    config,
    configJson: resultConfigJson(config, model?.configJson),
    tokenizerFiles,
    dataReport: formatDataReport(report),
    async initialise(trainer, say) {
      if (model) await loadWeights(model, trainer, say);
      else trainer.initialise();
    },
  };
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
  config: BertConfig,
  start: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return bertConfigJson(
    config,
    Object.fromEntries(Object.entries(start).filter(([field]) => !headFields.includes(field))),
  );
}

/** The files of the settings, or the embedded reviews. */
function sourceOf(settings: FinetuneSettings): DataSource {
  const { train, evaluation, textColumn, pairColumn, labelColumn, labelNames } = settings;
  const { maximumTrainSamples, maximumEvalSamples } = settings;
  if (train !== undefined) {
    const columns = { textColumn, pairColumn, labelColumn };
    return {
      files: { train, evaluation, ...columns, labelNames, maximumTrainSamples, maximumEvalSamples },
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
  const changes = { labels, vocabularySize: tokenizer.vocabularySize, padTokenId: tokenizer.padId };
  const { init } = settings;
  if (init === undefined) return { ...reviewModel, ...changes };
  if (isPresetName(init)) return presetConfig(init, changes);
  if (await pathKind(init) !== "file") {
    throw new InputError(`--init is ${init}: wanted a config file or one of ${presetNames.join(", ")}`);
  }
  return { ...parseBertConfig(await readJson(init), init), ...changes };
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
