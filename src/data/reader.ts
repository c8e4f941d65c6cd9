/**
 * Reading and tokenising the texts of a run. For 67,349 texts that is 2 s of work, so whoever must stay awake meanwhile
 * has it done on another thread: `DataReader` is what both sides agree on, `TextReader` does it.
 *
 *     const { labels } = await reader.read({ files: { train: "train.tsv.gz" } });
 *     const { train, report } = await reader.encode({ tokenizerFiles, labels, maximumLength: 128 });
 *     reader.dispose();
 *
 * Training waits for the last text. Starting before would save 2 s of a run of minutes, and cost what needs all lengths:
 * arrays no larger than the largest batch, batches of so many tokens, the number of steps, the data report, the check that
 * a resumed run goes on with the same data, and the rule that bad input ends a run before anything is said or written.
 * @module
 */
import { createHash } from "node:crypto";
import { InputError } from "../core/errors.ts";
import type { EncodedExample } from "./batches.ts";
import { type CorpusReport, cutCorpus, readCorpus } from "./corpus.ts";
import { type EncodedSet, encodedSetOf } from "./encoded_set.ts";
import { type DataReport, dataReport } from "./report.ts";
import { type Example, type ExampleOptions, labelIndices, labelsOf, readExamples } from "./table.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import { buildVocabulary } from "./vocabulary.ts";

/** Where texts come from: files, or whoever has them already. */
export type DataSource = { readonly files: DataFiles } | { readonly texts: LabelledTexts };

/** What a model learns of data: a class or a score for each text, or the text itself. */
export type DataKind = "classes" | "scores" | "text";

/** Files and how to read them. */
export interface DataFiles extends Pick<ExampleOptions, "textColumn" | "pairColumn" | "labelColumn"> {
  /** Default `classes`. */
  readonly kind?: DataKind;
  /** Path of the training file. */
  readonly train: string;
  /** Path of the evaluation file. */
  readonly evaluation?: string;
  /** Training rows to read at most. */
  readonly maximumTrainSamples?: number;
  /** Evaluation rows to read at most. */
  readonly maximumEvalSamples?: number;
  /** Names for the labels found, in their order; one name where labels are scores. */
  readonly labelNames?: readonly string[];
}

/** Texts to train on and to evaluate with. */
export interface LabelledTexts {
  readonly train: readonly Example[];
  readonly evaluation: readonly Example[];
  /** The classes: every text has one of them. */
  readonly labels: readonly string[];
  /** Default `classes`. */
  readonly kind?: DataKind;
}

/** What `read` found. */
export interface DataSummary {
  /**
   * The classes, by the names they were given if they were; in the order of the file's labels. Of scores what they are
   * called, of text alone nothing.
   */
  readonly labels: readonly string[];
  /** Training and evaluation rows together. */
  readonly rows: number;
}

/** How to tokenise. */
export interface EncodeRequest {
  /** Files of the tokenizer, by name. */
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  /** The classes in the order of the model's. */
  readonly labels: readonly string[];
  /** Tokens at which texts are cut; text alone is cut into sequences of as many. */
  readonly maximumLength: number;
}

/** Everything known of the data once they are tokenised. */
export interface EncodedData {
  readonly train: EncodedSet;
  /** Of no examples when there is no evaluation file. */
  readonly evaluation: EncodedSet;
  readonly report: DataReport | CorpusReport;
  /** Short hashes of tokens and labels: files of the same name may hold other texts. */
  readonly digests: { readonly train: string; readonly evaluation: string };
}

/** Reads texts, then tokenises them. Bad data reject with an `InputError`. */
export interface DataReader {
  /** Reads the texts. */
  read(source: DataSource): Promise<DataSummary>;
  /** A WordPiece vocabulary of the training texts that were read. */
  vocabulary(): Promise<string[]>;
  /** Tokenises what was read; `progress` hears now and then how many rows are done. */
  encode(request: EncodeRequest, progress?: (rows: number) => void): Promise<EncodedData>;
  /** Ends the reader; calls under way and later ones reject. */
  dispose(): void;
}

/** Makes readers. */
export type DataReaderFactory = () => DataReader;

/** The work itself, on the thread that calls. */
export class TextReader {
  #texts: LabelledTexts = { train: [], evaluation: [], labels: [] };

  /** See `DataReader.read`. */
  async read(source: DataSource): Promise<DataSummary> {
    this.#texts = "files" in source ? await readFiles(source.files) : source.texts;
    const { train, evaluation, labels } = this.#texts;
    return { labels, rows: train.length + evaluation.length };
  }

  /** See `DataReader.vocabulary`. */
  vocabulary(): string[] {
    return buildVocabulary(
      this.#texts.train.flatMap(({ text, pair }) => pair === undefined ? [text] : [text, pair]),
    );
  }

