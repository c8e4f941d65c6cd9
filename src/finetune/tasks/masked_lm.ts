/**
 * Training a masked language model: BERT guesses tokens that are masked anew in each step.
 * @module
 */
import { bertInputs } from "../../../models/bert.ts";
import { buildMaskedLm, maskedLmInputs } from "../../../models/bert_masked_lm.ts";
import type { BertConfig } from "../../../models/config.ts";
import { type RandomKey, randomKey } from "../../core/random.ts";
import { type BatchLimit, evaluationBatches } from "../../data/batches.ts";
import type { ExampleSet, NumberedExample } from "../../data/example_set.ts";
import { type MaskedSequence, type MaskingRule, maskSequence, maximumGuesses } from "../../data/masking.ts";
import { maskedLanguageEvaluation } from "../../evaluate/language_metrics.ts";
import type { Evaluation } from "../../evaluate/metrics.ts";
import { initialiseParameter } from "../parameters.ts";
import type { BatchOutput } from "../step_engine.ts";
import type { Trainer } from "../trainer.ts";
import { indexView, type TrainingModel } from "../training_model.ts";
import { bertBatches } from "./classification.ts";

/** BERT with a masked language model's head as the trainer takes it. */
export function maskedLanguageModel(config: BertConfig, rule: MaskingRule): TrainingModel<NumberedExample> {
  const steady = { ...config, hiddenDropout: 0, attentionDropout: 0 };
  return {
    build(graph, { dropout, ...request }) {
      const guesses = guessCapacity(request);
      const { hidden, loss } = buildMaskedLm(graph, dropout ? config : steady, { ...request, guesses });
      return { loss: loss!, checkpoints: hidden.slice(0, -1) };
    },
    inputs(size) {
      const list = { dtype: "i32", length: guessCapacity(size) } as const;
      return {
        ...bertBatches.inputs(size),
        [maskedLmInputs.maskedColumns]: list,
        [maskedLmInputs.maskedTokens]: list,
      };
    },
    sizeOf: bertBatches.sizeOf,
    fill(batch, views, key, mode) {
      const masked = batch.map((example) => maskExample(example, rule, key));
      bertBatches.fill(
        batch.map((example, index) => ({ ...example, ids: masked[index].ids })),
        views,
        key,
        mode,
      );
      const columns = indexView(views, maskedLmInputs.maskedColumns);
      const tokens = indexView(views, maskedLmInputs.maskedTokens);
      const offsets = indexView(views, bertInputs.offsets);
      let guess = 0;
      masked.forEach(({ places }, sequence) => {
        for (const place of places) {
          columns[guess] = offsets[sequence] + place;
          tokens[guess] = batch[sequence].ids[place];
          guess++;
        }
      });
      columns.fill(-1, guess);
      tokens.fill(-1, guess);
    },
    initialise: (slot, target, seed) =>
      initialiseParameter(slot, target, {
        range: config.initializerRange,
        seed,
        padTokenId: config.padTokenId,
      }),
    // No lookup: the tied decoder gives every row of the word table a gradient.
  };
}

/**
 * Loss, perplexity and accuracy at the masked tokens. Masks follow from the number of an example alone, so that every
 * evaluation asks the same.
 */
export async function evaluateMaskedLm(
  trainer: Trainer<NumberedExample>,
  set: ExampleSet<NumberedExample>,
  limit: BatchLimit,
  rule: MaskingRule,
): Promise<Evaluation> {
  let [lossSum, tokens, right] = [0, 0, 0];
  for (const indices of evaluationBatches(set.lengths, limit)) {
    const batch = Array.from(indices, set.at);
    const { loss, outputs } = await trainer.evaluate(batch);
    const wanted = batch.flatMap((example) =>
      Array.from(maskExample(example, rule, undefined).places, (place) => example.ids[place])
    );
    const guesses = largestRows(outputs.get("logits")!, wanted.length);
    lossSum += loss * wanted.length;
    tokens += wanted.length;
    right += wanted.filter((token, guess) => guesses[guess] === token).length;
  }
  return maskedLanguageEvaluation({ lossSum, tokens, right, examples: set.lengths.length });
}

/** The number of an example tells its masks from those of others. `key` is the step's; undefined: every evaluation's. */
function maskExample(
  { ids, index }: NumberedExample,
  rule: MaskingRule,
  key: RandomKey | undefined,
): MaskedSequence {
  const { low, high } = key ?? randomKey(0, "evaluation masks");
  return maskSequence(ids, rule, randomKey(low, high, index));
}

/** Plans want whole tiles, and no machine has wider ones. */
const widestTile = 64;

function guessCapacity(size: { readonly columns: number; readonly sequences: number }): number {
  return Math.ceil(maximumGuesses(size) / widestTile) * widestTile;
}

/** For each of the first columns the row of its largest value, the first among equals. */
function largestRows({ values, rows, stride }: BatchOutput, columns: number): Int32Array {
  const best = new Int32Array(columns);
  const largest = values.slice(0, columns);
  // Row by row, as the values lie: there are as many rows as words.
  for (let row = 1; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = values[row * stride + column];
      if (value > largest[column]) {
        largest[column] = value;
        best[column] = row;
      }
    }
  }
  return best;
}
