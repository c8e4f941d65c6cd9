/**
 * The embedded default: what `deno task finetune` does without flags. A small encoder learns made-up reviews from
 * random weights, offline, in about a minute on two cores.
 * @module
 */
import { presetConfig } from "../../models/presets.ts";
import type { BertConfig } from "../../models/config.ts";
import type { FinetuneSettings } from "./options.ts";

/**
 * BERT-tiny's shape with short positions; vocabulary and labels come with the data. No dropout: there are more sentences
 * than it could learn by heart, and with it the rules came an epoch or more later (95 % instead of 98 % dense).
 */
export const reviewModel: BertConfig = presetConfig("bert-tiny", {
  maximumPositions: 64,
  hiddenDropout: 0,
  attentionDropout: 0,
  classifierDropout: 0,
});

/**
 * Settings that differ from the defaults of a run on files. From random weights the rules of the grammar are learned
 * in about three epochs, so half of the run is dense; a rate of 1e-3 learned more slowly than 5e-4.
 */
export const reviewSettings = {
  maximumLength: 64,
  epochs: 8,
  learningRate: 5e-4,
  warmupRatio: 0.1,
  pruneBegin: 0.5,
  pruneEnd: 0.8,
  out: "runs/reviews",
} as const satisfies Partial<FinetuneSettings>;
