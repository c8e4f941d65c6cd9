/**
 * Training a sequence classifier: BERT, a pooled first token, cross-entropy.
 * @module
 */
import { bertInputs, buildBert } from "../../../models/bert.ts";
import type { BertConfig } from "../../../models/config.ts";
import { type EncodedExample, packBatch } from "../../data/batches.ts";
import { initialiseParameter } from "../parameters.ts";
import { indexView, type InputArray, type TrainingModel } from "../training_model.ts";

/** BERT with a classification head as the trainer takes it. */
export function classifier(config: BertConfig): TrainingModel<EncodedExample> {
  const steady = { ...config, hiddenDropout: 0, attentionDropout: 0, classifierDropout: 0 };
  return {
    ...bertBatches,
    build(graph, { dropout, ...request }) {
      const { hidden, loss } = buildBert(graph, dropout ? config : steady, request);
      return { loss: loss!, checkpoints: hidden.slice(0, -1) };
    },
    initialise: (slot, target, seed) =>
      initialiseParameter(slot, target, {
        range: config.initializerRange,
        seed,
        padTokenId: config.padTokenId,
      }),
  };
}

/** Sequences of tokens packed end to end, each with a label. */
export const bertBatches: Pick<
  TrainingModel<EncodedExample>,
  "inputs" | "sizeOf" | "fill" | "lookup"
> = {
  inputs({ columns, sequences }) {
    const list = (length: number): InputArray => ({ dtype: "i32", length });
    return {
      [bertInputs.tokenIds]: list(columns),
      [bertInputs.positionIds]: list(columns),
      [bertInputs.typeIds]: list(columns),
      [bertInputs.offsets]: list(sequences + 1),
      [bertInputs.firstTokens]: list(sequences),
      [bertInputs.labels]: list(sequences),
    };
  },
  sizeOf: (batch) => ({
    columns: batch.reduce((sum, { ids }) => sum + ids.length, 0),
    sequences: batch.length,
  }),
  fill(batch, views) {
    packBatch(batch, {
      tokenIds: indexView(views, bertInputs.tokenIds),
      positionIds: indexView(views, bertInputs.positionIds),
      typeIds: indexView(views, bertInputs.typeIds),
      offsets: indexView(views, bertInputs.offsets),
      firstTokens: indexView(views, bertInputs.firstTokens),
      labels: indexView(views, bertInputs.labels),
    });
  },
  lookup: { table: "bert.embeddings.word_embeddings.weight", ids: bertInputs.tokenIds },
};
