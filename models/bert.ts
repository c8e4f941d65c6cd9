/**
 * BERT (Devlin et al., arXiv 1810.04805) as a graph: embeddings, a stack of post-norm encoder layers, the pooler and
 * a classifier, with the parameter names of Hugging Face's `BertForSequenceClassification`.
 *
 * Tokens of all sequences are packed end to end, so there is no padding inside the encoder and no attention mask.
 * @module
 */
import { type Graph, indices, rows, type Value } from "../src/graph/graph.ts";
import { attention } from "../src/kernels/attention/operation.ts";
import { dropout } from "../src/kernels/dropout/operation.ts";
import { embedding } from "../src/kernels/embedding/operation.ts";
import { gelu } from "../src/kernels/gelu/operation.ts";
import { layerNorm } from "../src/kernels/layer_norm/operation.ts";
import { matmul } from "../src/kernels/matmul/operation.ts";
import { selectColumns } from "../src/kernels/select_columns/operation.ts";
import { softmaxCrossEntropy } from "../src/kernels/softmax_cross_entropy/operation.ts";
import { sparseMatmul } from "../src/kernels/sparse_matmul/operation.ts";
import { type PackedStructure, valueCount } from "../src/kernels/sparse_matmul/pack.ts";
import { packedTypes } from "../src/kernels/sparse_matmul/types.ts";
import { tanh } from "../src/kernels/tanh/operation.ts";
import type { BertConfig } from "./config.ts";

/** Names of the step's inputs; `src/data/batches.ts` fills them. */
export const bertInputs = {
  /** i32 [columns]: vocabulary id, −1 for padding. */
  tokenIds: "tokenIds",
  /** i32 [columns]: position in its sequence, −1 for padding. */
  positionIds: "positionIds",
  /** i32 [columns]: segment, −1 for padding. */
  typeIds: "typeIds",
  /** i32 [sequences + 1]: first column of each sequence, then the end of the last, repeated. */
  offsets: "offsets",
  /** i32 [sequences]: column of each sequence's first token, −1 for padding. */
  firstTokens: "firstTokens",
  /** i32 [sequences]: class of each sequence, −1 for padding. */
  labels: "labels",
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

/** How a BERT graph is to be built. */
export interface BertGraphOptions {
  /** Token columns, a multiple of the plan's tile. */
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

/** BERT without a head, and what heads are built with. */
export interface BertEncoder {
  /** Output of each encoder layer, [hiddenSize, columns]. */
  readonly hidden: readonly Value[];
  /** A dense layer: `name.weight` [outputs, features of x] and `name.bias`. */
  linear(x: Value, name: string, outputs: number): Value;
  /** Dropout in training; each call draws from a stream of its own. */
  drop(x: Value, rate: number): Value;
  /** LayerNorm of x, [hiddenSize, …]: `name.weight` and `name.bias`. */
  normalise(x: Value, name: string): Value;
  /** The pooler: tanh of a dense layer of each sequence's first token, [hiddenSize, sequences]. */
  pool(): Value;
}

/** Results of a BERT graph. */
export interface BertGraph {
  /** [labels, sequences] */
  readonly logits: Value;
  /** Output of each encoder layer, [hiddenSize, columns]. */
  readonly hidden: readonly Value[];
  /** Mean cross-entropy, except in mode `infer`. */
  readonly loss?: Value;
}

/** Adds embeddings and encoder layers to a graph. */
export function buildEncoder(graph: Graph, config: BertConfig, options: BertGraphOptions): BertEncoder {
  const { hiddenSize, intermediateSize, heads, layerNormEpsilon } = config;
  const { columns, sequences } = options;
  const training = options.mode === "train";
  const tokenList = (name: string) => graph.input(name, indices(columns));
  const offsets = graph.input(bertInputs.offsets, indices(sequences + 1));
  const seed = training ? graph.input(bertInputs.seed, indices(2)) : undefined;

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

  const normalise = (x: Value, residual: Value | undefined, name: string): Value => {
    const gamma = graph.parameter(`${name}.weight`, rows(hiddenSize));
    const beta = graph.parameter(`${name}.bias`, rows(hiddenSize));
    return graph.apply(layerNorm, { epsilon: layerNormEpsilon, training }, [x, residual, gamma, beta])[0];
  };

  const table = (name: string, size: number) =>
    graph.parameter(`bert.embeddings.${name}.weight`, rows(size, hiddenSize));
  const embedded = graph.apply(embedding, {}, [
    table("word_embeddings", config.vocabularySize),
    table("position_embeddings", config.maximumPositions),
    table("token_type_embeddings", config.typeVocabularySize),
    tokenList(bertInputs.tokenIds),
    tokenList(bertInputs.positionIds),
    tokenList(bertInputs.typeIds),
  ])[0];
  let hidden = drop(
    normalise(embedded, undefined, "bert.embeddings.LayerNorm"),
    config.hiddenDropout,
  );

  const hiddenStates: Value[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const name = `bert.encoder.layer.${layer}`;
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
    const attentionOutput = normalise(attended, hidden, `${name}.attention.output.LayerNorm`);
    // A fused GELU forgets its argument, which the gradient needs.
    const expanded = training
      ? graph.apply(gelu, {}, [linear(attentionOutput, `${name}.intermediate.dense`, intermediateSize)])[0]
      : linear(attentionOutput, `${name}.intermediate.dense`, intermediateSize, "gelu");
    const contracted = drop(linear(expanded, `${name}.output.dense`, hiddenSize), config.hiddenDropout);
    hidden = normalise(contracted, attentionOutput, `${name}.output.LayerNorm`);
    hiddenStates.push(hidden);
  }

  return {
    hidden: hiddenStates,
    linear: (x, name, outputs) => linear(x, name, outputs),
    drop,
    normalise: (x, name) => normalise(x, undefined, name),
    pool() {
      const firstTokens = graph.input(bertInputs.firstTokens, indices(sequences));
      const first = graph.apply(selectColumns, {}, [hidden, firstTokens])[0];
      return graph.apply(tanh, {}, [linear(first, "bert.pooler.dense", hiddenSize)])[0];
    },
  };
}

/** Adds BERT with a sequence classifier to a graph. */
export function buildBert(graph: Graph, config: BertConfig, options: BertGraphOptions): BertGraph {
  const { hidden, linear, drop, pool } = buildEncoder(graph, config, options);
  const pooled = pool();
  const logits = linear(drop(pooled, config.classifierDropout), "classifier", config.labels.length);
  graph.output("logits", logits);
  if (options.mode === "infer") return { logits, hidden };

  const labels = graph.input(bertInputs.labels, indices(options.sequences));
  const loss = graph.apply(softmaxCrossEntropy, {}, [logits, labels])[0];
  graph.output("loss", loss);
  return { logits, hidden, loss };
}
