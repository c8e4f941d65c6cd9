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
import { type EncodedSet, encodedSetOf } from "./encoded_set.ts";
import { type DataReport, dataReport } from "./report.ts";
import { type Example, type ExampleOptions, labelIndices, labelsOf, readExamples } from "./table.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import { buildVocabulary } from "./vocabulary.ts";

/** Where texts come from: files, or whoever has them already. */
export type DataSource = { readonly files: DataFiles } | { readonly texts: LabelledTexts };

/** Files and how to read them. */
export interface DataFiles extends Pick<ExampleOptions, "textColumn" | "pairColumn" | "labelColumn"> {
  /** Path of the training file. */
  readonly train: string;
  /** Path of the evaluation file. */
  readonly evaluation?: string;
  /** Training rows to read at most. */
  readonly maximumTrainSamples?: number;
  /** Evaluation rows to read at most. */
  readonly maximumEvalSamples?: number;
  /** Names for the labels found, in their order. */
  readonly labelNames?: readonly string[];
}

/** Texts to train on and to evaluate with. */
export interface LabelledTexts {
  readonly train: readonly Example[];
  readonly evaluation: readonly Example[];
  /** The classes: every text has one of them. */
  readonly labels: readonly string[];
}

/** What `read` found. */
export interface DataSummary {
  /** The classes, by the names they were given if they were; in the order of the file's labels. */
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
  /** Tokens at which texts are cut. */
  readonly maximumLength: number;
}

/** Everything known of the data once they are tokenised. */
export interface EncodedData {
  readonly train: EncodedSet;
  /** Of no examples when there is no evaluation file. */
  readonly evaluation: EncodedSet;
  readonly report: DataReport;
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
    const { train, evaluation } = this.#texts;
    const tokenizer = loadTokenizer(tokenizerFiles);
    const encode = (examples: readonly Example[], done: number) =>
      encodeExamples(examples, labels, tokenizer, maximumLength, (rows) => progress(done + rows));
    const encoded = { train: encode(train, 0), evaluation: encode(evaluation, train.length) };
    return {
      train: encodedSetOf(encoded.train.examples),
      evaluation: encodedSetOf(encoded.evaluation.examples),
      report: dataReport(
        { examples: train, lengths: encoded.train.fullLengths },
        evaluation.length > 0 ? { examples: evaluation, lengths: encoded.evaluation.fullLengths } : undefined,
        maximumLength,
      ),
      digests: {
        train: digestOf(encoded.train.examples),
        evaluation: digestOf(encoded.evaluation.examples),
      },
    };
  }
}

/** Tokenises examples. `fullLengths` are the lengths before truncation, for the report. */
function encodeExamples(
  examples: readonly Example[],
  labels: readonly string[],
  tokenizer: Tokenizer,
  maximumLength: number,
  progress: (rows: number) => void,
): { examples: EncodedExample[]; fullLengths: number[] } {
  const classes = labelIndices(examples, labels);
  const fullLengths: number[] = [];
  const encoded = examples.map(({ text, pair }, index): EncodedExample => {
    const { ids, typeIds, fullLength } = tokenizer.encode(text, pair, maximumLength);
    fullLengths.push(fullLength);
    progress(index + 1);
    return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds), label: classes[index] };
  });
  return { examples: encoded, fullLengths };
}

function digestOf(examples: readonly EncodedExample[]): string {
  const hash = createHash("sha256");
  for (const { ids, label } of examples) hash.update(`${label}:${ids.join()};`);
  return hash.digest("hex").slice(0, 12);
}

async function readFiles(files: DataFiles): Promise<LabelledTexts> {
  const { textColumn, pairColumn, labelColumn } = files;
  const columns = { textColumn, pairColumn, labelColumn };
  const train = await readExamples(files.train, { ...columns, limit: files.maximumTrainSamples });
  const labels = labelsOf(train.examples);
  const evaluation = files.evaluation === undefined ? [] : (await readExamples(files.evaluation, {
    ...columns,
    labels,
    limit: files.maximumEvalSamples,
  })).examples;
  return renameLabels({ train: train.examples, evaluation, labels }, files.labelNames);
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
