/**
 * Writes a BERT classifier as an ONNX model, from its configuration and its weights by Hugging Face name.
 *
 * Two operator sets compute the same function. `standard` uses opset 17 only and loads in any runtime; it is what
 * transformers.js finds as `onnx/model.onnx`. `fused` uses the operators ONNX Runtime adds for encoders. Which one is
 * faster depends on its version and on the shape, so the benchmark times both and keeps the faster as its baseline:
 * with ONNX Runtime 1.30, BERT-base, 128 tokens and 2 threads, `standard` was ahead by 5 % (its separate matrix
 * products beat the per-head ones of `Attention`; the optimizer turns bias and GELU into `BiasGelu` by itself).
 *
 * Inputs are `input_ids`, `attention_mask` and `token_type_ids`, int64 [batch, sequence], both dimensions free.
 * The output is `logits`, float32 [batch, labels].
 * @module
 */
import type { BertConfig } from "../../models/config.ts";
import { InputError } from "../core/errors.ts";
import { microsoft, OnnxGraph, type OnnxLayout, type Value } from "./onnx/graph.ts";

/** Finds a weight by its name in `BertForSequenceClassification`, for example `classifier.bias`. */
export type WeightSource = (name: string) => Float32Array;

/** How the model is written. */
export interface OnnxOptions {
  /** `standard`: opset 17 only. `fused`: with the encoder operators of ONNX Runtime (`com.microsoft`). */
  readonly operators: "standard" | "fused";
  /**
   * `int8` stores the encoder's matrices as signed bytes with one scale per output (absmax / 127) and quantizes their
   * inputs at run time, as ONNX Runtime's dynamic quantization does. Embeddings, pooler and classifier stay float32.
   */
  readonly weights?: "float32" | "int8";
}

/** The model as the bytes of an `.onnx` file. Holds the file in memory: `writeOnnx` does not. */
export function bertToOnnx(
  config: BertConfig,
  weight: WeightSource,
  options: OnnxOptions,
): Uint8Array<ArrayBuffer> {
  const layout = bertLayout(config, weight, options);
  const bytes = new Uint8Array(layout.byteLength);
  let offset = 0;
  for (const piece of layout.pieces()) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}

/**
 * Writes the model to `path`, holding one weight at a time, and returns the size of the file in bytes.
 * The file appears under its name only when it is complete.
 */
export async function writeOnnx(
  path: string,
  config: BertConfig,
  weight: WeightSource,
  options: OnnxOptions,
): Promise<number> {
  const layout = bertLayout(config, weight, options);
  const temporary = `${path}.partial`;
  const file = await Deno.open(temporary, { write: true, create: true, truncate: true });
  try {
    for (const piece of layout.pieces()) {
      for (let written = 0; written < piece.length;) written += await file.write(piece.subarray(written));
    }
    await file.syncData();
  } catch (error) {
    file.close();
    await Deno.remove(temporary);
    throw error;
  }
  file.close();
  await Deno.rename(temporary, path);
  return layout.byteLength;
}

function bertLayout(config: BertConfig, weight: WeightSource, options: OnnxOptions): OnnxLayout {
  const writer = options.operators === "fused"
    ? new FusedBert(config, weight, options)
    : new StandardBert(config, weight, options);
  return writer.build().layout();
}

/** What both operator sets share: the order of the layers, and how weights are turned for ONNX. */
abstract class BertWriter {
  protected readonly graph: OnnxGraph = new OnnxGraph("bert");
  protected readonly config: BertConfig;
  protected readonly int8: boolean;
  readonly #weight: WeightSource;

  constructor(config: BertConfig, weight: WeightSource, options: OnnxOptions) {
    this.config = config;
    this.#weight = weight;
    this.int8 = options.weights === "int8";
  }

  /** The whole network, from ids to logits. */
  build(): OnnxGraph {
    const { graph, config } = this;
    for (const name of ["input_ids", "attention_mask", "token_type_ids"]) {
      graph.input({ name, type: "int64", shape: ["batch", "sequence"] });
    }
    let hidden = this.embed();
    for (let layer = 0; layer < config.layers; layer++) {
      const prefix = `bert.encoder.layer.${layer}`;
      const attended = this.attend(`${prefix}.attention`, hidden);
      hidden = this.feedForward(prefix, attended);
    }
    const first = graph.node("Gather", "first_token", [hidden, graph.integers("first_position", 0)], {
      attributes: { axis: { int: 1 } },
    });
    const pooled = graph.node("Tanh", "pooled", [
      this.headLinear("bert.pooler.dense", first, config.hiddenSize),
    ]);
    const labels = config.labels.length;
    const scores = this.headLinear("classifier", pooled, labels);
    graph.output({
      name: graph.node("Identity", "logits", [scores]),
      type: "float32",
      shape: ["batch", labels],
    });
    return graph;
  }

