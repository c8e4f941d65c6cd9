/**
 * What a BERT encoder's `config.json` says, checked, in the words of this project.
 *
 * The file is read as data only: nothing in it chooses code. Fields that shape the tensors must be there; the
 * others have the defaults of Hugging Face's `BertConfig`, because the original BERT releases leave them out.
 * @module
 */
import { z } from "zod";
import { InputError } from "../src/core/errors.ts";
import { showValue } from "../src/core/json.ts";

/** Shapes and constants of a BERT encoder with a classification head. */
export interface BertConfig {
  /** Rows of the word embedding table. */
  readonly vocabularySize: number;
  /** Width of the token vectors. */
  readonly hiddenSize: number;
  /** Encoder layers. */
  readonly layers: number;
  /** Attention heads a layer; divides `hiddenSize`. */
  readonly heads: number;
  /** Width between the two matrices of the feed-forward part. */
  readonly intermediateSize: number;
  /** Longest sequence in tokens. */
  readonly maximumPositions: number;
  /** Rows of the token type (segment) embedding table. */
  readonly typeVocabularySize: number;
  /** Added to the variance inside layer normalisation. */
  readonly layerNormEpsilon: number;
  /** Probability of zeroing an element of a hidden vector in training. */
  readonly hiddenDropout: number;
  /** Probability of zeroing an attention weight in training. */
  readonly attentionDropout: number;
  /** Probability of zeroing an element of the pooled vector in training; `hiddenDropout` where the file has null. */
  readonly classifierDropout: number;
  /** Standard deviation of newly initialised weights. */
  readonly initializerRange: number;
  /** Token that fills up a sequence. */
  readonly padTokenId: number;
  /** Name of each class, by index; a single one is the name of a score. */
  readonly labels: readonly string[];
}

/** Whether the model gives a score and not a class: it has one output, as with Hugging Face's `num_labels` 1. */
export function isRegression({ labels }: Pick<BertConfig, "labels">): boolean {
  return labels.length === 1;
}

/** Tensors of more rows than a 32-bit index can name are no BERT. */
const size = z.int().positive().max(2 ** 31 - 1);
const probability = z.number().min(0).lt(1);

const bertSchema = z.object({
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  intermediate_size: size,
  max_position_embeddings: size,
  type_vocab_size: size.default(2),
  layer_norm_eps: z.number().positive().default(1e-12),
  hidden_dropout_prob: probability.default(0.1),
  attention_probs_dropout_prob: probability.default(0.1),
  classifier_dropout: probability.nullish(),
  initializer_range: z.number().positive().default(0.02),
  pad_token_id: z.int().min(0).nullish(),
  hidden_act: z.literal("gelu").default("gelu"),
  position_embedding_type: z.literal("absolute").default("absolute"),
  is_decoder: z.literal(false).default(false),
  add_cross_attention: z.literal(false).default(false),
  num_labels: size.optional(),
  id2label: z.record(z.string(), z.string()).nullish(),
  problem_type: z.string().nullish(),
});

/** Heads of BERT whose encoder tensors are the ones {@link BertConfig} describes. */
const knownArchitectures: readonly string[] = [
  "BertModel",
  "BertForMaskedLM",
  "BertForPreTraining",
  "BertForNextSentencePrediction",
  "BertForSequenceClassification",
  "BertForTokenClassification",
  "BertForQuestionAnswering",
  "BertForMultipleChoice",
];

/**
 * Reads the contents of a Hugging Face `config.json`.
 * @param json The parsed file.
 * @param source What to call it in errors, usually its path.
 * @param options Whether the head is to be replaced: what the file says of its kind does not count then.
 * @throws InputError naming the field, the value found and the value wanted.
 */
export function parseBertConfig(
  json: unknown,
  source: string,
  { newHead = false }: { readonly newHead?: boolean } = {},
): BertConfig {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new InputError(
      `${source}: found ${showValue(json)}, wanted an object with the fields of a BERT config`,
    );
  }
  checkArchitecture(json as Record<string, unknown>, source);
  const result = bertSchema.safeParse(json);
  if (!result.success) throw new InputError(`${source}: ${describeIssue(result.error.issues[0], json)}`);
  const fields = result.data;
  if (fields.hidden_size % fields.num_attention_heads !== 0) {
    throw new InputError(
      `${source}: hidden_size is ${fields.hidden_size}, wanted a multiple of num_attention_heads, ` +
        `which is ${fields.num_attention_heads}`,
    );
  }
  const padTokenId = fields.pad_token_id ?? 0;
  if (padTokenId >= fields.vocab_size) {
    throw new InputError(
      `${source}: pad_token_id is ${padTokenId}, wanted less than vocab_size, which is ${fields.vocab_size}`,
    );
  }
  const labels = readLabels(fields.id2label ?? undefined, fields.num_labels, source);
  if (!newHead && fields.problem_type === "regression" && labels.length !== 1) {
    throw new InputError(`${source}: problem_type is "regression" with ${labels.length} labels, wanted one`);
  }
  return {
    vocabularySize: fields.vocab_size,
    hiddenSize: fields.hidden_size,
    layers: fields.num_hidden_layers,
    heads: fields.num_attention_heads,
    intermediateSize: fields.intermediate_size,
    maximumPositions: fields.max_position_embeddings,
    typeVocabularySize: fields.type_vocab_size,
    layerNormEpsilon: fields.layer_norm_eps,
    hiddenDropout: fields.hidden_dropout_prob,
    attentionDropout: fields.attention_probs_dropout_prob,
    classifierDropout: fields.classifier_dropout ?? fields.hidden_dropout_prob,
    initializerRange: fields.initializer_range,
    padTokenId,
    labels,
  };
}