  /** See `DataReader.encode`; here `progress` hears of every row. */
  encode(
    { tokenizerFiles, labels, maximumLength }: EncodeRequest,
    progress: (rows: number) => void = () => {},
  ): EncodedData {
    const { train, evaluation, kind = "classes" } = this.#texts;
    const tokenizer = loadTokenizer(tokenizerFiles);
    const encode = (examples: readonly Example[], done: number): EncodedTexts => {
      const tell = (rows: number) => progress(done + rows);
      if (kind === "text") return encodeCorpus(examples, tokenizer, maximumLength, tell);
      return encodeExamples(examples, answersOf(examples, kind, labels), tokenizer, maximumLength, tell);
    };
    const encoded = { train: encode(train, 0), evaluation: encode(evaluation, train.length) };
    return {
      train: encodedSetOf(encoded.train.examples),
      evaluation: encodedSetOf(encoded.evaluation.examples),
      report: reportOf(this.#texts, encoded, maximumLength),
      digests: {
        train: digestOf(encoded.train.examples),
        evaluation: digestOf(encoded.evaluation.examples),
      },
    };
  }
}

/** Tokenised texts with what the report wants to know of them. */
interface EncodedTexts {
  readonly examples: readonly EncodedExample[];
  /** Tokens of each text before truncation. */
  readonly fullLengths: readonly number[];
}

/** What is to be answered to a text. */
type Answer = Pick<EncodedExample, "label" | "target">;

/** Throws InputError where a label is missing or unknown. */
function answersOf(
  examples: readonly Example[],
  kind: "classes" | "scores",
  labels: readonly string[],
): Answer[] {
  if (kind === "scores") return examples.map(({ label }) => ({ label: -1, target: Number(label) }));
  return Array.from(labelIndices(examples, labels), (label) => ({ label }));
}

function encodeExamples(
  examples: readonly Example[],
  answers: readonly Answer[],
  tokenizer: Tokenizer,
  maximumLength: number,
  progress: (rows: number) => void,
): EncodedTexts {
  const fullLengths: number[] = [];
  const encoded = examples.map(({ text, pair }, index): EncodedExample => {
    const { ids, typeIds, fullLength } = tokenizer.encode(text, pair, maximumLength);
    fullLengths.push(fullLength);
    progress(index + 1);
    return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds), ...answers[index] };
  });
  return { examples: encoded, fullLengths };
}

function encodeCorpus(
  lines: readonly Example[],
  tokenizer: Tokenizer,
  maximumLength: number,
  progress: (rows: number) => void,
): EncodedTexts {
  const { examples, lengths } = cutCorpus(lines.map(({ text }) => text), tokenizer, maximumLength, progress);
  return { examples, fullLengths: lengths };
}

function reportOf(
  { train, evaluation, kind }: LabelledTexts,
  encoded: { readonly train: EncodedTexts; readonly evaluation: EncodedTexts },
  maximumTokens: number,
): DataReport | CorpusReport {
  const hasEvaluation = evaluation.length > 0;
  if (kind === "text") {
    const size = ({ examples, fullLengths }: EncodedTexts) => ({
      lines: fullLengths.length,
      tokens: fullLengths.reduce((sum, length) => sum + length, 0),
      sequences: examples.length,
    });
    const { train, evaluation } = encoded;
    return { maximumTokens, train: size(train), ...(hasEvaluation && { evaluation: size(evaluation) }) };
  }
  const input = (examples: readonly Example[], { fullLengths }: EncodedTexts) => ({
    examples,
    lengths: fullLengths,
    hasScores: kind === "scores",
  });
  return dataReport(
    input(train, encoded.train),
    hasEvaluation ? input(evaluation, encoded.evaluation) : undefined,
    maximumTokens,
  );
}

function digestOf(examples: readonly EncodedExample[]): string {
  const hash = createHash("sha256");
  for (const { ids, label, target } of examples) hash.update(`${target ?? label}:${ids.join()};`);
  return hash.digest("hex").slice(0, 12);
}

async function readFiles(files: DataFiles): Promise<LabelledTexts> {
  const { textColumn, pairColumn, labelColumn, kind = "classes" } = files;
  const columns = { textColumn, pairColumn, labelColumn };
  if (kind === "text") return await readCorpora(files);
  if (kind === "scores") return await readScores(files);
  const train = await readExamples(files.train, { ...columns, limit: files.maximumTrainSamples });
  const labels = labelsOf(train.examples);
  const evaluation = files.evaluation === undefined ? [] : (await readExamples(files.evaluation, {
    ...columns,
    labels,
    limit: files.maximumEvalSamples,
  })).examples;
  return renameLabels({ train: train.examples, evaluation, labels }, files.labelNames);
}

async function readCorpora(files: DataFiles): Promise<LabelledTexts> {
  if (files.labelNames) {
    throw new InputError(`--label-names are ${files.labelNames.join(", ")}: text alone has no labels`);
  }
  if (files.labelColumn !== undefined) {
    throw new InputError(`--label-column is ${files.labelColumn}: text alone has no labels`);
  }
  const { textColumn, pairColumn } = files;
  const read = async (path: string, limit: number | undefined) =>
    (await readCorpus(path, { textColumn, pairColumn, limit })).map((text): Example => ({ text }));
  const { train, evaluation, maximumTrainSamples, maximumEvalSamples } = files;
  return {
    train: await read(train, maximumTrainSamples),
    evaluation: evaluation === undefined ? [] : await read(evaluation, maximumEvalSamples),
    labels: [],
    kind: "text",
  };
}

/** What scores are called unless a user names them. */
const scoreName = "score";

async function readScores(files: DataFiles): Promise<LabelledTexts> {
  const { labelNames = [scoreName], maximumTrainSamples, maximumEvalSamples } = files;
  if (labelNames.length !== 1) {
    throw new InputError(`--label-names are ${labelNames.join(", ")}: wanted one name, for the score`);
  }
  const { textColumn, pairColumn, labelColumn } = files;
  const read = async (path: string, limit: number | undefined) =>
    (await readExamples(path, { textColumn, pairColumn, labelColumn, limit, scores: true })).examples;
  return {
    train: await read(files.train, maximumTrainSamples),
    evaluation: files.evaluation === undefined ? [] : await read(files.evaluation, maximumEvalSamples),
    labels: labelNames,
    kind: "scores",
  };
}

/** Gives the classes the names a user wants to read in answers. */
function renameLabels(texts: LabelledTexts, names: readonly string[] | undefined): LabelledTexts {
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