  /** [batch, sequence] ids to [batch, sequence, hidden]: the sum of three embeddings, normalized. */
  protected abstract embed(): Value;
  /** The attention block with its output projection, residual and layer norm. */
  protected abstract attend(prefix: string, hidden: Value): Value;
  /** The two-matrix block with its residual and layer norm. */
  protected abstract feedForward(prefix: string, hidden: Value): Value;

  /** A weight in the layout of the checkpoint. */
  protected weight(name: string, shape: readonly number[]): Value {
    return this.graph.weight({ name, type: "float32", shape, data: () => this.read(name, shape) });
  }

  /** The epsilon of every layer norm, as an attribute. */
  protected get epsilon(): { readonly float: number } {
    return { float: this.config.layerNormEpsilon };
  }

  /** The values of a weight, checked against the shape the configuration asks for. */
  protected read(name: string, shape: readonly number[]): Float32Array {
    const data = this.#weight(name);
    const elements = shape.reduce((product, size) => product * size, 1);
    if (data.length !== elements) {
      throw new InputError(
        `Cannot export ${name}: it has ${data.length} values, the configuration wants [${shape}] = ${elements}`,
      );
    }
    return data;
  }

  /** The matrices of `prefixes`, each [out, in], side by side as one [in, out · count], multiplied from the right. */
  protected matrix(name: string, prefixes: readonly string[], out: number, into: number): Value {
    const data = () =>
      transposeAndJoin(prefixes.map((p) => this.read(`${p}.weight`, [out, into])), out, into);
    return this.graph.weight({ name, type: "float32", shape: [into, out * prefixes.length], data });
  }

  /** The same matrices as signed bytes, and their scales, one per column. */
  protected int8Matrix(name: string, prefixes: readonly string[], out: number, into: number): [Value, Value] {
    const columns = out * prefixes.length;
    const read = () => prefixes.map((p) => this.read(`${p}.weight`, [out, into]));
    const matrix = this.graph.weight({
      name: `${name}.int8`,
      type: "int8",
      shape: [into, columns],
      data: () => roundToScales(transposeAndJoin(read(), out, into), columnScales(read(), out, into)),
    });
    const scales = this.graph.weight({
      name: `${name}.scale`,
      type: "float32",
      shape: [columns],
      data: () => columnScales(read(), out, into),
    });
    return [matrix, scales];
  }

  /** x · Wᵀ + bias on [batch, in]: once per sequence, so it stays float32 and keeps the checkpoint's layout. */
  protected headLinear(prefix: string, x: Value, out: number): Value {
    const operands = [
      x,
      this.weight(`${prefix}.weight`, [out, this.config.hiddenSize]),
      this.weight(`${prefix}.bias`, [out]),
    ];
    return this.graph.node("Gemm", `${prefix}.output`, operands, { attributes: { transB: { int: 1 } } });
  }
}

/** Opset 17. The shapes of the subgraphs are those the optimizer of ONNX Runtime recognises and fuses. */
class StandardBert extends BertWriter {
  protected override embed(): Value {
    const { graph, config } = this;
    const prefix = "bert.embeddings";
    const table = (name: string, rows: number) =>
      this.weight(`${prefix}.${name}_embeddings.weight`, [rows, config.hiddenSize]);
    const words = graph.node("Gather", "words", [table("word", config.vocabularySize), "input_ids"]);
    const types = graph.node("Gather", "types", [
      table("token_type", config.typeVocabularySize),
      "token_type_ids",
    ]);
    const length = graph.node("Shape", "length", ["input_ids"], {
      attributes: { start: { int: 1 }, end: { int: 2 } },
    });
    const positions = graph.node("Slice", "positions", [
      table("position", config.maximumPositions),
      graph.integers("slice_start", [0]),
      length,
      graph.integers("slice_axis", [0]),
    ]);
    const typed = graph.node("Add", "words_and_types", [words, types]);
    const sum = graph.node("Add", "embeddings", [typed, positions]);
    return this.#normalize(`${prefix}.LayerNorm`, sum);
  }

