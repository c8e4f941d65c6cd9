/**
 * What a masked language model's guesses are worth.
 * @module
 */
import { type Evaluation, primaryMetric } from "./metrics.ts";

/** What guesses at masked tokens came to. */
export interface MaskedTokenCounts {
  /** Sum of the cross-entropies, natural logarithm. */
  readonly lossSum: number;
  /** Masked tokens. */
  readonly tokens: number;
  /** Those whose most likely token is the right one. */
  readonly right: number;
  /** Sequences that they are in. */
  readonly examples: number;
}

/**
 * Loss, perplexity (e to the mean cross-entropy) and accuracy over the masked tokens. Chosen by perplexity. It is that of
 * tokens with context on both sides: not to be held against that of models which read from left to right.
 */
export function maskedLanguageEvaluation(
  { lossSum, tokens, right, examples }: MaskedTokenCounts,
): Evaluation {
  const loss = lossSum / tokens;
  const metrics = { perplexity: Math.exp(loss), accuracy: right / tokens };
  return { loss, examples, metrics, primary: primaryMetric(metrics, "perplexity", false) };
}
