/**
 * Names of the files that describe a tokenizer in a Hugging Face folder.
 * @module
 */

/** Files that belong to a tokenizer; a folder has some of them, and a copy of a model takes them along. */
export const tokenizerFileNames: readonly string[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "vocab.txt",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "spiece.model",
  "sentencepiece.bpe.model",
];
