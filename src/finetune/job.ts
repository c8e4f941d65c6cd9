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
import type { EncodedExample } from "../data/batches.ts";
import { dataReport, formatDataReport } from "../data/report.ts";
import { type Example, labelIndices, labelsOf, readExamples } from "../data/table.ts";
import { checkTokenizer, loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { buildVocabulary } from "../data/vocabulary.ts";
import { wordPieceFiles } from "../data/wordpiece.ts";
import { makeReviews, reviewTokenizerFiles } from "../reviews/reviews.ts";
import { reviewModel } from "./default_run.ts";
import type { FinetuneSettings } from "./options.ts";
import type { Trainer } from "./trainer.ts";

/** Everything a run needs, ready to be trained on. */
export interface Job {
  readonly config: BertConfig;
  /** What `config.json` of the result will hold. */
  readonly configJson: Readonly<Record<string, unknown>>;
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  readonly train: readonly EncodedExample[];
  /** Empty when no evaluation file was given. */
  readonly evaluation: readonly EncodedExample[];
  /** What the data are like, for the reader. */
  readonly dataReport: string;
  /** Puts the starting weights into the trainer. */
  initialise(trainer: Trainer, say: (text: string) => void): Promise<void>;
}

interface Texts {
  readonly train: readonly Example[];
  readonly evaluation: readonly Example[];
  readonly labels: readonly string[];
}

/** Reads data and model, and tokenises. Throws `InputError` for whatever of them cannot be used. */
export async function prepareJob(settings: FinetuneSettings): Promise<Job> {
  const found = settings.train === undefined ? embeddedTexts(settings) : await readTexts(settings);
  const texts = { ...found, labels: await orderedLabels(found.labels, settings.model) };
  const model = settings.model === undefined
    ? undefined
    : await openModel(settings.model, { labels: texts.labels });
  const tokenizer = loadTokenizer(model?.tokenizerFiles ?? await startingTokenizer(settings, texts));
  const config = model?.config ?? await startingConfig(settings, tokenizer, texts.labels);
  checkTokenizer(tokenizer, config);
  if (settings.maximumLength > config.maximumPositions) {
    throw new InputError(
      `--max-length is ${settings.maximumLength}: wanted at most ${config.maximumPositions}, ` +
        `the positions the model has`,
    );
  }

  const train = encodeExamples(texts.train, texts.labels, tokenizer, settings.maximumLength);
  const evaluation = encodeExamples(texts.evaluation, texts.labels, tokenizer, settings.maximumLength);
  const report = dataReport(
    { examples: texts.train, lengths: train.fullLengths },
    texts.evaluation.length > 0 ? { examples: texts.evaluation, lengths: evaluation.fullLengths } : undefined,
    settings.maximumLength,
  );
  return {
    config,
    configJson: resultConfigJson(config, model?.configJson),
    tokenizerFiles: tokenizer.files,
    train: train.examples,
    evaluation: evaluation.examples,
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

/** Tokenises examples. `fullLengths` are the lengths before truncation, for the report. */
export function encodeExamples(
  examples: readonly Example[],
  labels: readonly string[],
  tokenizer: Tokenizer,
  maximumLength: number,
): { examples: EncodedExample[]; fullLengths: number[] } {
  const classes = labelIndices(examples, labels);
  const fullLengths: number[] = [];
  const encoded = examples.map(({ text, pair }, index): EncodedExample => {
    const { ids, typeIds, fullLength } = tokenizer.encode(text, pair, maximumLength);
    fullLengths.push(fullLength);
    return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds), label: classes[index] };
  });
  return { examples: encoded, fullLengths };
}

function embeddedTexts(settings: FinetuneSettings): Texts {
  const { train, evaluation } = makeReviews({ seed: settings.seed, train: 8000, evaluation: 1000 });
  return {
    train: train.slice(0, settings.maximumTrainSamples),
    evaluation: evaluation.slice(0, settings.maximumEvalSamples),
    labels: labelsOf(train),
  };
}

async function readTexts(settings: FinetuneSettings): Promise<Texts> {
  const { textColumn, pairColumn, labelColumn } = settings;
  const columns = { textColumn, pairColumn, labelColumn };
  const train = await readExamples(settings.train!, { ...columns, limit: settings.maximumTrainSamples });
  const found = labelsOf(train.examples);
  const evaluation = settings.evaluation === undefined ? [] : (await readExamples(settings.evaluation, {
    ...columns,
    labels: found,
    limit: settings.maximumEvalSamples,
  })).examples;
  return renameLabels({ train: train.examples, evaluation, labels: found }, settings.labelNames);
}

/** Gives the classes the names a user wants to read in answers. */
function renameLabels(texts: Texts, names: readonly string[] | undefined): Texts {
  if (!names) return texts;
  if (names.length !== texts.labels.length || new Set(names).size !== names.length) {
    throw new InputError(
      `--label-names are ${names.join(", ")}: wanted ${texts.labels.length} different names, ` +
        `for the labels ${texts.labels.join(", ")}`,
    );
  }
  const nameOf = new Map(texts.labels.map((label, index) => [label, names[index]]));
  const rename = (example: Example): Example => ({ ...example, label: nameOf.get(example.label!) });
  return {
    train: texts.train.map(rename),
    evaluation: texts.evaluation.map(rename),
    labels: names,
  };
}

async function startingTokenizer(
  settings: FinetuneSettings,
  texts: Texts,
): Promise<ReadonlyMap<string, Uint8Array>> {
  if (settings.init === undefined) return reviewTokenizerFiles();
  if (settings.tokenizer === undefined) {
    const all = texts.train.flatMap(({ text, pair }) => pair === undefined ? [text] : [text, pair]);
    return wordPieceFiles(buildVocabulary(all));
  }
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

async function loadWeights(model: Model, trainer: Trainer, say: (text: string) => void): Promise<void> {
  const message = newlyInitialisedMessage(model);
  if (message) say(message);
  const missing = new Set(model.missing);
  trainer.initialise(missing);
  for (const slot of trainer.layout.slots) {
    if (missing.has(slot.name)) continue;
    trainer.parameter(slot).set(await model.tensors.weight(slot.name, slot.shape));
  }
}
