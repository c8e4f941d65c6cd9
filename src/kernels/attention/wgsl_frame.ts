/**
 * What the shaders of attention and of its gradient have around their bodies: operands, and who owns which columns.
 *
 * A workgroup owns up to 32 columns of one sequence, for one head, and passes over the whole sequence in blocks of 32 columns;
 * matrices of scores exist as 32 × 32 tiles only (Dao et al., FlashAttention, arXiv 2205.14135).
 * @module
 */
import type { ValueType } from "../../graph/graph.ts";
import { dropFunctions, dropMembers, dropWords } from "../dropout/wgsl.ts";
import {
  type BufferRange,
  linearGrid,
  type Shader,
  type ShaderCall,
  type ShaderTarget,
  uniformWords,
} from "../shader.ts";
import { type AttentionAttributes, attentionSizes } from "./lowering.ts";
import { dropoutKeys } from "./reference.ts";
import { tileDeclarations, type TileShape, tileSide, workgroupSize } from "./wgsl_tiles.ts";

/** The shape of the shaders for matrices of this type. */
export function tileShape(attributes: AttentionAttributes, matrix: ValueType): TileShape {
  const { headSize, dropout } = attentionSizes(attributes, matrix);
  return { chunks: Math.ceil(headSize / tileSide), vectors: headSize % 4 === 0, dropout: dropout > 0 };
}

/** A storage binding. Matrices [hidden, columns] are read and written a vector of features at a time. */
export interface Binding {
  readonly name: string;
  readonly use: "read" | "write";
  readonly kind: "matrix" | "f32" | "u32";
}

/**
 * A shader of attention: `body` with all that these functions declare in front of it.
 *
 * In `body`: `sequence` with its columns `begin` to `end`; `ownFirst`, the first of the owned columns; `row` and `column`, which
 * say what the invocation has of a tile: rows row + 8·i for i < 4, as a `Block` of one vector each, and columns 4·column to
 * 4·column + 3. For the columns past the last offset, `isPadding` is true and `blocksEnd`, else `end`, is `begin`.
 */
export function attentionShader(
  name: string,
  shape: TileShape,
  bindings: readonly Binding[],
  functions: string,
  body: string,
): Shader {
  const { chunks, vectors, dropout } = shape;
  const matrices = bindings.filter(({ kind }) => kind === "matrix");
  return {
    key: `${name}_f32${vectors ? "x4" : ""}_chunks${chunks}${dropout ? "_dropout" : ""}`,
    bindings: [...bindings.map(({ use }) => use), "uniform"],
    code: `
struct Sizes {
  heads: u32, headSize: u32, scale: f32,
  sequences: u32, columns: u32, groupsX: u32,
  ${dropMembers}
}
const four = vec4u(0u, 1u, 2u, 3u);
${bindings.map((binding, index) => declareBinding(binding, index, vectors)).join("\n")}
@group(0) @binding(${bindings.length}) var<uniform> sizes: Sizes;
var<workgroup> parts: array<vec4f, ${workgroupSize}>;
var<workgroup> found: u32;
var<private> head: u32;
${matrices.map((matrix) => accessor(matrix, vectors)).join("")}
${tileDeclarations}
${ownership}
${dropout ? keepFactors : ""}
${functions}
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  lane = index;
  let number = group.y * sizes.groupsX + group.x;
  head = number % sizes.heads;
  let item = number / sizes.heads;
  if (item >= firstItem(sizes.sequences + 1u)) { return; }
  let sequence = sequenceOf(item);
  let begin = startOf(sequence);
  let end = startOf(sequence + 1u);
  let ownFirst = begin + ${tileSide}u * (item - firstItem(sequence));
  if (ownFirst >= end) { return; }
  let isPadding = sequence == sizes.sequences;
  let blocksEnd = select(end, begin, isPadding);
  let row = lane / 8u;
  let column = lane % 8u;
  ${body}
}`,
  };
}

/** The call of a shader of attention over all columns. */
export function attentionCall(
  shader: Shader,
  ranges: readonly BufferRange[],
  attributes: AttentionAttributes,
  matrix: ValueType,
  offsets: ValueType,
  target: ShaderTarget,
): ShaderCall {
  const { heads, headSize, columns, dropout, stream } = attentionSizes(attributes, matrix);
  const sequences = offsets.shape[0] - 1;
  const items = Math.floor(columns / tileSide) + sequences + 1;
  const workgroups = linearGrid(items * heads, target);
  return {
    shader,
    ranges,
    uniforms: uniformWords(
      heads,
      headSize,
      { f32: 1 / Math.sqrt(headSize) },
      sequences,
      columns,
      workgroups[0],
      ...dropWords({ rate: dropout, stream }),
    ),
    workgroups,
  };
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
  for (var sequence = lane; sequence <= sizes.sequences; sequence += ${workgroupSize}u) {
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

function declareBinding({ name, use, kind }: Binding, index: number, vectors: boolean): string {
  const element = kind === "matrix" ? vectors ? "vec4f" : "f32" : kind;
  const access = use === "read" ? "read" : "read_write";
  return `@group(0) @binding(${index}) var<storage, ${access}> ${name}: array<${element}>;`;
}

/** `<name>At` gives four features of a column, 0 where the column or the feature is past the end; `<name>Store` leaves those alone. */
function accessor({ name, use }: Binding, vectors: boolean): string {
  const outside = "column >= end || depth >= sizes.headSize";
  const first = "let first = (column * sizes.heads + head) * sizes.headSize + depth;";
  const single = "for (var i = 0u; i < min(4u, sizes.headSize - depth); i++)";
  if (use === "write") {
    return `
fn ${name}Store(column: u32, end: u32, depth: u32, value: vec4f) {
  if (${outside}) { return; }
  ${first}
  ${vectors ? `${name}[first / 4u] = value;` : `${single} { ${name}[first + i] = value[i]; }`}
}`;
  }
  return `
fn ${name}At(column: u32, end: u32, depth: u32) -> vec4f {
  if (${outside}) { return vec4f(); }
  ${first}
  ${
    vectors ? `return ${name}[first / 4u];` : `var result: vec4f;
  ${single} { result[i] = ${name}[first + i]; }
  return result;`
  }
}`;
}
