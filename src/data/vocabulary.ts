/**
 * A WordPiece vocabulary made from the training texts, for models that start from random weights and bring none.
 * @module
 */
import { wordPieceSpecialTokens } from "./wordpiece.ts";

/** Tokens in BERT's own vocabulary; the size of the presets' embedding tables. */
export const bertVocabularySize = 30522;

/**
 * The special tokens, every character seen (alone and as a `##` continuation, so that any text of the same alphabet
 * can be spelled), then the most frequent words, up to `size` tokens. Words are what BERT's pre-tokeniser makes of
 * lower-cased text: letters and digits together, punctuation alone. Ties go to the lower code points.
 */
export function buildVocabulary(texts: Iterable<string>, size: number = bertVocabularySize): string[] {
  const counts = new Map<string, number>();
  const characters = new Set<string>();
  for (const text of texts) {
    const plain = text.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase();
    for (const [word] of plain.matchAll(/[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu)) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
      for (const character of word) characters.add(character);
    }
  }
  const alphabet = [...characters].sort();
  const tokens = new Set([
    ...wordPieceSpecialTokens,
    ...alphabet,
    ...alphabet.map((character) => `##${character}`),
  ]);
  const byFrequency = [...counts].sort(([a, countA], [b, countB]) => countB - countA || (a < b ? -1 : 1));
  for (const [word] of byFrequency) {
    if (tokens.size >= size) break;
    tokens.add(word);
  }
  return [...tokens];
}
