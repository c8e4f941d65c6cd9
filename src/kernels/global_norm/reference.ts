/**
 * The norm of all gradients by its definition.
 * @module
 */

/** The norm of all gradients and the factor that clips them. */
export interface GlobalNorm {
  /** Length of the vector of all gradients. */
  readonly norm: number;
  /** What to multiply gradients by, at most 1. */
  readonly clip: number;
}

/**
 * norm = √Σ gradient² over all ranges, clip = min(1, maximumNorm / (norm + 10⁻⁶)) as PyTorch's `clip_grad_norm_`;
 * clip = 1 when maximumNorm ≤ 0, NaN when the norm is not finite.
 */
export function globalNormReference(
  gradients: readonly ArrayLike<number>[],
  maximumNorm: number,
): GlobalNorm {
  let sum = 0;
  for (const range of gradients) {
    for (let i = 0; i < range.length; i++) sum += range[i] ** 2;
  }
  const norm = Math.sqrt(sum);
  if (!Number.isFinite(norm)) return { norm, clip: NaN };
  return { norm, clip: maximumNorm > 0 ? Math.min(1, maximumNorm / (norm + 1e-6)) : 1 };
}
