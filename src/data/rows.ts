/**
 * From a file's bytes to rows of fields: tab separated (GLUE), comma separated (RFC 4180) and JSON Lines, each also
 * gzipped. The extension decides. What the columns mean is `table.ts`'s business.
 * @module
 */
import { CsvError, parse as parseCsv } from "csv-parse/sync";
import { errorMessage, InputError } from "../core/errors.ts";

/** One row: its fields in column order, and the line it ends on (from 1) for error messages. */
export interface Row {
  readonly line: number;
  /** Text in TSV and CSV; any JSON value, or undefined where the key is missing, in JSON Lines. */
  readonly fields: readonly unknown[];
}

/** A file's rows. Without a header the columns are named by position: "1", "2", … */
export interface Rows {
  readonly columns: readonly string[];
  readonly rows: readonly Row[];
}

/** How to read a file. */
export interface RowOptions {
  /** The first row of TSV and CSV names the columns. JSON Lines name their own and ignore this. */
  readonly header: boolean;
  /** Rows to read at most. */
  readonly limit: number;
}

const readers: Readonly<Record<string, (text: string, path: string, options: RowOptions) => Rows>> = {
  ".tsv": readTabs,
  ".txt": readTabs,
  ".csv": readCommas,
  ".jsonl": readJsonLines,
  ".ndjson": readJsonLines,
  ".json": readJsonLines,
};

/** Whether a path's format has a header line; JSON Lines carry the names in each row. */
export function hasNamedFields(path: string): boolean {
  return readers[extensionOf(path)] === readJsonLines;
}

/** Whether a path is of plain text, one paragraph a line, where that is wanted; as a table it is tab separated. */
export function isPlainText(path: string): boolean {
  return extensionOf(path) === ".txt";
}

/** The lines of a text file that are not blank, from the start, `limit` at most. Throws InputError when there is none. */
export async function readLines(path: string, limit: number): Promise<string[]> {
  const lines = numberedLines(await readText(path)).map(({ content }) => content.trim());
  const found = [...lines.filter((line) => line !== "").take(limit)];
  if (found.length === 0) throw new InputError(`${path} is empty`);
  return found;
}

/** Reads a file's rows. Throws InputError on anything that cannot be read as the format its extension promises. */
export async function readRows(path: string, options: RowOptions): Promise<Rows> {
  const reader = readers[extensionOf(path)];
  if (!reader) {
    const known = Object.keys(readers).join(", ");
    throw new InputError(
      `Cannot tell the format of ${path}: wanted one of ${known}, or one of these with .gz`,
    );
  }
  const text = await readText(path);
  if (text.trim() === "") throw new InputError(`${path} is empty`);
  const table = reader(text, path, options);
  if (table.rows.length === 0) throw new InputError(`${path} has a header but no rows`);
  return table;
}

function extensionOf(path: string): string {
  return /\.[^./\\]*$/.exec(path.toLowerCase().replace(/\.gz$/, ""))?.[0] ?? "";
}

/** UTF-8 text of a file, unzipped, without the byte order mark. */
async function readText(path: string): Promise<string> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await Deno.readFile(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : errorMessage(error);
    throw new InputError(`Cannot read ${path}: ${reason}`);
  }
  if (path.toLowerCase().endsWith(".gz")) {
    try {
      const unzipped = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      bytes = new Uint8Array(await new Response(unzipped).arrayBuffer());
    } catch (error) {
      throw new InputError(`Cannot unzip ${path}: ${errorMessage(error)}`);
    }
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new InputError(`${path} is not UTF-8 text`);
  }
}

/** The lines that are not blank, numbered from 1. */
function* numberedLines(text: string): Generator<{ line: number; content: string }> {
  let line = 0;
  for (let start = 0; start < text.length;) {
    const found = text.indexOf("\n", start);
    const end = found < 0 ? text.length : found;
    line++;
    const content = text.slice(start, text[end - 1] === "\r" ? end - 1 : end);
    if (content !== "") yield { line, content };
    start = end + 1;
  }
}

/** Quotes are literal characters here: GLUE's files hold unpaired ones. */
function readTabs(text: string, path: string, options: RowOptions): Rows {
  const records = numberedLines(text).take(options.limit + 1)
    .map(({ line, content }): Row => ({ line, fields: content.split("\t") }));
  return named([...records], path, options);
}

function readCommas(text: string, path: string, options: RowOptions): Rows {
  const records: Row[] = [];
  try {
    parseCsv(text, {
      skip_empty_lines: true,
      // `named` counts the columns, for both formats alike.
      relax_column_count: true,
      ...(options.limit < Infinity && { to: options.limit + 1 }),
      on_record: (fields: string[], { lines }) => {
        records.push({ line: lines, fields });
        return null;
      },
    });
  } catch (error) {
    if (error instanceof CsvError) throw new InputError(`Cannot read ${path} as CSV: ${errorMessage(error)}`);
    throw error;
  }
  return named(records, path, options);
}

/** Splits off the header, or numbers the columns, and checks that every row has as many fields. */
function named(records: Row[], path: string, { header, limit }: RowOptions): Rows {
  const first = records[0].fields.map(String);
  const columns = header ? first.map((name) => name.trim()) : first.map((_, index) => `${index + 1}`);
  const rows = header ? records.slice(1) : records.slice(0, limit);
  for (const { line, fields } of rows) {
    if (fields.length !== columns.length) {
      throw new InputError(
        `${path} line ${line} has ${fields.length} fields, wanted ${columns.length} (${columns.join(", ")})`,
      );
    }
  }
  return { columns, rows };
}

/** Columns are the keys of the first object; `null` counts as missing. */
function readJsonLines(text: string, path: string, { limit }: RowOptions): Rows {
  let columns: string[] = [];
  const rows: Row[] = [];
  for (const { line, content } of numberedLines(text)) {
    if (rows.length === limit) break;
    if (content.trim() === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(content);
    } catch (error) {
      throw new InputError(`${path} line ${line} is not JSON: ${errorMessage(error)}`);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new InputError(`${path} line ${line} is ${content.slice(0, 40)}, wanted a JSON object per line`);
    }
    const object = value as Record<string, unknown>;
    if (rows.length === 0) columns = Object.keys(object);
    rows.push({ line, fields: columns.map((name) => object[name] ?? undefined) });
  }
  return { columns, rows };
}