  protected override attend(prefix: string, hidden: Value): Value {
    const { graph, config } = this;
    const { heads, hiddenSize } = config;
    const headSize = hiddenSize / heads;
    const split = graph.integers("split_heads", [0, 0, heads, headSize]);
    const project = (name: string, order: readonly number[]) => {
      const path = `${prefix}.self.${name}`;
      const flat = graph.node("Reshape", `${path}.split`, [
        this.#linear(path, hidden, hiddenSize, hiddenSize),
        split,
      ]);
      return graph.node("Transpose", `${path}.heads`, [flat], { attributes: { perm: { ints: order } } });
    };
    const query = project("query", [0, 2, 1, 3]);
    const key = project("key", [0, 2, 3, 1]);
    const value = project("value", [0, 2, 1, 3]);
    const products = graph.node("MatMul", `${prefix}.products`, [query, key]);
    const root = graph.scalar("root_of_head_size", Math.sqrt(headSize));
    const scores = graph.node("Div", `${prefix}.scores`, [products, root]);
    const masked = graph.node("Add", `${prefix}.masked`, [scores, this.#maskBias()]);
    const weights = graph.node("Softmax", `${prefix}.weights`, [masked], {
      attributes: { axis: { int: -1 } },
    });
    const perHead = graph.node("MatMul", `${prefix}.per_head`, [weights, value]);
    const perToken = graph.node("Transpose", `${prefix}.per_token`, [perHead], {
      attributes: { perm: { ints: [0, 2, 1, 3] } },
    });
    const context = graph.node("Reshape", `${prefix}.context`, [
      perToken,
      graph.integers("join_heads", [0, 0, hiddenSize]),
    ]);
    const output = this.#linear(`${prefix}.output.dense`, context, hiddenSize, hiddenSize);
    const residual = graph.node("Add", `${prefix}.residual`, [output, hidden]);
    return this.#normalize(`${prefix}.output.LayerNorm`, residual);
  }

  protected override feedForward(prefix: string, hidden: Value): Value {
    const { graph, config } = this;
    const { hiddenSize, intermediateSize } = config;
    const wide = this.#linear(`${prefix}.intermediate.dense`, hidden, intermediateSize, hiddenSize);
    // GELU(x) = x · (1 + erf(x / √2)) / 2
    const scaled = graph.node("Div", `${prefix}.gelu.scaled`, [
      wide,
      graph.scalar("root_of_two", Math.SQRT2),
    ]);
    const erf = graph.node("Erf", `${prefix}.gelu.erf`, [scaled]);
    const shifted = graph.node("Add", `${prefix}.gelu.shifted`, [erf, graph.scalar("one", 1)]);
    const twice = graph.node("Mul", `${prefix}.gelu.twice`, [wide, shifted]);
    const active = graph.node("Mul", `${prefix}.gelu`, [twice, graph.scalar("half", 0.5)]);
    const output = this.#linear(`${prefix}.output.dense`, active, hiddenSize, intermediateSize);
    const residual = graph.node("Add", `${prefix}.residual`, [output, hidden]);
    return this.#normalize(`${prefix}.output.LayerNorm`, residual);
  }

  #mask?: Value;

  /** [batch, 1, 1, sequence]: 0 where attention may look, −10000 where it may not (exp underflows to exactly 0). */
  #maskBias(): Value {
    if (this.#mask === undefined) {
      const { graph } = this;
      const rows = graph.node("Unsqueeze", "mask.rows", ["attention_mask", graph.integers("axis_1", [1])]);
      const perHead = graph.node("Unsqueeze", "mask.per_head", [rows, graph.integers("axis_2", [2])]);
      const float = graph.node("Cast", "mask.float", [perHead], { attributes: { to: { int: 1 } } });
      const padding = graph.node("Sub", "mask.padding", [graph.scalar("one", 1), float]);
      this.#mask = graph.node("Mul", "mask.bias", [padding, graph.scalar("masked_score", -10000)]);
    }
    return this.#mask;
  }

  #normalize(prefix: string, x: Value): Value {
    const size = [this.config.hiddenSize];
    const operands = [x, this.weight(`${prefix}.weight`, size), this.weight(`${prefix}.bias`, size)];
    return this.graph.node("LayerNormalization", `${prefix}.output`, operands, {
      attributes: { axis: { int: -1 }, epsilon: this.epsilon },
    });
  }

