/**
 * What a folder of `BertForMaskedLM` holds: its `config.json` and its tensors.
 * @module
 */
import { type BertConfig, bertConfigJson, bertTensorShapes } from "./config.ts";

/** The prefix of the names of the head's tensors. */
export const maskedLmHead = "cls.predictions";

/** The Hugging Face `config.json` of a masked language model. `extra` as in `bertConfigJson`. */
export function maskedLmConfigJson(
  config: BertConfig,
  extra: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const { id2label: _names, label2id: _indices, problem_type: _kind, ...fields } = bertConfigJson(
    config,
    extra,
  );
  return { ...fields, architectures: ["BertForMaskedLM"], tie_word_embeddings: true };
}

/** Whether a `config.json` is that of a masked language model. */
export function isMaskedLm(json: Readonly<Record<string, unknown>>): boolean {
  return Array.isArray(json.architectures) && json.architectures.includes("BertForMaskedLM");
}

/**
 * The shape of every tensor of `BertForMaskedLM`, by checkpoint name, in the order of the model. There is no pooler; the
 * decoder's weight is the word table's, and not stored.
 */
export function maskedLmTensorShapes(config: BertConfig): Map<string, readonly number[]> {
  const { hiddenSize, vocabularySize } = config;
  const encoder = [...bertTensorShapes(config)].filter(([name]) =>
    name.startsWith("bert.") && !name.startsWith("bert.pooler.")
  );
  return new Map<string, readonly number[]>([
    ...encoder,
    [`${maskedLmHead}.transform.dense.weight`, [hiddenSize, hiddenSize]],
    [`${maskedLmHead}.transform.dense.bias`, [hiddenSize]],
    [`${maskedLmHead}.transform.LayerNorm.weight`, [hiddenSize]],
    [`${maskedLmHead}.transform.LayerNorm.bias`, [hiddenSize]],
    [`${maskedLmHead}.bias`, [vocabularySize]],
  ]);
}
