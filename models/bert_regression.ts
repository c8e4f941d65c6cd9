/**
 * BERT that gives a text a score: a classifier of one output, trained by its squared error. The names are those of
 * Hugging Face's `BertForSequenceClassification` with `num_labels` 1, so that answering needs nothing of its own.
 * @module
 */
import { type Graph, indices, tiled } from "../src/graph/graph.ts";
import { meanSquaredError } from "../src/kernels/mean_squared_error/operation.ts";
import { type BertGraph, bertInputs, buildEncoder, lossInputs } from "./bert.ts";
import type { BertConfig } from "./config.ts";
import type { EncoderOptions } from "./encoder.ts";

/** f32 [sequences]: the score of each sequence; of padding any number. */
export const targetsInput = "targets";

/**
 * Adds BERT with one output and its loss to a graph. The logits are [1, sequences]: the scores themselves. `hardness` is the
 * share of a teacher's scores in the loss; default 0.
 */
export function buildRegression(
  graph: Graph,
  config: BertConfig,
  options: EncoderOptions & { readonly hardness?: number },
): BertGraph {
  const { sequences } = options;
  const { hidden, linear, drop, pool } = buildEncoder(graph, config, options);
  const logits = linear(drop(pool(), config.classifierDropout), "classifier", 1);
  graph.output("logits", logits);
  const counted = graph.input(bertInputs.firstTokens, indices(sequences));
  const targets = graph.input(targetsInput, tiled(1, sequences));
  const { hardness = 0 } = options;
  const teacher = hardness > 0 ? graph.input(lossInputs.teacherLogits, logits.type) : undefined;
  const loss = graph.apply(meanSquaredError, { hardness }, [logits, counted, targets, teacher])[0];
  return { logits, hidden, loss };
}
