/**
 * A stack of post-norm encoder layers (Vaswani et al., arXiv 1706.03762, as in BERT) as a graph, and the parts that what
 * is before and behind it is built of. Parameters have the names of Hugging Face's `BertEncoder`.
 *
 * Columns of all sequences are packed end to end, so there is no padding and no attention mask.
 * @module
 */
import { type Graph, indices, rows, type Value } from "../src/graph/graph.ts";
import { attention } from "../src/kernels/attention/operation.ts";
import { dropout } from "../src/kernels/dropout/operation.ts";
import { gelu } from "../src/kernels/gelu/operation.ts";
import { layerNorm } from "../src/kernels/layer_norm/operation.ts";
import { matmul } from "../src/kernels/matmul/operation.ts";
import { sparseMatmul } from "../src/kernels/sparse_matmul/operation.ts";
import { type PackedStructure, valueCount } from "../src/kernels/sparse_matmul/pack.ts";
import { packedTypes } from "../src/kernels/sparse_matmul/types.ts";
import type { BertConfig } from "./config.ts";

/** Names of the inputs that encoder layers read. */
export const encoderInputs = {
  /** i32 [sequences + 1]: first column of each sequence, then the end of the last, repeated. */
  offsets: "offsets",
  /** i32 [2]: the words of the step's dropout key. */
  seed: "seed",
} as const;

/** Names of the inputs that a weight which runs sparse has beside its parameter, which is f32 [stored values]. */
export interface SparseInputs {
  /** u8: the indices of its structure. */
  readonly indices: string;
  /** u8: those of the structure of its transpose. In mode `train`, where it has one. */
  readonly transposedIndices: string;
  /** i32: for each value of the transpose its place among the stored values. Where the former is. */
  readonly permutation: string;
}

/** The names for a weight; `trainingStructure` makes what they hold. */
export function sparseInputs(weight: string): SparseInputs {
  return {
    indices: `${weight}.indices`,
    transposedIndices: `${weight}.transposed_indices`,
    permutation: `${weight}.permutation`,
  };
}

/** How an encoder is to be built. */
export interface EncoderOptions {
  /** Columns (tokens), a multiple of the plan's tile. */
  readonly columns: number;
  /** Sequence columns, a multiple of the plan's tile. */
  readonly sequences: number;
  /** `train` has dropout and keeps what the gradients need; `evaluate` gives logits and loss; `infer` logits. */
  readonly mode: "train" | "evaluate" | "infer";
  /** Packed structure of the linear layers to run sparse, by weight name; the others run dense. */
  readonly sparse?: ReadonlyMap<string, PackedStructure>;
  /** In mode `train`, structure of the transpose of those that have one, by weight name. */
  readonly transposed?: ReadonlyMap<string, PackedStructure>;
}

/** Shapes and constants of encoder layers. */
export type EncoderConfig = Pick<
  BertConfig,
  | "hiddenSize"
  | "intermediateSize"
  | "heads"
  | "layers"
  | "layerNormEpsilon"
  | "hiddenDropout"
  | "attentionDropout"
>;

/** What an encoder, and what is before and behind it, is built of. */
export interface EncoderParts {
  /** A dense layer: `name.weight` [outputs, features of x] and `name.bias`. */
  linear(x: Value, name: string, outputs: number): Value;
  /** Dropout in training; each call draws from a stream of its own. */
  drop(x: Value, rate: number): Value;
  /** LayerNorm of x, [hiddenSize, …], plus a residual if there is one: `name.weight` and `name.bias`. */
  normalise(x: Value, name: string, residual?: Value): Value;
  /** The layers `name.layer.0`, `name.layer.1`, …; gives the output of each, [hiddenSize, columns]. */
  layers(x: Value, name: string): Value[];
}

/** The parts, for one graph. */
export function encoderParts(graph: Graph, config: EncoderConfig, options: EncoderOptions): EncoderParts {
  const { hiddenSize, intermediateSize, heads, layerNormEpsilon } = config;
  const training = options.mode === "train";
  const offsets = graph.input(encoderInputs.offsets, indices(options.sequences + 1));
  const seed = training ? graph.input(encoderInputs.seed, indices(2)) : undefined;

  // Every dropout draws from its own stream of the step's key; numbering them in build order names them.
  let streams = 0;
  const drop = (x: Value, rate: number): Value =>
    training && rate > 0 ? graph.apply(dropout, { rate, stream: streams++ }, [x, seed])[0] : x;

  const sparseLinear = (
    x: Value,
    weight: string,
    structure: PackedStructure,
    bias: Value,
    activation: "none" | "gelu",
  ): Value => {
    const names = sparseInputs(weight);
    const types = packedTypes(structure);
    const operands = [
      x,
      graph.parameter(weight, types.values),
      graph.input(names.indices, types.indices),
      bias,
    ];
    const transposed = training ? options.transposed?.get(weight) : undefined;
    if (!transposed) return graph.apply(sparseMatmul, { structure, activation }, operands)[0];
    return graph.apply(sparseMatmul, { structure, activation, transposed }, [
      ...operands,
      undefined,
      graph.input(names.transposedIndices, packedTypes(transposed).indices),
      graph.input(names.permutation, indices(valueCount(transposed))),
    ])[0];
  };

  const linear = (x: Value, name: string, outputs: number, activation: "none" | "gelu" = "none"): Value => {
    const bias = graph.parameter(`${name}.bias`, rows(outputs));
    const structure = options.sparse?.get(`${name}.weight`);
    if (structure) return sparseLinear(x, `${name}.weight`, structure, bias, activation);
    const weight = graph.parameter(`${name}.weight`, rows(outputs, x.type.shape[0]));
    return graph.apply(matmul, { transposed: false, activation }, [x, weight, bias, undefined])[0];
  };

  const normalise = (x: Value, name: string, residual?: Value): Value => {
    const gamma = graph.parameter(`${name}.weight`, rows(hiddenSize));
    const beta = graph.parameter(`${name}.bias`, rows(hiddenSize));
    return graph.apply(layerNorm, { epsilon: layerNormEpsilon, training }, [x, residual, gamma, beta])[0];
  };

  const layers = (x: Value, encoder: string): Value[] => {
    let hidden = x;
    const states: Value[] = [];
    for (let layer = 0; layer < config.layers; layer++) {
      const name = `${encoder}.layer.${layer}`;
      const query = linear(hidden, `${name}.attention.self.query`, hiddenSize);
      const key = linear(hidden, `${name}.attention.self.key`, hiddenSize);
      const value = linear(hidden, `${name}.attention.self.value`, hiddenSize);
      const context = graph.apply(attention, {
        heads,
        dropout: training ? config.attentionDropout : 0,
        stream: streams++,
        training,
      }, [query, key, value, offsets, seed])[0];
      const attended = drop(
        linear(context, `${name}.attention.output.dense`, hiddenSize),
        config.hiddenDropout,
      );
      const attentionOutput = normalise(attended, `${name}.attention.output.LayerNorm`, hidden);
      // A fused GELU forgets its argument, which the gradient needs.
      const expanded = training
        ? graph.apply(gelu, {}, [linear(attentionOutput, `${name}.intermediate.dense`, intermediateSize)])[0]
        : linear(attentionOutput, `${name}.intermediate.dense`, intermediateSize, "gelu");
      const contracted = drop(linear(expanded, `${name}.output.dense`, hiddenSize), config.hiddenDropout);
      hidden = normalise(contracted, `${name}.output.LayerNorm`, attentionOutput);
      states.push(hidden);
    }
    return states;
  };

  return { linear: (x, name, outputs) => linear(x, name, outputs), drop, normalise, layers };
}
