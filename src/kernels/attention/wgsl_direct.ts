/**
 * Attention and its gradient without workgroup memory: an invocation owns a column of a head, and reads the others of its sequence
 * itself. For a CPU that plays the GPU, where barriers cost more than caches save, and tiles that short sequences leave empty
 * cost as much as full ones.
 * @module
 */
import type { ValueType } from "../../graph/graph.ts";
import { dropFunctions, dropSizes, dropValues } from "../dropout/wgsl.ts";
import type { BufferRange, Shader, ShaderCall, ShaderTarget } from "../shader.ts";
import { callShader, type FeatureVector, featureVector, writeShader } from "../wgsl_shader.ts";
import { type AttentionAttributes, attentionSizes } from "./lowering.ts";
import { dropoutKeys } from "./reference.ts";

/** Few, so that short batches have work for all threads. */
const workgroupSize = 32;

/** What the code depends on. */
export interface DirectShape {
  readonly headSize: number;
  /** Whether probabilities are dropped. */
  readonly dropout: boolean;
}

/** The shape of the shaders for matrices of this type. */
export function directShape(attributes: AttentionAttributes, matrix: ValueType): DirectShape {
  const { headSize, dropout } = attentionSizes(attributes, matrix);
  return { headSize, dropout: dropout > 0 };
}

/** What differs between the shaders. */
interface DirectText {
  readonly name: string;
  /** Matrices [hidden, columns] that are read, and arrays of f32. */
  readonly reads: readonly string[];
  readonly readsRows?: readonly string[];
  /** Matrices that are written, and arrays of f32. */
  readonly writes: readonly string[];
  readonly writesRows?: readonly string[];
  /**
   * Body of `main`, which has: `head`; `column`, the owned one; `begin` and `end` of its sequence, both 0 for a column past the last
   * offset; `own`, the place of the head's first vector in the column, and `ownRow`, that of its number in arrays of f32.
   */
  readonly main: (text: VectorText) => string;
}

/** Means to write text about the vectors of a head. */
interface VectorText extends FeatureVector {
  /** A line for each vector. */
  each(line: (index: number) => string): string;
  /** An expression: the inner product of vectors that are named so. */
  product(a: (index: number) => string, b: (index: number) => string): string;
}

function vectorText(headSize: number): VectorText {
  const vector = featureVector(headSize);
  const indices = Array.from({ length: vector.count }, (_, index) => index);
  return {
    ...vector,
    each: (line) => indices.map(line).join("\n    "),
    product(a, b) {
      const sum = indices.map((index) => `${a(index)} * ${b(index)}`).join(" + ");
      return vector.type === "vec4f" ? `dot(${sum}, vec4f(1.0))` : `(${sum})`;
    },
  };
}

function directShader(
  { name, reads, readsRows = [], writes, writesRows = [], main }: DirectText,
  { headSize, dropout }: DirectShape,
): Shader {
  const vectors = vectorText(headSize);
  const typed = (names: readonly string[], type: string) =>
    Object.fromEntries(names.map((array) => [array, `array<${type}>`]));
  return writeShader({
    key: `${name}_f32_direct_${headSize}${dropout ? "_dropout" : ""}`,
    workgroupSize,
    reads: {
      ...typed(reads, vectors.type),
      ...typed(readsRows, "f32"),
      offsets: "array<u32>",
      seed: dropout && "array<u32>",
    },
    writes: { ...typed(writes, vectors.type), ...typed(writesRows, "f32") },
    sizes: { heads: "u32", scale: "f32", sequences: "u32", columns: "u32", ...dropSizes },
    declarations: dropout ? keepFactor : "",
    main: `
  let i = group * ${workgroupSize}u + lane;
  let heads = sizes.heads;
  let columns = sizes.columns;
  let scale = sizes.scale;
  if (i >= heads * columns) { return; }
  let head = i % heads;
  let column = i / heads;
  let own = i * ${vectors.count}u;
  let ownRow = head * columns + column;
  // The first offset beyond the column ends its sequence.
  var low = 0u;
  var high = sizes.sequences + 1u;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (offsets[middle] <= column) { low = middle + 1u; } else { high = middle; }
  }
  var begin = 0u;
  var end = 0u;
  if (low <= sizes.sequences) {
    begin = offsets[low - 1u];
    end = offsets[low];
  }
  ${main(vectors)}`,
  });
}

/** What the probability of a pair is multiplied by; keys count from their sequence's first. */
const keepFactor = `${dropFunctions}
fn keepFactor(head: u32, query: u32, key: u32) -> f32 {
  let index = (query * sizes.heads + head) * ${dropoutKeys}u + key;
  let kept = isKept(vec4u(index), vec2u(seed[0] ^ sizes.streamWord, seed[1]), sizes.threshold);
  return select(0.0, sizes.keepScale, kept.x);
}`;

