/**
 * Logits to probabilities.
 * @module
 */

/** exp(logit) / Σ exp(logits), in float64; the largest logit is subtracted first, so that nothing overflows. */
export function softmax(logits: Float32Array): Float64Array {
  const largest = Math.max(...logits);
  const weights = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}
