/**
 * BERT shapes with names: what `--init` starts from and `bench --synthetic` measures.
 *
 * Tiny, mini and small are the sizes of Turc et al., "Well-Read Students Learn Better" (arXiv:1908.08962); base and
 * large those of Devlin et al. (arXiv:1810.04805); `minilm-l6` that of sentence-transformers/all-MiniLM-L6-v2.
 * @module
 */
import { InputError } from "../src/core/errors.ts";
import { type BertConfig, defaultLabels } from "./config.ts";

type Shape = Pick<BertConfig, "hiddenSize" | "layers" | "heads" | "intermediateSize">;

/** A name that {@link presetConfig} knows. */
export type PresetName = "bert-tiny" | "bert-mini" | "bert-small" | "minilm-l6" | "bert-base" | "bert-large";

const shapes: Readonly<Record<PresetName, Shape>> = {
  "bert-tiny": { hiddenSize: 128, layers: 2, heads: 2, intermediateSize: 512 },
  "bert-mini": { hiddenSize: 256, layers: 4, heads: 4, intermediateSize: 1024 },
  "bert-small": { hiddenSize: 512, layers: 4, heads: 8, intermediateSize: 2048 },
  "minilm-l6": { hiddenSize: 384, layers: 6, heads: 12, intermediateSize: 1536 },
  "bert-base": { hiddenSize: 768, layers: 12, heads: 12, intermediateSize: 3072 },
  "bert-large": { hiddenSize: 1024, layers: 24, heads: 16, intermediateSize: 4096 },
};

/** All preset names, smallest model first. */
export const presetNames: readonly PresetName[] = Object.keys(shapes) as PresetName[];

/** Whether a string names a preset. */
export function isPresetName(name: string): name is PresetName {
  return Object.hasOwn(shapes, name);
}

/**
 * The config of a named shape, with BERT's English vocabulary size and its usual constants.
 * @param changes Fields to set otherwise, such as `labels` or `vocabularySize`.
 * @throws InputError listing the names when there is no such preset.
 */
export function presetConfig(name: string, changes: Partial<BertConfig> = {}): BertConfig {
  if (!isPresetName(name)) {
    throw new InputError(`There is no preset "${name}", wanted one of ${presetNames.join(", ")}`);
  }
  return {
    vocabularySize: 30522,
    maximumPositions: 512,
    typeVocabularySize: 2,
    layerNormEpsilon: 1e-12,
    hiddenDropout: 0.1,
    attentionDropout: 0.1,
    classifierDropout: 0.1,
    initializerRange: 0.02,
    padTokenId: 0,
    labels: defaultLabels(2),
    ...shapes[name],
    ...changes,
  };
}

/** The preset whose shape a config has, if there is one. Vocabulary and classes are no part of a shape. */
export function presetOf(config: BertConfig): PresetName | undefined {
  return presetNames.find((name) =>
    Object.entries(shapes[name]).every(([field, size]) => config[field as keyof Shape] === size)
  );
}
