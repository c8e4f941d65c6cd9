/**
 * Labelled texts from a file: which columns hold the text, its pair and the label, and what the labels are.
 *
 *     const { examples, columns } = await readExamples("SST-2/train.tsv.gz");
 *     const labels = labelsOf(examples);                      // ["0", "1"]
 *     const classes = labelIndices(examples, labels);         // Int32Array
 *
 * Columns are found by the names that GLUE and the Hugging Face hub use; options override them. A file without a
 * header (CoLA's train and dev) is read by giving column numbers, counted from 1: `{textColumn: "4", labelColumn:
 * "2"}`. Numbers always mean "this TSV or CSV has no header", so no first row is ever lost or guessed about.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { hasNamedFields, readRows, type Row } from "./rows.ts";

/** One text or pair of texts, with its label as the file spells it. */
export interface Example {
  readonly text: string;
  readonly pair?: string;
  readonly label?: string;
}

/** Names of the columns that were read. */
export interface ExampleColumns {
  readonly text: string;
  readonly pair?: string;
  readonly label?: string;
}

/** What `readExamples` found. */
export interface ExampleTable {
  readonly path: string;
  readonly examples: readonly Example[];
  readonly columns: ExampleColumns;
}

/** Overrides for `readExamples`. */
export interface ExampleOptions {
  /** Column of the text. When given, a pair is read only if `pairColumn` is given too. */
  readonly textColumn?: string;
  /** Column of the second text. */
  readonly pairColumn?: string;
  /** Column of the label. */
  readonly labelColumn?: string;
  /** The labels a model knows: every row must then have one of them. */
  readonly labels?: readonly string[];
  /** Whether labels are scores: every row must then have a number. */
  readonly scores?: boolean;
  /** Rows to read at most, from the start of the file. */
  readonly limit?: number;
}

/** Columns that hold two texts together, in order of preference (compared in lower case). */
const pairNames: readonly (readonly [text: string, pair: string])[] = [
  ["sentence1", "sentence2"],
  ["question1", "question2"],
  ["premise", "hypothesis"],
  ["question", "sentence"], // QNLI
  ["question", "answer"],
  ["question", "context"],
  ["query", "answer"],
  ["query", "passage"],
  ["query", "document"],
  ["text1", "text2"],
  ["text", "text_pair"],
  ["#1 string", "#2 string"], // MRPC
];

const textNames: readonly string[] = [
  "sentence",
  "text",
  "review",
  "sentence1",
  "question",
  "premise",
  "query",
  "content",
];

const labelNames: readonly string[] = [
  "label",
  "labels",
  "class",
  "sentiment",
  "gold_label",
  "quality", // MRPC
  "category",
  "target",
  "score", // STS-B
];

/**
 * Reads the examples of a TSV, CSV or JSON Lines file (see `rows.ts`).
 *
 * Labels are optional, as test files have none, unless `labelColumn`, `labels` or `scores` asks for them. Empty texts are
 * kept: the data report counts them. Throws InputError with the path, and the line where there is one.
 */
export async function readExamples(path: string, options: ExampleOptions = {}): Promise<ExampleTable> {
  const limit = options.limit ?? Infinity;
  if (!(limit === Infinity || (Number.isInteger(limit) && limit > 0))) {
    throw new InputError(`The limit of rows is ${limit}, wanted a positive integer`);
  }
  const header = hasNamedFields(path) || !columnNumbersGiven(options);
  const { columns: found, rows } = await readRows(path, { header, limit });
  const columns = chooseColumns(path, found, options, header);
  if ((options.labels || options.scores) && columns.label === undefined) {
    throw new InputError(`${path} has no label column; it has ${list(found)}`);
  }
  const indexOf = (name: string | undefined) => name === undefined ? -1 : found.indexOf(name);
  const [text, pair, label] = [columns.text, columns.pair, columns.label].map(indexOf);
  const known = options.scores ? "scores" : options.labels && new Set(options.labels);

  const examples = rows.map((row): Example => ({
    text: field(path, row, text, columns.text),
    ...(columns.pair !== undefined && { pair: field(path, row, pair, columns.pair) }),
    ...(columns.label !== undefined && { label: labelField(path, row, label, columns.label, known) }),
  }));
  return { path, examples, columns };
}

/** Whether the columns are given by number; mixing numbers and names is refused. */
function columnNumbersGiven({ textColumn, pairColumn, labelColumn }: ExampleOptions): boolean {
  const given = [textColumn, pairColumn, labelColumn].filter((name) => name !== undefined);
  const numbers = given.filter((name) => /^\d+$/.test(name));
  if (numbers.length === 0) return false;
  if (textColumn === undefined || numbers.length < given.length) {
    throw new InputError(
      `Columns are given as ${list(given)}: wanted names, or numbers for all of them and for the text column`,
    );
  }
  return true;
}