/**
 * The Hugging Face `config.json` of a model with a sequence classification head.
 * @param extra Fields of other tools to keep, such as `problem_type`; they win over the fields made here.
 */
export function bertConfigJson(
  config: BertConfig,
  extra: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return {
    architectures: ["BertForSequenceClassification"],
    model_type: "bert",
    vocab_size: config.vocabularySize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    intermediate_size: config.intermediateSize,
    hidden_act: "gelu",
    max_position_embeddings: config.maximumPositions,
    type_vocab_size: config.typeVocabularySize,
    position_embedding_type: "absolute",
    layer_norm_eps: config.layerNormEpsilon,
    hidden_dropout_prob: config.hiddenDropout,
    attention_probs_dropout_prob: config.attentionDropout,
    classifier_dropout: config.classifierDropout === config.hiddenDropout ? null : config.classifierDropout,
    initializer_range: config.initializerRange,
    pad_token_id: config.padTokenId,
    id2label: Object.fromEntries(config.labels.map((label, index) => [String(index), label])),
    label2id: Object.fromEntries(config.labels.map((label, index) => [label, index])),
    ...(isRegression(config) && { problem_type: "regression" }),
    ...extra,
  };
}

/** Hugging Face's names for classes that have none: LABEL_0, LABEL_1, … */
export function defaultLabels(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `LABEL_${index}`);
}

/**
 * The shape of every tensor of `BertForSequenceClassification`, by checkpoint name, in the order of the model.
 * Matrices are [outputs, inputs] as PyTorch stores them; embedding tables are [rows, hidden].
 */
export function bertTensorShapes(config: BertConfig): Map<string, readonly number[]> {
  const { hiddenSize: hidden, intermediateSize: intermediate } = config;
  const shapes = new Map<string, readonly number[]>();
  const linear = (name: string, outputs: number, inputs: number) => {
    shapes.set(`${name}.weight`, [outputs, inputs]);
    shapes.set(`${name}.bias`, [outputs]);
  };
  const layerNorm = (name: string) => {
    shapes.set(`${name}.weight`, [hidden]);
    shapes.set(`${name}.bias`, [hidden]);
  };
  shapes.set("bert.embeddings.word_embeddings.weight", [config.vocabularySize, hidden]);
  shapes.set("bert.embeddings.position_embeddings.weight", [config.maximumPositions, hidden]);
  shapes.set("bert.embeddings.token_type_embeddings.weight", [config.typeVocabularySize, hidden]);
  layerNorm("bert.embeddings.LayerNorm");
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `bert.encoder.layer.${layer}`;
    for (const part of ["query", "key", "value"]) linear(`${prefix}.attention.self.${part}`, hidden, hidden);
    linear(`${prefix}.attention.output.dense`, hidden, hidden);
    layerNorm(`${prefix}.attention.output.LayerNorm`);
    linear(`${prefix}.intermediate.dense`, intermediate, hidden);
    linear(`${prefix}.output.dense`, hidden, intermediate);
    layerNorm(`${prefix}.output.LayerNorm`);
  }
  linear("bert.pooler.dense", hidden, hidden);
  linear("classifier", config.labels.length, hidden);
  return shapes;
}

function checkArchitecture(json: Record<string, unknown>, source: string): void {
  const architectures = Array.isArray(json.architectures) ? json.architectures : [];
  const unknown = architectures.find((name) => !knownArchitectures.includes(name));
  if (json.model_type !== undefined && json.model_type !== "bert") {
    throw new InputError(`${source}: model_type is ${showValue(json.model_type)}, wanted "bert"`);
  }
  if (unknown !== undefined) {
    throw new InputError(
      `${source}: architectures has ${showValue(unknown)}, wanted one of ${knownArchitectures.join(", ")}`,
    );
  }
  if (json.model_type === undefined && architectures.length === 0) {
    throw new InputError(`${source}: model_type is missing, wanted "bert"`);
  }
}

function readLabels(
  byIndex: Readonly<Record<string, string>> | undefined,
  count: number | undefined,
  source: string,
): readonly string[] {
  // Two classes are Hugging Face's default as well.
  if (byIndex === undefined) return defaultLabels(count ?? 2);
  const indices = Object.keys(byIndex);
  if (indices.length === 0) {
    throw new InputError(`${source}: id2label is empty, wanted a name for each class`);
  }
  return indices.map((_, index) => {
    const label = byIndex[String(index)];
    if (label === undefined) {
      throw new InputError(
        `${source}: id2label has the keys ${showValue(indices)}, wanted "0" to "${indices.length - 1}"`,
      );
    }
    return label;
  });
}

/** `hidden_size is -1, wanted a number > 0`, from zod's first complaint. */
function describeIssue(issue: z.core.$ZodIssue, json: object): string {
  const path = issue.path.map(String);
  let found: unknown = json;
  for (const key of path) found = (found as Record<string, unknown> | undefined)?.[key];
  return `${path.join(".")} is ${found === undefined ? "missing" : showValue(found)}, wanted ${
    wanted(issue)
  }`;
}

function wanted(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return issue.expected === "int" ? "a whole number" : `a ${issue.expected}`;
    case "invalid_value":
      return issue.values.map(showValue).join(" or ");
    case "too_small":
      return `a number ${issue.inclusive ? "≥" : ">"} ${issue.minimum}`;
    case "too_big":
      return `a number ${issue.inclusive ? "≤" : "<"} ${issue.maximum}`;
    default:
      return issue.message;
  }
}
