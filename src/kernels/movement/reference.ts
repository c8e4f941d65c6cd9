/**
 * The gradient of movement pruning's scores by its definition.
 * @module
 */

/** What the gradient is made of, element by element. */
export interface MovementOperands {
  /** Of the loss by the masked weights, pruned ones too. */
  readonly gradients: ArrayLike<number>;
  /** Of kept places; 0 at pruned ones. */
  readonly weights: ArrayLike<number>;
  /** Of pruned places; 0 at kept ones. */
  readonly dormant: ArrayLike<number>;
  readonly scores: ArrayLike<number>;
}

/**
 * dL/dS = dL/dW' · W, where W' = M · W: straight through the mask, so that a pruned weight that should return gains score.
 * The penalty λ · share · Σ σ(S) adds λ · share · σ(S) · (1 − σ(S)).
 */
export function movementReference(
  { gradients, weights, dormant, scores }: MovementOperands,
  penalty = 0,
  share = 0,
): Float64Array {
  return Float64Array.from(gradients, (gradient, index) => {
    const sigmoid = 1 / (1 + Math.exp(-scores[index]));
    const slope = penalty === 0 ? 0 : penalty * share * sigmoid * (1 - sigmoid);
    return gradient * (weights[index] + dormant[index]) + slope;
  });
}
