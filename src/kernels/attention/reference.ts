/**
 * Multi-head attention over packed sequences as plain loops, and its gradient: the definition of both.
 *
 * Columns are tokens; sequence s owns the columns [offsets[s], offsets[s + 1]) and sees nothing else. Matrices are
 * row-major [hidden, columns]; head h owns the rows [h · headSize, (h + 1) · headSize).
 * @module
 */
import type { NumberArray } from "../../graph/operation.ts";
import { isKept } from "../dropout/reference.ts";

/** Sizes and dropout of one attention. */
export interface AttentionSizes {
  /** Heads. */
  readonly heads: number;
  /** Rows of a head. */
  readonly headSize: number;
  /** Columns of the matrices, padding included. */
  readonly columns: number;
  /** Probability that an attention probability is dropped; 0 needs no seed. */
  readonly dropout: number;
  /** Names this attention among the users of the step's seed. */
  readonly stream: number;
}

/** What backward needs besides the operands of forward. */
export interface AttentionSaved {
  /** Gradient of `context`. */
  readonly gradContext: NumberArray;
  /** Result of forward. */
  readonly context: NumberArray;
  /** [heads, columns] */
  readonly logSumExp: NumberArray;
}

/**
 * context[·, i] = Σ_j softmax_j(q_i · k_j / √headSize) · v_j within each head and sequence, and the logarithm of the
 * softmax's denominator, [heads, columns]. Columns of no sequence are 0 in both.
 */
export function attentionReference(
  q: NumberArray,
  k: NumberArray,
  v: NumberArray,
  offsets: NumberArray,
  seed: NumberArray | undefined,
  sizes: AttentionSizes,
): { context: NumberArray; logSumExp: NumberArray } {
  const { heads, headSize, columns } = sizes;
  const context = zerosLike(q, heads * headSize * columns);
  const logSumExp = zerosLike(q, heads * columns);
  const keep = keepFactor(seed, sizes);
  forEachQuery(offsets, sizes, ({ head, query, begin, end, row }) => {
    const scores = Array.from(
      { length: end - begin },
      (_, key) => dot(q, row + query, k, row + begin + key, sizes) / Math.sqrt(headSize),
    );
    const highest = scores.reduce((a, b) => Math.max(a, b));
    const exponentials = scores.map((score) => Math.exp(score - highest));
    const sum = exponentials.reduce((a, b) => a + b);
    logSumExp[head * columns + query] = highest + Math.log(sum);
    for (let d = 0; d < headSize; d++) {
      let total = 0;
      exponentials.forEach((exponential, key) => {
        const probability = (exponential / sum) * keep(query, head, key);
        total += probability * v[row + d * columns + begin + key];
      });
      context[row + d * columns + query] = total;
    }
  });
  return { context, logSumExp };
}

/** Gradients with respect to q, k and v. The probabilities are recomputed from `logSumExp`. */
export function attentionGradientReference(
  saved: AttentionSaved,
  q: NumberArray,
  k: NumberArray,
  v: NumberArray,
  offsets: NumberArray,
  seed: NumberArray | undefined,
  sizes: AttentionSizes,
): { gradQ: NumberArray; gradK: NumberArray; gradV: NumberArray } {
  const { gradContext, context, logSumExp } = saved;
  const { heads, headSize, columns } = sizes;
  const scale = 1 / Math.sqrt(headSize);
  const elements = heads * headSize * columns;
  const gradQ = zerosLike(q, elements);
  // Sums over queries, in double precision until they are complete.
  const gradK = new Float64Array(elements);
  const gradV = new Float64Array(elements);
  const keep = keepFactor(seed, sizes);
  forEachQuery(offsets, sizes, ({ head, query, begin, end, row }) => {
    // Σ_j P_j · dP_j, the part that softmax takes off: the same as Σ_d dContext_d · context_d.
    const delta = dot(gradContext, row + query, context, row + query, sizes);
    const gradQuery = new Float64Array(headSize);
    for (let key = 0; key < end - begin; key++) {
      const column = begin + key;
      const score = dot(q, row + query, k, row + column, sizes) * scale;
      const probability = Math.exp(score - logSumExp[head * columns + query]);
      const factor = keep(query, head, key);
      const gradProbability = dot(gradContext, row + query, v, row + column, sizes) * factor;
      const gradScore = probability * (gradProbability - delta);
      for (let d = 0; d < headSize; d++) {
        const feature = row + d * columns;
        gradQuery[d] += gradScore * k[feature + column] * scale;
        gradK[feature + column] += gradScore * q[feature + query] * scale;
        gradV[feature + column] += probability * factor * gradContext[feature + query];
      }
    }
    gradQuery.forEach((value, d) => gradQ[row + d * columns + query] = value);
  });
  const rounded = (source: Float64Array) => {
    const target = zerosLike(q, elements);
    target.set(source);
    return target;
  };
  return { gradQ, gradK: rounded(gradK), gradV: rounded(gradV) };
}

interface Query {
  readonly head: number;
  /** Column of the query. */
  readonly query: number;
  /** The sequence's columns. */
  readonly begin: number;
  readonly end: number;
  /** Index of the head's first row. */
  readonly row: number;
}

function forEachQuery(
  offsets: NumberArray,
  { heads, headSize, columns }: AttentionSizes,
  visit: (query: Query) => void,
): void {
  for (let sequence = 0; sequence + 1 < offsets.length; sequence++) {
    const [begin, end] = [offsets[sequence], offsets[sequence + 1]];
    for (let head = 0; head < heads; head++) {
      for (let query = begin; query < end; query++) {
        visit({ head, query, begin, end, row: head * headSize * columns });
      }
    }
  }
}

/** Σ_d a[d] · b[d] over one head's rows. */
function dot(
  a: NumberArray,
  aIndex: number,
  b: NumberArray,
  bIndex: number,
  { headSize, columns }: AttentionSizes,
): number {
  let sum = 0;
  for (let d = 0; d < headSize; d++) sum += a[aIndex + d * columns] * b[bIndex + d * columns];
  return sum;
}

/**
 * Room for keys in the numbering of the dropout bits: (query, head, key) is number (query · heads + head) · 512 + key.
 * Longer sequences work, but their decisions repeat those of the next head.
 */
export const dropoutKeys = 512;

/** What a probability is multiplied by: 0 where it is dropped, 1/(1 − rate) where it is kept. */
function keepFactor(
  seed: NumberArray | undefined,
  { heads, dropout, stream }: AttentionSizes,
): (query: number, head: number, key: number) => number {
  if (dropout === 0) return () => 1;
  return (query, head, key) => {
    const index = (query * heads + head) * dropoutKeys + key;
    return isKept({ rate: dropout, stream }, seed!, index) ? 1 / (1 - dropout) : 0;
  };
}

function zerosLike(source: NumberArray, length: number): NumberArray {
  return source instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
}
