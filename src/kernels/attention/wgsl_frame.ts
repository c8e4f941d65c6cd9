/**
 * What the shaders of attention and of its gradient have around their bodies: operands, and who owns which columns.
 *
 * A workgroup owns up to 32 columns of one sequence, for one head, and passes over the whole sequence in blocks of 32 columns;
 * matrices of scores exist as 32 × 32 tiles only (Dao et al., FlashAttention, arXiv 2205.14135).
 * @module
 */
import type { ValueType } from "../../graph/graph.ts";
import { dropFunctions, dropSizes, dropValues } from "../dropout/wgsl.ts";
import type { BufferRange, Shader, ShaderCall, ShaderTarget } from "../shader.ts";
import { callShader, writeShader } from "../wgsl_shader.ts";
import { type AttentionAttributes, attentionSizes } from "./lowering.ts";
import { dropoutKeys } from "./reference.ts";
import { tileDeclarations, type TileShape, tileSide, workgroupSize } from "./wgsl_tiles.ts";

/** The shape of the shaders for matrices of this type. */
export function tileShape(attributes: AttentionAttributes, matrix: ValueType): TileShape {
  const { headSize, dropout } = attentionSizes(attributes, matrix);
  return { chunks: Math.ceil(headSize / tileSide), vectors: headSize % 4 === 0, dropout: dropout > 0 };
}

/** What differs between the shaders of attention. */
export interface AttentionText {
  readonly name: string;
  /** Matrices [hidden, columns] that are read. */
  readonly reads: readonly string[];
  /** Arrays of f32 that are read: the bindings that follow; then come the offsets, and the seed if there is dropout. */
  readonly readsRows?: readonly string[];
  /** Matrices that are written. */
  readonly writes: readonly string[];
  /** Arrays of f32 that are written: the last bindings. */
  readonly writesRows?: readonly string[];
  /** Functions. */
  readonly declarations: string;
  /**
   * Body of `main`, which has: the `begin` and `end` of a sequence's columns; `ownFirst`, the first of the columns that the workgroup
   * owns; `row` and `column`, which say what the invocation has of a tile (see `wgsl_tiles.ts`). For the columns past the last offset
   * `isPadding` is true and `blocksEnd`, else `end`, is `begin`.
   */
  readonly main: string;
}

/** A shader of attention. */
export function attentionShader(
  { name, reads, readsRows = [], writes, writesRows = [], declarations, main }: AttentionText,
  { chunks, vectors, dropout }: TileShape,
): Shader {
  const typed = (names: readonly string[], type: string) =>
    Object.fromEntries(names.map((name) => [name, `array<${type}>`]));
  const element = vectors ? "vec4f" : "f32";
  return writeShader({
    key: `${name}_f32${vectors ? "x4" : ""}_chunks${chunks}${dropout ? "_dropout" : ""}`,
    workgroupSize,
    reads: {
      ...typed(reads, element),
      ...typed(readsRows, "f32"),
      offsets: "array<u32>",
      seed: dropout && "array<u32>",
    },
    writes: { ...typed(writes, element), ...typed(writesRows, "f32") },
    sizes: { heads: "u32", headSize: "u32", scale: "f32", sequences: "u32", columns: "u32", ...dropSizes },
    declarations: `
const four = vec4u(0u, 1u, 2u, 3u);
var<workgroup> parts: array<vec4f, ${workgroupSize}>;
var<workgroup> found: u32;
var<private> ownLane: u32;
var<private> head: u32;
${reads.map((matrix) => readFunction(matrix, vectors)).join("")}
${writes.map((matrix) => storeFunction(matrix, vectors)).join("")}
${tileDeclarations}
${ownership}
${dropout ? keepFactors : ""}
${declarations}`,
    main: `
  ownLane = lane;
  head = group % sizes.heads;
  let item = group / sizes.heads;
  let sequence = sequenceOf(item);
  let begin = startOf(sequence);
  let end = startOf(sequence + 1u);
  let ownFirst = begin + ${tileSide}u * (item - firstItem(sequence));
  if (ownFirst >= end) { return; }
  let isPadding = sequence == sizes.sequences;
  let blocksEnd = select(end, begin, isPadding);
  let row = lane / 8u;
  let column = lane % 8u;
  ${main}`,
  });
}

/** The call of a shader of attention over all columns. */
export function attentionCall(
  shader: Shader,
  ranges: readonly (BufferRange | undefined)[],
  attributes: AttentionAttributes,
  matrix: ValueType,
  offsets: ValueType,
  target: ShaderTarget,
): ShaderCall {
  const { heads, headSize, columns, dropout, stream } = attentionSizes(attributes, matrix);
  const sequences = offsets.shape[0] - 1;
  const scale = { f32: 1 / Math.sqrt(headSize) };
  const drops = dropValues({ rate: dropout, stream });
  const items = Math.floor(columns / tileSide) + sequences + 1;
  return callShader(
    shader,
    ranges,
    [heads, headSize, scale, sequences, columns, ...drops],
    items * heads,
    target,
  );
}

/**
 * Work items are blocks of one sequence. Lengths are known to the device alone, so the host counts as many items as there can be:
 * those of sequence s begin at ⌊offsets[s] / 32⌋ + s, which leaves room for ⌈length / 32⌉, and at most one that has nothing to do.
 * What follows the last offset counts as one more sequence. All lanes look for an item's sequence together.
 */
const ownership = `
fn startOf(sequence: u32) -> u32 {
  return select(offsets[min(sequence, sizes.sequences)], sizes.columns, sequence > sizes.sequences);
}
fn firstItem(sequence: u32) -> u32 {
  return startOf(sequence) / ${tileSide}u + sequence;
}
fn sequenceOf(item: u32) -> u32 {
  for (var sequence = ownLane; sequence <= sizes.sequences; sequence += ${workgroupSize}u) {
    if (firstItem(sequence) <= item && item < firstItem(sequence + 1u)) { found = sequence; }
  }
  return workgroupUniformLoad(&found);
}`;

/** What probabilities of four (query, key) pairs are multiplied by; keys count from their sequence's first. */
const keepFactors = `${dropFunctions}
fn keepFactors(query: vec4u, key: vec4u) -> vec4f {
  let index = (query * sizes.heads + head) * ${dropoutKeys}u + key;
  let kept = isKept(index, vec2u(seed[0] ^ sizes.streamWord, seed[1]), sizes.threshold);
  return select(vec4f(), vec4f(sizes.keepScale), kept);
}`;

const outside = "column >= end || depth >= sizes.headSize";
const first = "let first = (column * sizes.heads + head) * sizes.headSize + depth;";
const eachFeature = "for (var i = 0u; i < min(4u, sizes.headSize - depth); i++)";

/** `<matrix>At` gives four features of a column, 0 where the column or the feature is past the end. */
function readFunction(matrix: string, vectors: boolean): string {
  return `
fn ${matrix}At(column: u32, end: u32, depth: u32) -> vec4f {
  if (${outside}) { return vec4f(); }
  ${first}
  ${
    vectors ? `return ${matrix}[first / 4u];` : `var result: vec4f;
  ${eachFeature} { result[i] = ${matrix}[first + i]; }
  return result;`
  }
}`;
}

/** `<matrix>Store` stores four features of a column, but for those past the end. */
function storeFunction(matrix: string, vectors: boolean): string {
  return `
fn ${matrix}Store(column: u32, end: u32, depth: u32, value: vec4f) {
  if (${outside}) { return; }
  ${first}
  ${vectors ? `${matrix}[first / 4u] = value;` : `${eachFeature} { ${matrix}[first + i] = value[i]; }`}
}`;
}