function chooseColumns(
  path: string,
  found: readonly string[],
  { textColumn, pairColumn, labelColumn }: ExampleOptions,
  header: boolean,
): ExampleColumns {
  for (const name of [textColumn, pairColumn, labelColumn]) {
    if (name === undefined || found.includes(name)) continue;
    if (header) throw new InputError(`${path} has no column ${JSON.stringify(name)}; it has ${list(found)}`);
    throw new InputError(`${path} has no column ${name}; it has ${found.length}, numbered from 1`);
  }
  const lower = found.map((name) => name.toLowerCase());
  const named = (name: string | undefined) => name === undefined ? undefined : found[lower.indexOf(name)];

  const pair = textColumn === undefined && pairColumn === undefined
    ? pairNames.find((names) => names.every((name) => lower.includes(name)))
    : undefined;
  const text = textColumn ?? named(pair?.[0] ?? textNames.find((name) => lower.includes(name)));
  if (text === undefined) {
    throw new InputError(
      `${path} has no column of a known text name; it has ${list(found)}. ` +
        `Name the text column, or give column numbers if there is no header`,
    );
  }
  const label = labelColumn ??
    (header ? named(labelNames.find((name) => lower.includes(name) && named(name) !== text)) : undefined);
  return { text, pair: pairColumn ?? named(pair?.[1]), label };
}

/** A field as text. JSON numbers and booleans are spelled out; lists and objects are refused. */
function field(path: string, { line, fields }: Row, index: number, name: string): string {
  const value = fields[index];
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const problem = value === undefined ? "has no" : "has a list or an object as";
  throw new InputError(`${path} line ${line} ${problem} ${JSON.stringify(name)}, wanted text`);
}

function labelField(
  path: string,
  row: Row,
  index: number,
  name: string,
  known: ReadonlySet<string> | "scores" | undefined,
): string {
  const label = field(path, row, index, name).trim();
  if (label === "") {
    throw new InputError(`${path} line ${row.line} has an empty label in ${JSON.stringify(name)}`);
  }
  if (known === "scores") {
    if (isScore(label)) return label;
    throw new InputError(
      `${path} line ${row.line} has the label ${JSON.stringify(label)} in ${
        JSON.stringify(name)
      }, wanted a number`,
    );
  }
  if (known && !known.has(label)) {
    throw new InputError(
      `${path} line ${row.line} has the unknown label ${JSON.stringify(label)}; known are ${
        list([...known])
      }`,
    );
  }
  return label;
}

const integerLike = /^[+-]?\d+$/;

/** Decimal numbers that f32 holds; `Number` alone would take hexadecimal ones too. */
function isScore(label: string): boolean {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(label) && Number.isFinite(Math.fround(Number(label)));
}

/**
 * The classes of a classification set: integers in numerical order, anything else in code point order.
 *
 * Throws InputError when a row has no label, when there is one class only, and when the labels are scores.
 */
export function labelsOf(examples: readonly Example[]): string[] {
  const labels = new Set<string>();
  for (const [index, { label }] of examples.entries()) {
    if (label === undefined) {
      throw new InputError(`Row ${index + 1} has no label: labels are wanted for training`);
    }
    labels.add(label);
  }
  const sorted = [...labels];
  if (sorted.length < 2) {
    throw new InputError(`There is one label only (${list(sorted)}): wanted at least two classes`);
  }
  if (sorted.every((label) => integerLike.test(label))) return sorted.sort((a, b) => Number(a) - Number(b));
  if (sorted.every((label) => Number.isFinite(Number(label)))) {
    throw new InputError(`The labels are scores (${list(sorted)}): wanted classes, or --task regression`);
  }
  return sorted.sort((a, b) => a < b ? -1 : 1);
}

/** Class numbers of the examples. Throws InputError for a missing or unknown label and lists the known ones. */
export function labelIndices(
  examples: readonly Example[],
  labels: readonly string[],
): Int32Array<ArrayBuffer> {
  const indices = new Map(labels.map((label, index) => [label, index]));
  return Int32Array.from(examples, ({ label }, row) => {
    const index = label === undefined ? undefined : indices.get(label);
    if (index !== undefined) return index;
    const problem = label === undefined ? "no label" : `the unknown label ${JSON.stringify(label)}`;
    throw new InputError(`Row ${row + 1} has ${problem}; known are ${list(labels)}`);
  });
}

/** Names for a message, cut where a headerless file would pour a whole row into it. */
function list(names: readonly string[]): string {
  const shown = names.slice(0, 12).map((name) => name.length > 40 ? `${name.slice(0, 37)}…` : name || '""');
  return shown.join(", ") + (names.length > 12 ? `, … (${names.length})` : "");
}
