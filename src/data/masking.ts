/**
 * Which tokens of a sequence are masked, and what stands in their place (Devlin et al., arXiv 1810.04805, § 3.1): 15 % of
 * a sequence are to be guessed; of these 80 % are replaced by the mask token, 10 % by any token, and 10 % stay.
 * @module
 */
import { type RandomKey, RandomStream } from "../core/random.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { InputError } from "../core/errors.ts";

/** What masking must know of a tokenizer. */
export interface MaskingRule {
  /** Id of the mask token. */
  readonly maskId: number;
  /** Tokens to draw others from: ids 0 to vocabulary − 1. */
  readonly vocabularySize: number;
  /** Special tokens at the start and at the end of a sequence, which are never masked. */
  readonly before: number;
  readonly after: number;
}

/** Share of the tokens that are to be guessed. */
const guessedShare = 0.15;

/** The rule for a tokenizer. Throws InputError when it has no mask token. */
export function maskingRule({ maskId, vocabularySize, frame }: Tokenizer): MaskingRule {
  if (maskId === undefined) {
    throw new InputError("The tokenizer has no mask token ([MASK] or <mask>), which masked-lm wants");
  }
  return { maskId, vocabularySize, before: frame.before.length, after: frame.after.length };
}

/** A sequence with holes. */
export interface MaskedSequence {
  /** All tokens, some replaced. */
  readonly ids: Int32Array;
  /** Places of the tokens to be guessed, rising. */
  readonly places: Int32Array;
}

/** How many of so many tokens of text are to be guessed: at least one, if there is one. */
export function guessCount(tokens: number): number {
  return Math.min(tokens, Math.max(1, Math.round(guessedShare * tokens)));
}

/** The most tokens to be guessed in a batch of that size. */
export function maximumGuesses({ columns, sequences }: { columns: number; sequences: number }): number {
  // Of each sequence at most one more than the share: where that is less than one, it is one.
  return Math.min(columns, Math.ceil(guessedShare * columns) + sequences);
}

/** Masks a sequence. The same key always gives the same. */
export function maskSequence(ids: Int32Array, rule: MaskingRule, key: RandomKey): MaskedSequence {
  const stream = new RandomStream(key);
  const { before, after, maskId, vocabularySize } = rule;
  const tokens = Math.max(0, ids.length - before - after);
  const order = Array.from({ length: tokens }, (_, index) => before + index);
  const places = Int32Array.from(stream.shuffle(order).slice(0, guessCount(tokens))).sort();
  const masked = ids.slice();
  for (const place of places) {
    const draw = stream.uniform();
    if (draw < 0.8) masked[place] = maskId;
    else if (draw < 0.9) masked[place] = stream.below(vocabularySize);
  }
  return { ids: masked, places };
}
