/**
 * What PyTorch says about one tiny BERT classifier: logits, hidden states, every gradient, ten training steps.
 *
 * `tools/golden/bert.py` wrote `bert.json`; this file types it and computes the same initial weights. A comparison
 * loads `goldenParameters`, runs `bertGolden().batch`, and holds its numbers against `float64` (the right answer);
 * `float32` shows what PyTorch itself loses by rounding, which makes a fair tolerance.
 * @module
 */
import { mix32, randomBits, randomKey } from "../../core/random.ts";
import golden from "./bert.json" with { type: "json" };

/** The fields of a Hugging Face `config.json` that shape the model. */
export interface GoldenConfig {
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly intermediate_size: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly type_vocab_size: number;
  readonly num_labels: number;
  readonly layer_norm_eps: number;
  readonly hidden_act: string;
}

/** Five sequences, packed end to end: the lists of tokens have Σ lengths = 40 entries. */
export interface GoldenBatch {
  readonly lengths: readonly number[];
  readonly tokenIds: readonly number[];
  readonly typeIds: readonly number[];
  /** Position of each token in its own sequence. */
  readonly positions: readonly number[];
  /** The class of each sequence. */
  readonly labels: readonly number[];
}

/**
 * How the ten steps are taken, all on the one batch: AdamW with bias correction, weight decay on everything but
 * biases and LayerNorm, gradients clipped by their global norm, learning rate rising linearly for `warmupSteps` and
 * falling linearly to 0 at `steps` (so the first update changes nothing: its rate is 0).
 */
export interface GoldenTraining {
  readonly steps: number;
  readonly warmupSteps: number;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly maxGradientNorm: number;
}

/** A row-major array of a run: Float64Array in the `float64` run, Float32Array in the `float32` run. */
export interface GoldenTensor<T> {
  readonly shape: readonly number[];
  readonly data: T;
}

/** Everything one precision computed, starting from `goldenParameters`. */
export interface GoldenRun<T> {
  /** [sequences, labels] */
  readonly logits: GoldenTensor<T>;
  /** Cross-entropy, the mean over the sequences. */
  readonly loss: number;
  /** [tokens, hidden] each: the embeddings' output, then that of every layer. */
  readonly hiddenStates: readonly GoldenTensor<T>[];
  /** [sequences, hidden]: tanh of the pooler at each first token. */
  readonly pooled: GoldenTensor<T>;
  /**
   * Gradient of the loss by parameter name. That of a key bias is 0 in exact arithmetic (softmax does not see a
   * number added to a whole row), so what stands there is rounding: compare it absolutely.
   */
  readonly gradients: ReadonlyMap<string, GoldenTensor<T>>;
  readonly training: {
    /** Before each update. */
    readonly losses: readonly number[];
    /** Global norm of the gradients of each step, before clipping. */
    readonly gradientNorms: readonly number[];
    /** Rate of each update. */
    readonly learningRates: readonly number[];
    /** [sequences, labels], after the last update. */
    readonly finalLogits: GoldenTensor<T>;
    /**
     * After the last update. Key biases are not comparable across precisions: Adam divides their gradient, pure
     * rounding, by its own size and walks at random. Nothing else depends on them.
     */
    readonly finalParameters: ReadonlyMap<string, GoldenTensor<T>>;
  };
}

/** The golden file. */
export interface BertGolden {
  /** Of the programs that wrote the file. */
  readonly versions: Readonly<Record<"torch" | "transformers" | "numpy", string>>;
  readonly config: GoldenConfig;
  readonly batch: GoldenBatch;
  readonly training: GoldenTraining;
  /** Name, shape, first values and `parameterChecksum` of every initial parameter, in the checkpoint's order. */
  readonly parameters: readonly {
    readonly name: string;
    readonly shape: readonly number[];
    readonly first: readonly number[];
    readonly checksum: number;
  }[];
  readonly float64: GoldenRun<Float64Array>;
  readonly float32: GoldenRun<Float32Array>;
}

