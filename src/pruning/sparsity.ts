/**
 * Which weights may be pruned, and how many are. Sparsity always counts the prunable weights only.
 * @module
 */
import { popcount } from "./bitset.ts";

/** The linear layers of an encoder layer, by their Hugging Face names in BERT and its kin. */
const ENCODER_LINEAR = new RegExp(
  String.raw`(^|\.)encoder\.layer\.\d+\.` +
    String
      .raw`(attention\.self\.(query|key|value)|attention\.output\.dense|intermediate\.dense|output\.dense)\.weight$`,
);

/**
 * Whether the parameter of that checkpoint name is pruned: query, key, value, attention output, intermediate and
 * output of the encoder layers. Embeddings, LayerNorm, biases, pooler and heads never are.
 */
export function isPrunable(name: string): boolean {
  return ENCODER_LINEAR.test(name);
}

/** Zeros of one matrix. */
export interface LayerSparsity {
  /** Checkpoint name. */
  readonly name: string;
  /** Weights of the matrix. */
  readonly weights: number;
  /** How many of them are zero. */
  readonly zeros: number;
  /** zeros / weights */
  readonly sparsity: number;
}

/** Zeros of the prunable matrices, one by one and together. */
export interface SparsityReport {
  /** Zeros of all layers / weights of all layers; 0 if there are none. */
  readonly overall: number;
  /** Weights of all matrices. */
  readonly weights: number;
  /** How many of them are zero. */
  readonly zeros: number;
  /** Matrix by matrix. */
  readonly layers: readonly LayerSparsity[];
}

/** Counts the zeros of the prunable among the given parameters. */
export function sparsityOfWeights(
  parameters: Iterable<{ readonly name: string; readonly values: Float32Array }>,
): SparsityReport {
  return report(parameters, ({ values }) => ({ weights: values.length, zeros: countZeros(values) }));
}

/** Counts the pruned weights in the masks of [rows, columns] matrices. */
export function sparsityOfMasks(
  masks: Iterable<
    { readonly name: string; readonly rows: number; readonly columns: number; readonly mask: Uint32Array }
  >,
): SparsityReport {
  return report(masks, ({ rows, columns, mask }) => {
    const weights = rows * columns;
    return { weights, zeros: weights - popcount(mask) };
  });
}

function report<T extends { readonly name: string }>(
  parameters: Iterable<T>,
  count: (parameter: T) => { weights: number; zeros: number },
): SparsityReport {
  const layers: LayerSparsity[] = [];
  let weights = 0;
  let zeros = 0;
  for (const parameter of parameters) {
    if (!isPrunable(parameter.name)) continue;
    const layer = count(parameter);
    weights += layer.weights;
    zeros += layer.zeros;
    layers.push({ name: parameter.name, ...layer, sparsity: layer.zeros / layer.weights });
  }
  return { overall: weights ? zeros / weights : 0, weights, zeros, layers };
}

function countZeros(values: Float32Array): number {
  let zeros = 0;
  for (let index = 0; index < values.length; index++) {
    if (values[index] === 0) zeros++;
  }
  return zeros;
}
