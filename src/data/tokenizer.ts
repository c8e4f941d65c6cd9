/**
 * Text to token ids, with the ids that Hugging Face's tokenizers give: `@huggingface/tokenizers` does the work, this
 * adds pairs, truncation, and what it gets differently from the original (see `prepare`).
 *
 *     const tokenizer = loadTokenizer(files);                 // a model folder's files by name
 *     const { ids, typeIds } = tokenizer.encode("a text", "its pair", 128);
 * @module
 */
import { tokenizerFileNames } from "../checkpoint/tokenizer_files.ts";
import { Tokenizer as Backend } from "@huggingface/tokenizers";
import { errorMessage, InputError, UnsupportedError } from "../core/errors.ts";
import { type WordPieceOptions, wordPieceTokenizerConfig, wordPieceTokenizerJson } from "./wordpiece.ts";

/** One encoded text or pair. */
export interface Encoding {
  /** Token ids, special tokens included. */
  readonly ids: number[];
  /** Segment of each token: 0, and 1 for the pair of models that have segments. */
  readonly typeIds: number[];
  /** Tokens there would be without truncation. */
  readonly fullLength: number;
  /** Whether tokens were cut off: `fullLength > ids.length`. */
  readonly truncated: boolean;
}

/** A loaded tokenizer. */
export interface Tokenizer {
  /**
   * Encodes a text or a pair into at most `maximumTokens` tokens. Padding and truncation settings stored in the
   * files do not apply. A pair is cut longest first. Throws InputError when only special tokens would fit.
   */
  encode(text: string, pair: string | undefined, maximumTokens: number): Encoding;
  /** Ids of a text's own tokens, however many: no special ones, and nothing is cut. */
  tokenIds(text: string): number[];
  /** Ids of the special tokens that `encode` puts around a text. */
  readonly frame: { readonly before: readonly number[]; readonly after: readonly number[] };
  /** The id of a token; undefined where the vocabulary lacks it. */
  tokenId(token: string): number | undefined;
  /** Rows an embedding needs: the largest id, plus one. */
  readonly vocabularySize: number;
  /** Id of the padding token. */
  readonly padId: number;
  /** Id of the token that stands for a masked one; undefined where there is none. */
  readonly maskId: number | undefined;
  /** The files to copy beside a model: as they were given, plus those made for it where it came with too few. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** A token as `tokenizer_config.json` has it. */
type SpecialToken = string | { readonly content: string };

/** The parts of `tokenizer_config.json` this file looks at. */
interface TokenizerConfig {
  readonly pad_token?: SpecialToken;
  readonly mask_token?: SpecialToken;
}

/** The parts of `tokenizer.json` this file looks at. */
interface TokenizerJson {
  readonly normalizer: { readonly type: string; readonly lowercase?: boolean } | null;
  readonly model?: { readonly type?: string };
  readonly post_processor: { readonly type: string } | null;
}

/**
 * Makes a tokenizer of a folder's files; others than `tokenizerFileNames` are ignored. With `vocab.txt` alone it is
 * BERT's WordPiece, lower-casing unless `tokenizer_config.json` says otherwise. Throws InputError on files it
 * cannot use, UnsupportedError on a kind of model the library lacks.
 */
export function loadTokenizer(given: ReadonlyMap<string, Uint8Array>): Tokenizer {
  const files = new Map(tokenizerFileNames.flatMap((name) => {
    const bytes = given.get(name);
    return bytes ? [[name, bytes]] : [];
  }));
  if (!files.has("tokenizer.json")) makeTokenizerJson(files);
  const json = readJson<TokenizerJson>(files, "tokenizer.json");
  const config = files.has("tokenizer_config.json")
    ? readJson<TokenizerConfig>(files, "tokenizer_config.json")
    : {};
  const model = json.model?.type;
  if (model !== undefined && !["WordPiece", "BPE", "Unigram"].includes(model)) {
    // The library would take it for something else.
    throw new UnsupportedError(`tokenizer.json has a ${model} model: wanted WordPiece, BPE or Unigram`);
  }
  let backend: Backend;
  try {
    backend = new Backend(json, config);
  } catch (error) {
    throw new InputError(`Cannot use tokenizer.json: ${errorMessage(error)}`);
  }
  const specialId = (token: SpecialToken | undefined, usual: readonly string[]) => {
    const names = token === undefined ? usual : [typeof token === "string" ? token : token.content];
    return { names, id: names.map((name) => backend.token_to_id(name)).find((id) => id !== undefined) };
  };
  const pad = specialId(config.pad_token, ["[PAD]", "<pad>"]);
  if (pad.id === undefined) {
    throw new InputError(`The tokenizer has no padding token (${pad.names.join(" or ")})`);
  }

  return {
    encode: (text, pair, maximumTokens) => encode(backend, json, text, pair, maximumTokens),
    tokenIds: (text) => idsOf(backend, tokensOf(backend, json, text)),
    frame: frameOf(backend),
    tokenId: (token) => backend.token_to_id(token),
    vocabularySize: backend.get_vocab().values().reduce((size, id) => Math.max(size, id + 1), 0),
    padId: pad.id,
    maskId: specialId(config.mask_token, ["[MASK]", "<mask>"]).id,
    files,
  };
}

/** Every id the tokenizer can give must have a row in the model's word embeddings. Throws InputError otherwise. */
export function checkTokenizer(tokenizer: Tokenizer, config: { readonly vocabularySize: number }): void {
  if (tokenizer.vocabularySize <= config.vocabularySize) return;
  throw new InputError(
    `the tokenizer has ${tokenizer.vocabularySize} tokens: wanted at most ${config.vocabularySize}, ` +
      `the rows of the model's word embeddings`,
  );
}

function readJson<T>(files: ReadonlyMap<string, Uint8Array>, name: string): T {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(files.get(name)));
  } catch (error) {
    throw new InputError(`${name} is not JSON: ${errorMessage(error)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InputError(`${name} is not a JSON object`);
  }
  return value as T;
}

/** Adds the files that `vocab.txt` implies, so that the folder also loads where only `tokenizer.json` is read. */
function makeTokenizerJson(files: Map<string, Uint8Array>): void {
  const vocabulary = files.get("vocab.txt");
  if (!vocabulary) throw new InputError("There is no tokenizer: wanted tokenizer.json or vocab.txt");
  const options = files.has("tokenizer_config.json")
    ? readJson<WordPieceOptions>(files, "tokenizer_config.json")
    : {};
  const tokens = new TextDecoder().decode(vocabulary).replace(/\r?\n$/, "").split(/\r?\n/);
  const encoder = new TextEncoder();
  files.set("tokenizer.json", encoder.encode(JSON.stringify(wordPieceTokenizerJson(tokens, options))));
  if (!files.has("tokenizer_config.json")) {
    const config = JSON.stringify(wordPieceTokenizerConfig(options), null, 2);
    files.set("tokenizer_config.json", encoder.encode(config));
  }
}

function tokensOf(backend: Backend, json: TokenizerJson, text: string): string[] {
  return backend.tokenize(prepare(text, json), { add_special_tokens: false });
}

function idsOf(backend: Backend, tokens: readonly string[]): number[] {
  const unknownId = backend.model?.unk_token_id;
  return tokens.map((token) => {
    const id = backend.token_to_id(token) ?? unknownId;
    if (id === undefined) throw new InputError(`The tokenizer has no token for ${JSON.stringify(token)}`);
    return id;
  });
}

/** The tokens of a text, or of two, with the special tokens around them. */
function assemble(backend: Backend, first: string[], second: string[] | undefined) {
  return backend.post_processor?.post_process(first, second ?? null, true) ??
    { tokens: first.concat(second ?? []), token_type_ids: undefined };
}

function frameOf(backend: Backend): Tokenizer["frame"] {
  const text = "text";
  const { tokens } = assemble(backend, [text], undefined);
  const place = tokens.indexOf(text);
  return { before: idsOf(backend, tokens.slice(0, place)), after: idsOf(backend, tokens.slice(place + 1)) };
}

function encode(
  backend: Backend,
  json: TokenizerJson,
  text: string,
  pair: string | undefined,
  maximumTokens: number,
): Encoding {
  const first = tokensOf(backend, json, text);
  const second = pair === undefined ? undefined : tokensOf(backend, json, pair);
  const specials = assemble(backend, [], second && []).tokens.length;
  const room = maximumTokens - specials;
  if (!(room > 0)) {
    throw new InputError(
      `The maximum of ${maximumTokens} tokens leaves no room beside ${specials} special tokens`,
    );
  }
  const [firstLength, secondLength] = truncatedLengths(first.length, second?.length ?? 0, room);
  const { tokens, token_type_ids } = assemble(
    backend,
    first.slice(0, firstLength),
    second?.slice(0, secondLength),
  );
  const ids = idsOf(backend, tokens);
  // RoBERTa has one segment; the library counts two all the same.
  const segments = json.post_processor?.type === "RobertaProcessing" ? undefined : token_type_ids;
  const fullLength = first.length + (second?.length ?? 0) + specials;
  return {
    ids,
    typeIds: segments ?? ids.map(() => 0),
    fullLength,
    truncated: fullLength > ids.length,
  };
}

/**
 * Longest-first truncation in closed form, as in Hugging Face's `truncate_encodings`: the longer text gives way
 * until both are equal, then both share the room; of an odd rest the longer one gets the extra token.
 */
function truncatedLengths(first: number, second: number, room: number): [number, number] {
  if (first > second) return truncatedLengths(second, first, room).reverse() as [number, number];
  if (first + second <= room) return [first, second];
  const half = Math.floor(room / 2);
  return first <= half ? [first, room - first] : [half, room - half];
}

/**
 * Letters that BERT makes words of, beyond the 16 bits the library looks at: CJK extensions B–E and compatibility.
 * The gap before 2b920 is in Hugging Face's own table (BERT's has 2b820).
 */
const highChinese = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

/**
 * Evens out where the library's BertNormalizer differs from the original, both found by comparing every code point (what
 * is left are letters newer than the Unicode tables of the original): JavaScript lower-cases a final Σ to ς where Rust, going letter by letter, gives σ; and Chinese characters outside
 * the basic plane are not set apart.
 */
function prepare(text: string, { normalizer }: TokenizerJson): string {
  const wellFormed = text.toWellFormed();
  if (normalizer?.type !== "BertNormalizer") return wellFormed;
  const spaced = wellFormed.replace(highChinese, " $& ");
  return normalizer.lowercase ? spaced.replaceAll("Σ", "σ") : spaced;
}
