/**
 * The embedded default dataset: short English reviews of films, products and restaurants with their sentiment, drawn
 * from the grammar in `grammar.ts`. Nothing is downloaded, and the same seed always gives the same sentences.
 *
 * How hard it is, measured on seed 42: naive Bayes over words gets 56 % of the evaluation set right; a dense encoder
 * of 2 layers, hidden size 128, 2 heads, from random weights (PyTorch, AdamW, learning rate 5e-4 with a tenth of
 * warm-up and linear decay, batches of 32, dropout 0.1) gets 80 % after 2 epochs and 99.7 % after 10. A harder
 * version, with negation in asides too and 42 % of the clauses turned round, ended at 56 %.
 * @module
 */
import { randomKey, RandomStream } from "../core/random.ts";
import type { Example } from "../data/table.ts";
import { wordPieceFiles, wordPieceSpecialTokens } from "../data/wordpiece.ts";
import { makeReview, reviewVocabulary } from "./grammar.ts";

/** How many reviews to draw. */
export interface ReviewRequest {
  readonly seed: number;
  /** Default 8000. */
  readonly train?: number;
  /** Default 1000. */
  readonly evaluation?: number;
}

/** Two sets of reviews, labelled "positive" and "negative" in equal parts, without a repeated sentence. */
export interface Reviews {
  readonly train: Example[];
  readonly evaluation: Example[];
}

/** Draws reviews; the grammar has many millions, so a repeated one is simply drawn again. */
export function makeReviews({ seed, train = 8000, evaluation = 1000 }: ReviewRequest): Reviews {
  const random = new RandomStream(randomKey(seed, "reviews"));
  const seen = new Set<string>();
  const draw = (label: string): Example => {
    for (;;) {
      const text = makeReview(random, label === "positive" ? 1 : -1);
      if (seen.size < seen.add(text).size) return { text, label };
    }
  };
  const set = (count: number) =>
    random.shuffle(
      Array.from({ length: count }, (_, index) => draw(index % 2 === 0 ? "positive" : "negative")),
    );
  return { train: set(train), evaluation: set(evaluation) };
}

/**
 * Files of the reviews' tokenizer: a lower-casing BERT WordPiece with every word of the grammar, and letters, digits
 * and punctuation as a fallback, so that other text becomes tokens too.
 */
export function reviewTokenizerFiles(): Map<string, Uint8Array> {
  const printable = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index));
  const characters = printable.filter((character) => !/[A-Z]/.test(character));
  const continuations = characters.filter((character) => /[a-z0-9]/.test(character));
  return wordPieceFiles([
    ...wordPieceSpecialTokens,
    ...characters,
    ...continuations.map((character) => `##${character}`),
    ...reviewVocabulary().filter((word) => word.length > 1),
  ]);
}
