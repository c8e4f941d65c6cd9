/**
 * The files of a BERT WordPiece tokenizer, made from its vocabulary: `tokenizer.json`, `tokenizer_config.json` and
 * `vocab.txt` as Python's transformers and transformers.js load them.
 * @module
 */
import { InputError } from "../core/errors.ts";

/** How BERT cleans text, under the names of `tokenizer_config.json`. Absent means BERT's own default. */
export interface WordPieceOptions {
  /** Lower case; also strips accents unless `strip_accents` says otherwise. Default true. */
  readonly do_lower_case?: boolean;
  /** Default null: strip where lower-casing. */
  readonly strip_accents?: boolean | null;
  /** Make every Chinese character a word. Default true. */
  readonly tokenize_chinese_chars?: boolean;
}

const specialTokens = {
  pad_token: "[PAD]",
  unk_token: "[UNK]",
  cls_token: "[CLS]",
  sep_token: "[SEP]",
  mask_token: "[MASK]",
} as const;

/** BERT's special tokens, in the order in which a new vocabulary starts with them. */
export const wordPieceSpecialTokens: readonly string[] = Object.values(specialTokens);

/**
 * `tokenizer.json` of a vocabulary, whose ids are the positions in the list.
 * Throws InputError when one of the special tokens is not in it.
 */
export function wordPieceTokenizerJson(
  vocabulary: readonly string[],
  options: WordPieceOptions,
): Record<string, unknown> {
  const vocab = Object.fromEntries(vocabulary.map((token, id) => [token, id]));
  const missing = wordPieceSpecialTokens.filter((token) => !Object.hasOwn(vocab, token));
  if (missing.length > 0) {
    throw new InputError(`The vocabulary of ${vocabulary.length} tokens has no ${missing.join(", ")}`);
  }
  const special = (content: string, type_id: number) => ({ SpecialToken: { id: content, type_id } });
  const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  const single = [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)];
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: wordPieceSpecialTokens.toSorted((a, b) => vocab[a] - vocab[b]).map((content) => ({
      id: vocab[content],
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: options.tokenize_chinese_chars ?? true,
      strip_accents: options.strip_accents ?? null,
      lowercase: options.do_lower_case ?? true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single,
      pair: [...single, sequence("B", 1), special("[SEP]", 1)],
      special_tokens: Object.fromEntries(
        ["[CLS]", "[SEP]"].map((token) => [token, { id: token, ids: [vocab[token]], tokens: [token] }]),
      ),
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab,
    },
  };
}

/** `tokenizer_config.json` to go with it. */
export function wordPieceTokenizerConfig(options: WordPieceOptions): Record<string, unknown> {
  return {
    tokenizer_class: "BertTokenizer",
    do_lower_case: options.do_lower_case ?? true,
    strip_accents: options.strip_accents ?? null,
    tokenize_chinese_chars: options.tokenize_chinese_chars ?? true,
    model_max_length: 512,
    ...specialTokens,
  };
}

/** All three files of a vocabulary, by name. */
export function wordPieceFiles(
  vocabulary: readonly string[],
  options: WordPieceOptions = {},
): Map<string, Uint8Array> {
  const encoder = new TextEncoder();
  const json = (value: unknown) => encoder.encode(`${JSON.stringify(value, null, 2)}\n`);
  return new Map([
    ["tokenizer.json", json(wordPieceTokenizerJson(vocabulary, options))],
    ["tokenizer_config.json", json(wordPieceTokenizerConfig(options))],
    ["vocab.txt", encoder.encode(`${vocabulary.join("\n")}\n`)],
  ]);
}