/** Decodes the golden file. */
export function bertGolden(): BertGolden {
  const { float64, float32, ...rest } = golden;
  return {
    ...rest,
    float64: decodeRun(float64, (bytes) => new Float64Array(bytes)),
    float32: decodeRun(float32, (bytes) => new Float32Array(bytes)),
  };
}

/** The initial parameters both sides start from, by checkpoint name, in the checkpoint's order. */
export function goldenParameters(config: GoldenConfig): Map<string, GoldenTensor<Float32Array>> {
  const hidden = config.hidden_size;
  const parameters = new Map<string, GoldenTensor<Float32Array>>();
  const add = (name: string, ...shape: number[]) =>
    parameters.set(name, { shape, data: initialValues(name, shape.reduce((a, b) => a * b)) });
  const linear = (name: string, outputs: number, inputs: number) => {
    add(`${name}.weight`, outputs, inputs);
    add(`${name}.bias`, outputs);
  };
  const layerNorm = (name: string) => {
    add(`${name}.LayerNorm.weight`, hidden);
    add(`${name}.LayerNorm.bias`, hidden);
  };
  add("bert.embeddings.word_embeddings.weight", config.vocab_size, hidden);
  add("bert.embeddings.position_embeddings.weight", config.max_position_embeddings, hidden);
  add("bert.embeddings.token_type_embeddings.weight", config.type_vocab_size, hidden);
  layerNorm("bert.embeddings");
  for (let index = 0; index < config.num_hidden_layers; index++) {
    const layer = `bert.encoder.layer.${index}`;
    for (const part of ["query", "key", "value"]) linear(`${layer}.attention.self.${part}`, hidden, hidden);
    linear(`${layer}.attention.output.dense`, hidden, hidden);
    layerNorm(`${layer}.attention.output`);
    linear(`${layer}.intermediate.dense`, config.intermediate_size, hidden);
    linear(`${layer}.output.dense`, hidden, config.intermediate_size);
    layerNorm(`${layer}.output`);
  }
  linear("bert.pooler.dense", hidden, hidden);
  linear("classifier", config.num_labels, hidden);
  return parameters;
}

/** Folds the bits of float32 values into one word: equal sums mean that both sides hold the same weights. */
export function parameterChecksum(values: Float32Array): number {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let word = 0;
  for (const each of bits) word = mix32(word ^ each);
  return word;
}

/** LayerNorm weights lie in 1 ± 0.1, biases in ± 0.1, all else in ± 0.2; `values` of bert.py is the same formula. */
function initialValues(name: string, count: number): Float32Array {
  const key = randomKey(0, name);
  const center = name.endsWith("LayerNorm.weight") ? 1 : 0;
  const scale = center === 1 || name.endsWith(".bias") ? 0.1 : 0.2;
  return Float32Array.from({ length: count }, (_, index) => {
    const uniform = (randomBits(key, index) >>> 8) / 2 ** 24;
    return center + scale * (2 * uniform - 1);
  });
}

/** A tensor as the file holds it: base64 of its little-endian bytes. */
interface EncodedTensor {
  readonly shape: number[];
  readonly data: string;
}

type Encoded = typeof golden.float64;

function decodeRun<T>(run: Encoded, view: (bytes: ArrayBuffer) => T): GoldenRun<T> {
  const tensor = ({ shape, data }: EncodedTensor): GoldenTensor<T> => ({
    shape,
    data: view(Uint8Array.fromBase64(data).buffer),
  });
  const tensors = (table: Record<string, EncodedTensor>): Map<string, GoldenTensor<T>> =>
    new Map(Object.entries(table).map(([name, encoded]) => [name, tensor(encoded)]));
  return {
    logits: tensor(run.logits),
    loss: run.loss,
    hiddenStates: run.hiddenStates.map(tensor),
    pooled: tensor(run.pooled),
    gradients: tensors(run.gradients),
    training: {
      ...run.training,
      finalLogits: tensor(run.training.finalLogits),
      finalParameters: tensors(run.training.finalParameters),
    },
  };
}