  #linear(prefix: string, x: Value, out: number, into: number): Value {
    const product = this.int8
      ? this.#int8Product(prefix, x, out, into)
      : this.graph.node("MatMul", `${prefix}.product`, [
        x,
        this.matrix(`${prefix}.transposed`, [prefix], out, into),
      ]);
    return this.graph.node("Add", `${prefix}.output`, [product, this.weight(`${prefix}.bias`, [out])]);
  }

  #int8Product(prefix: string, x: Value, out: number, into: number): Value {
    const { graph } = this;
    const [matrix, scales] = this.int8Matrix(`${prefix}.transposed`, [prefix], out, into);
    const [bytes, scale, zero] = ["bytes", "scale", "zero"].map((part) => `${x}.dynamic.${part}`);
    if (!this.#quantized.has(x)) {
      this.#quantized.add(x);
      graph.node("DynamicQuantizeLinear", bytes, [x], { results: [bytes, scale, zero] });
    }
    const sums = graph.node("MatMulInteger", `${prefix}.sums`, [bytes, matrix, zero]);
    const float = graph.node("Cast", `${prefix}.float`, [sums], { attributes: { to: { int: 1 } } });
    const bothScales = graph.node("Mul", `${prefix}.scales`, [scale, scales]);
    return graph.node("Mul", `${prefix}.product`, [float, bothScales]);
  }

  /** Activations that already have a quantized form: query, key and value share one. */
  readonly #quantized = new Set<Value>();
}

/** The encoder operators of ONNX Runtime: whole blocks with their biases, residuals and layer norms folded in. */
class FusedBert extends BertWriter {
  protected override embed(): Value {
    const { graph, config } = this;
    const toInt32 = (name: string) =>
      graph.node("Cast", `${name}.int32`, [name], { attributes: { to: { int: 6 } } });
    const prefix = "bert.embeddings";
    const table = (name: string, rows: number) =>
      this.weight(`${prefix}.${name}_embeddings.weight`, [rows, config.hiddenSize]);
    toInt32("attention_mask");
    return graph.node("EmbedLayerNormalization", "embeddings", [
      toInt32("input_ids"),
      toInt32("token_type_ids"),
      table("word", config.vocabularySize),
      table("position", config.maximumPositions),
      table("token_type", config.typeVocabularySize),
      this.weight(`${prefix}.LayerNorm.weight`, [config.hiddenSize]),
      this.weight(`${prefix}.LayerNorm.bias`, [config.hiddenSize]),
    ], {
      domain: microsoft,
      attributes: { epsilon: this.epsilon },
      // The second result, sequence lengths, is unused: the mask may have holes.
      results: ["embeddings", "embeddings.lengths"],
    });
  }

  protected override attend(prefix: string, hidden: Value): Value {
    const { hiddenSize } = this.config;
    const context = this.int8 ? this.#int8Attention(prefix, hidden) : this.#attention(prefix, hidden);
    const product = this.#product(`${prefix}.output.dense`, context, hiddenSize, hiddenSize);
    return this.#addAndNormalize(`${prefix}.output`, product, hidden);
  }

  protected override feedForward(prefix: string, hidden: Value): Value {
    const { hiddenSize, intermediateSize } = this.config;
    const wide = this.#product(`${prefix}.intermediate.dense`, hidden, intermediateSize, hiddenSize);
    const bias = this.weight(`${prefix}.intermediate.dense.bias`, [intermediateSize]);
    const active = this.graph.node("BiasGelu", `${prefix}.gelu`, [wide, bias], { domain: microsoft });
    const output = this.#product(`${prefix}.output.dense`, active, hiddenSize, intermediateSize);
    return this.#addAndNormalize(`${prefix}.output`, output, hidden);
  }

