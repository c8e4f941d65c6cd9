/**
 * Running text to learn a language from: read, tokenised, and cut into sequences of one length.
 *
 *     const lines = await readCorpus("wikitext-2/valid.txt.gz");
 *     const { examples } = cutCorpus(lines, tokenizer, 128);      // [CLS] 126 tokens [SEP], and so on
 *
 * Lines are joined end to end before they are cut, as in Hugging Face's `run_mlm`: short ones waste nothing and long
 * ones lose nothing. What is left at the end makes a sequence of its own.
 * @module
 */
import { InputError } from "../core/errors.ts";
import type { EncodedExample } from "./batches.ts";
import { isPlainText, readLines } from "./rows.ts";
import { type ExampleOptions, readExamples } from "./table.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What is read of a corpus. */
export type CorpusOptions = Pick<ExampleOptions, "textColumn" | "pairColumn" | "limit">;

/**
 * The lines of a `.txt` file, or the texts of a table (see `readExamples`; pairs follow their texts), without blank ones.
 * Throws InputError with the path when it cannot be read or nothing is in it.
 */
export async function readCorpus(path: string, options: CorpusOptions = {}): Promise<string[]> {
  if (isPlainText(path)) return await readLines(path, options.limit ?? Infinity);
  const { textColumn, pairColumn, limit } = options;
  const { examples } = await readExamples(path, { textColumn, pairColumn, limit });
  const texts = examples.flatMap(({ text, pair }) => pair === undefined ? [text] : [text, pair]);
  const lines = texts.map((text) => text.trim()).filter((text) => text !== "");
  if (lines.length === 0) throw new InputError(`${path} holds blank texts only`);
  return lines;
}

/** A corpus cut into sequences. */
export interface CutCorpus {
  /** Sequences; they have no label. */
  readonly examples: EncodedExample[];
  /** Tokens of each line, without those put around each sequence. */
  readonly lengths: number[];
}

/**
 * Tokenises lines and cuts them into sequences of `maximumLength` tokens, those that the tokenizer puts around a text
 * included. `progress` hears of every line. Throws InputError when such a sequence has no room for text.
 */
export function cutCorpus(
  lines: readonly string[],
  tokenizer: Tokenizer,
  maximumLength: number,
  progress: (lines: number) => void = () => {},
): CutCorpus {
  const { before, after } = tokenizer.frame;
  const room = maximumLength - before.length - after.length;
  if (!(room > 0)) {
    throw new InputError(
      `The maximum of ${maximumLength} tokens leaves no room beside ${maximumLength - room} special tokens`,
    );
  }
  const examples: EncodedExample[] = [];
  const lengths: number[] = [];
  let rest: number[] = [];
  const add = (content: readonly number[]) => {
    const ids = Int32Array.from([...before, ...content, ...after]);
    examples.push({ ids, typeIds: new Uint8Array(ids.length), label: -1 });
  };
  for (const [index, line] of lines.entries()) {
    const ids = tokenizer.tokenIds(line);
    lengths.push(ids.length);
    let begin = 0;
    while (rest.length + ids.length - begin >= room) {
      const end = begin + room - rest.length;
      add([...rest, ...ids.slice(begin, end)]);
      rest = [];
      begin = end;
    }
    rest.push(...ids.slice(begin));
    progress(index + 1);
  }
  if (rest.length > 0) add(rest);
  return { examples, lengths };
}

/** What is known of a corpus for training, and of one for evaluation. */
export interface CorpusReport {
  readonly maximumTokens: number;
  readonly train: CorpusSize;
  readonly evaluation?: CorpusSize;
}

/** How large a corpus is. */
export interface CorpusSize {
  readonly lines: number;
  /** Tokens of the text itself. */
  readonly tokens: number;
  readonly sequences: number;
}

/** The report in one or two lines of text. */
export function formatCorpusReport({ maximumTokens, train, evaluation }: CorpusReport): string {
  const count = (value: number) => value.toLocaleString("en-US");
  const format = (name: string, { lines, tokens, sequences }: CorpusSize) =>
    `${name.padEnd(11)} ${count(lines)} lines, ${count(tokens)} tokens, in ${count(sequences)} sequences ` +
    `of at most ${maximumTokens}`;
  return [format("train", train), ...(evaluation ? [format("evaluation", evaluation)] : [])].join("\n");
}
