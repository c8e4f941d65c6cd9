/**
 * BERT that guesses masked tokens (Devlin et al., arXiv 1810.04805, § 3.1), with the parameter names of Hugging Face's
 * `BertForMaskedLM`. The head is computed at the masked tokens only, and its decoder is the word table itself.
 * @module
 */
import { type Graph, indices, rows, type Value } from "../src/graph/graph.ts";
import { gelu } from "../src/kernels/gelu/operation.ts";
import { matmul } from "../src/kernels/matmul/operation.ts";
import { selectColumns } from "../src/kernels/select_columns/operation.ts";
import { softmaxCrossEntropy } from "../src/kernels/softmax_cross_entropy/operation.ts";
import { type BertGraph, buildEncoder } from "./bert.ts";
import type { BertConfig } from "./config.ts";
import type { EncoderOptions } from "./encoder.ts";
import { maskedLmHead } from "./masked_lm_config.ts";

/** Names of the step's inputs besides those of the encoder. */
export const maskedLmInputs = {
  /** i32 [guesses]: column of each masked token, −1 for padding. */
  maskedColumns: "maskedColumns",
  /** i32 [guesses]: the token that was there, −1 for padding. */
  maskedTokens: "maskedTokens",
} as const;

/** How the graph is to be built. */
export interface MaskedLmOptions extends EncoderOptions {
  /** Most masked tokens of a batch, a multiple of the plan's tile. */
  readonly guesses: number;
}

/** Adds BERT with a masked language model's head. The logits are [vocabulary, guesses]. */
export function buildMaskedLm(graph: Graph, config: BertConfig, options: MaskedLmOptions): BertGraph {
  const { vocabularySize, hiddenSize } = config;
  const { hidden, linear, normalise } = buildEncoder(graph, config, options);
  const list = (name: string) => graph.input(name, indices(options.guesses));
  const columns = list(maskedLmInputs.maskedColumns);
  const masked = graph.apply(selectColumns, {}, [hidden.at(-1)!, columns])[0];
  const transformed = normalise(
    graph.apply(gelu, {}, [linear(masked, `${maskedLmHead}.transform.dense`, hiddenSize)])[0],
    `${maskedLmHead}.transform.LayerNorm`,
  );
  // Tied: the gradient is the sum of the product's and the lookup's.
  const words = graph.parameter("bert.embeddings.word_embeddings.weight", rows(vocabularySize, hiddenSize));
  const bias = graph.parameter(`${maskedLmHead}.bias`, rows(vocabularySize));
  const logits: Value = graph.apply(matmul, { transposed: false, activation: "none" }, [
    transformed,
    words,
    bias,
    undefined,
  ])[0];
  graph.output("logits", logits);
  if (options.mode === "infer") return { logits, hidden };

  const loss = graph.apply(softmaxCrossEntropy, {}, [logits, list(maskedLmInputs.maskedTokens)])[0];
  graph.output("loss", loss);
  return { logits, hidden, loss };
}