  #attention(prefix: string, hidden: Value): Value {
    const { hiddenSize, heads } = this.config;
    const matrix = this.matrix(`${prefix}.self.qkv`, projections(prefix), hiddenSize, hiddenSize);
    return this.graph.node("Attention", `${prefix}.context`, [
      hidden,
      matrix,
      this.#projectionBias(prefix),
      "attention_mask.int32",
    ], { domain: microsoft, attributes: { num_heads: { int: heads } } });
  }

  #int8Attention(prefix: string, hidden: Value): Value {
    const { hiddenSize, heads } = this.config;
    const [matrix, scales] = this.int8Matrix(
      `${prefix}.self.qkv`,
      projections(prefix),
      hiddenSize,
      hiddenSize,
    );
    const [bytes, scale, zero] = ["bytes", "scale", "zero"].map((part) => `${prefix}.dynamic.${part}`);
    this.graph.node("DynamicQuantizeLinear", bytes, [hidden], { results: [bytes, scale, zero] });
    return this.graph.node("QAttention", `${prefix}.context`, [
      bytes,
      matrix,
      this.#projectionBias(prefix),
      scale,
      scales,
      "attention_mask.int32",
      zero,
    ], { domain: microsoft, attributes: { num_heads: { int: heads } } });
  }

  #projectionBias(prefix: string): Value {
    const { hiddenSize } = this.config;
    const data = () => {
      const joined = new Float32Array(3 * hiddenSize);
      projections(prefix).forEach((path, i) =>
        joined.set(this.read(`${path}.bias`, [hiddenSize]), i * hiddenSize)
      );
      return joined;
    };
    return this.graph.weight({
      name: `${prefix}.self.qkv.bias`,
      type: "float32",
      shape: [3 * hiddenSize],
      data,
    });
  }

  /** x · Wᵀ without the bias, which the operator after it adds. */
  #product(prefix: string, x: Value, out: number, into: number): Value {
    if (!this.int8) {
      const matrix = this.matrix(`${prefix}.transposed`, [prefix], out, into);
      return this.graph.node("MatMul", `${prefix}.product`, [x, matrix]);
    }
    const [matrix, scales] = this.int8Matrix(`${prefix}.transposed`, [prefix], out, into);
    return this.graph.node("DynamicQuantizeMatMul", `${prefix}.product`, [x, matrix, scales], {
      domain: microsoft,
    });
  }

  #addAndNormalize(prefix: string, product: Value, residual: Value): Value {
    const size = [this.config.hiddenSize];
    const [gamma, beta, bias] = ["LayerNorm.weight", "LayerNorm.bias", "dense.bias"].map((name) =>
      this.weight(`${prefix}.${name}`, size)
    );
    return this.graph.node("SkipLayerNormalization", `${prefix}.LayerNorm.output`, [
      product,
      residual,
      gamma,
      beta,
      bias,
    ], { domain: microsoft, attributes: { epsilon: this.epsilon } });
  }
}

/** The three projections of an attention block, in the order `Attention` wants them. */
function projections(prefix: string): string[] {
  return ["query", "key", "value"].map((name) => `${prefix}.self.${name}`);
}

/** Matrices [rows, columns] to one [columns, rows · count], by square blocks so that both sides stay in cache. */
function transposeAndJoin(matrices: readonly Float32Array[], rows: number, columns: number): Float32Array {
  const block = 32;
  const width = rows * matrices.length;
  const joined = new Float32Array(columns * width);
  matrices.forEach((matrix, index) => {
    for (let row0 = 0; row0 < rows; row0 += block) {
      const rowEnd = Math.min(row0 + block, rows);
      for (let column0 = 0; column0 < columns; column0 += block) {
        const columnEnd = Math.min(column0 + block, columns);
        for (let row = row0; row < rowEnd; row++) {
          for (let column = column0; column < columnEnd; column++) {
            joined[column * width + index * rows + row] = matrix[row * columns + column];
          }
        }
      }
    }
  });
  return joined;
}

/** One scale per output of the matrices [rows, columns]: its largest magnitude over 127; 1 for a row of zeros. */
function columnScales(matrices: readonly Float32Array[], rows: number, columns: number): Float32Array {
  const scales = new Float32Array(rows * matrices.length);
  matrices.forEach((matrix, index) => {
    for (let row = 0; row < rows; row++) {
      let largest = 0;
      for (let i = row * columns; i < (row + 1) * columns; i++) {
        largest = Math.max(largest, Math.abs(matrix[i]));
      }
      scales[index * rows + row] = largest === 0 ? 1 : largest / 127;
    }
  });
  return scales;
}

/** Each value over the scale of its column, rounded to a signed byte. */
function roundToScales(values: Float32Array, scales: Float32Array): Int8Array {
  const bytes = new Int8Array(values.length);
  for (let i = 0; i < values.length;) {
    for (let column = 0; column < scales.length; column++, i++) {
      bytes[i] = Math.round(values[i] / scales[column]);
    }
  }
  return bytes;
}
