/**
 * BERT (Devlin et al., arXiv 1810.04805) as a graph: embeddings, a stack of post-norm encoder layers, the pooler and
 * a classifier, with the parameter names of Hugging Face's `BertForSequenceClassification`.
 *
 * Tokens of all sequences are packed end to end, so there is no padding inside the encoder and no attention mask.
 * @module
 */
import { type Graph, indices, rows, type Value } from "../src/graph/graph.ts";
import { embedding } from "../src/kernels/embedding/operation.ts";
import { selectColumns } from "../src/kernels/select_columns/operation.ts";
import { softmaxCrossEntropy } from "../src/kernels/softmax_cross_entropy/operation.ts";
import { tanh } from "../src/kernels/tanh/operation.ts";
import type { BertConfig } from "./config.ts";
import { encoderInputs, type EncoderOptions, type EncoderParts, encoderParts } from "./encoder.ts";

/** Names of the step's inputs; `src/data/batches.ts` fills them. */
export const bertInputs = {
  /** i32 [columns]: vocabulary id, −1 for padding. */
  tokenIds: "tokenIds",
  /** i32 [columns]: position in its sequence, −1 for padding. */
  positionIds: "positionIds",
  /** i32 [columns]: segment, −1 for padding. */
  typeIds: "typeIds",
  /** i32 [sequences]: column of each sequence's first token, −1 for padding. */
  firstTokens: "firstTokens",
  /** i32 [sequences]: class of each sequence, −1 for padding. */
  labels: "labels",
  ...encoderInputs,
} as const;

/** Names of what else a loss may read. */
export const lossInputs = {
  /** f32 [labels]: weight of each class. */
  classWeights: "classWeights",
  /** f32 tiled [labels, sequences]: a teacher's logits. */
  teacherLogits: "teacherLogits",
} as const;

/** BERT without a head, and what heads are built with. */
export interface BertEncoder extends EncoderParts {
  /** Output of each encoder layer, [hiddenSize, columns]. */
  readonly hidden: readonly Value[];
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
export function buildEncoder(graph: Graph, config: BertConfig, options: EncoderOptions): BertEncoder {
  const { hiddenSize } = config;
  const { columns, sequences } = options;
  const tokenList = (name: string) => graph.input(name, indices(columns));
  const parts = encoderParts(graph, config, options);
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
  const input = parts.drop(parts.normalise(embedded, "bert.embeddings.LayerNorm"), config.hiddenDropout);
  const hidden = parts.layers(input, "bert.encoder");
  return {
    ...parts,
    hidden,
    pool() {
      const firstTokens = graph.input(bertInputs.firstTokens, indices(sequences));
      const first = graph.apply(selectColumns, {}, [hidden.at(-1)!, firstTokens])[0];
      return graph.apply(tanh, {}, [parts.linear(first, "bert.pooler.dense", hiddenSize)])[0];
    },
  };
}

/** What the loss of a classifier is made of, besides the labels. */
export interface ClassifierLoss {
  /** Share of a label that all classes share; default 0. */
  readonly labelSmoothing?: number;
  /** Whether classes have weights. */
  readonly classWeights?: boolean;
  /** How much a teacher's logits count; absent: not at all. */
  readonly lesson?: { readonly hardness: number; readonly temperature: number };
}

/** Adds BERT with a sequence classifier to a graph. */
export function buildBert(
  graph: Graph,
  config: BertConfig,
  options: EncoderOptions & { readonly classifierLoss?: ClassifierLoss },
): BertGraph {
  const { hidden, linear, drop, pool } = buildEncoder(graph, config, options);
  const pooled = pool();
  const logits = linear(drop(pooled, config.classifierDropout), "classifier", config.labels.length);
  graph.output("logits", logits);
  if (options.mode === "infer") return { logits, hidden };

  const labels = graph.input(bertInputs.labels, indices(options.sequences));
  const { labelSmoothing, classWeights, lesson } = options.classifierLoss ?? {};
  const loss = graph.apply(softmaxCrossEntropy, { labelSmoothing, ...lesson }, [
    logits,
    labels,
    classWeights ? graph.input(lossInputs.classWeights, rows(config.labels.length)) : undefined,
    lesson ? graph.input(lossInputs.teacherLogits, logits.type) : undefined,
  ])[0];
  graph.output("loss", loss);
  return { logits, hidden, loss };
}