/** The call of a shader over all columns. */
export function directCall(
  shader: Shader,
  ranges: readonly (BufferRange | undefined)[],
  attributes: AttentionAttributes,
  matrix: ValueType,
  offsets: ValueType,
  target: ShaderTarget,
): ShaderCall {
  const { heads, headSize, columns, dropout, stream } = attentionSizes(attributes, matrix);
  const scale = { f32: 1 / Math.sqrt(headSize) };
  const values = [heads, scale, offsets.shape[0] - 1, columns, ...dropValues({ rate: dropout, stream })];
  return callShader(shader, ranges, values, Math.ceil(heads * columns / workgroupSize), target);
}

/** Owns queries. `highest` and `total` follow the keys, as in FlashAttention. */
export function directForwardShader(shape: DirectShape, training: boolean): Shader {
  return directShader({
    name: training ? "attention_training" : "attention",
    reads: ["q", "k", "v"],
    writes: ["context"],
    writesRows: training ? ["logSumExp"] : [],
    main: ({ type, count, each, product }) => `
  ${each((n) => `let q${n} = q[own + ${n}u]; var sum${n} = ${type}();`)}
  // Not -∞: a difference of two of those would be NaN.
  var highest = -0x1.fffffep127f;
  var total = 0.0;
  for (var key = begin; key < end; key++) {
    let at = (key * heads + head) * ${count}u;
    let score = ${product((n) => `q${n}`, (n) => `k[at + ${n}u]`)} * scale;
    let best = max(highest, score);
    let fading = exp(highest - best);
    let weight = exp(score - best);
    highest = best;
    total = total * fading + weight;
    let kept = weight${shape.dropout ? " * keepFactor(head, column, key - begin)" : ""};
    ${each((n) => `sum${n} = sum${n} * fading + v[at + ${n}u] * kept;`)}
  }
  let share = select(0.0, 1.0 / total, begin < end);
  ${each((n) => `context[own + ${n}u] = sum${n} * share;`)}
  ${training ? "logSumExp[ownRow] = select(0.0, highest + log(total), begin < end);" : ""}`,
  }, shape);
}

const gradientOperands = { reads: ["gradContext", "q", "k", "v"], readsRows: ["logSumExp", "delta"] };

/** Owns queries: gradQ_i = Σ_j gradScore_ij · k_j / √headSize. */
export function directQueryShader(shape: DirectShape): Shader {
  return directShader({
    name: "attention_gradient_q",
    ...gradientOperands,
    writes: ["gradQ"],
    main: ({ type, count, each, product }) => `
  ${each((n) => `let q${n} = q[own + ${n}u]; let g${n} = gradContext[own + ${n}u]; var sum${n} = ${type}();`)}
  let logarithm = logSumExp[ownRow];
  let ownDelta = delta[ownRow];
  for (var key = begin; key < end; key++) {
    let at = (key * heads + head) * ${count}u;
    ${each((n) => `let k${n} = k[at + ${n}u];`)}
    let score = ${product((n) => `q${n}`, (n) => `k${n}`)} * scale;
    let grad = ${product((n) => `g${n}`, (n) => `v[at + ${n}u]`)}${
      shape.dropout ? " * keepFactor(head, column, key - begin)" : ""
    };
    let gradScore = exp(score - logarithm) * (grad - ownDelta);
    ${each((n) => `sum${n} += k${n} * gradScore;`)}
  }
  ${each((n) => `gradQ[own + ${n}u] = sum${n} * scale;`)}`,
  }, shape);
}

/** Owns keys: gradV_j = Σ_i keep_ij · P_ij · gradContext_i, gradK_j = Σ_i gradScore_ij · q_i / √headSize. */
export function directKeyShader(shape: DirectShape): Shader {
  return directShader({
    name: "attention_gradient_kv",
    ...gradientOperands,
    writes: ["gradK", "gradV"],
    main: ({ type, count, each, product }) => `
  ${
      each((n) =>
        `let k${n} = k[own + ${n}u]; let v${n} = v[own + ${n}u]; var sumK${n} = ${type}(); var sumV${n} = ${type}();`
      )
    }
  for (var query = begin; query < end; query++) {
    let at = (query * heads + head) * ${count}u;
    let row = head * columns + query;
    ${each((n) => `let q${n} = q[at + ${n}u]; let g${n} = gradContext[at + ${n}u];`)}
    let probability = exp(${product((n) => `k${n}`, (n) => `q${n}`)} * scale - logSumExp[row]);
    let keep = ${shape.dropout ? "keepFactor(head, query, column - begin)" : "1.0"};
    let grad = ${product((n) => `v${n}`, (n) => `g${n}`)} * keep;
    let gradScore = probability * (grad - delta[row]);
    let weight = probability * keep;
    ${each((n) => `sumK${n} += q${n} * gradScore; sumV${n} += g${n} * weight;`)}
  }
  ${each((n) => `gradK[own + ${n}u] = sumK${n} * scale; gradV[own + ${n}u] = sumV${n};`)}`,
  }, shape);
}
