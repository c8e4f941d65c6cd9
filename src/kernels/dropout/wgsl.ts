/**
 * Dropout on the GPU, and the random generator in WGSL for whoever drops: the same bits as on the CPU.
 * @module
 */
import { elementCount } from "../../graph/graph.ts";
import { defineLowering, wholeRange } from "../shader.ts";
import { callShader, workgroupSize, writeShader } from "../wgsl_shader.ts";
import { dropThreshold, streamWord } from "./emit_random.ts";
import { dropout } from "./operation.ts";
import type { DropoutAttributes } from "./reference.ts";

/**
 * `mix32` and `randomBits` of `src/core/random.ts` for four indices at once, and the decision of `isKept`:
 * `fn isKept(index: vec4u, key: vec2u, threshold: u32) -> vec4<bool>`, where key is (seed[0] ^ streamWord, seed[1]).
 */
export const dropFunctions = `
fn mix32(value: vec4u) -> vec4u {
  var x = value;
  x ^= x >> vec4u(16u);
  x *= 0x7feb352du;
  x ^= x >> vec4u(15u);
  x *= 0x846ca68bu;
  return x ^ (x >> vec4u(16u));
}
fn randomBits(key: vec2u, index: vec4u) -> vec4u {
  return mix32(mix32(index ^ vec4u(key.x)) + key.y);
}
fn isKept(index: vec4u, key: vec2u, threshold: u32) -> vec4<bool> {
  return (randomBits(key, index) >> vec4u(8u)) >= vec4u(threshold);
}`;

/** What a shader that drops has in its uniform block. */
export const dropSizes = { streamWord: "u32", threshold: "u32", keepScale: "f32" } as const;

/** The values of `dropSizes`, in order. */
export function dropValues({ rate, stream }: DropoutAttributes): [number, number, { f32: number }] {
  return [streamWord(stream), dropThreshold(rate), { f32: 1 / (1 - rate) }];
}

/** As a column's features are neighbours, the random index of an element is its place. An invocation makes four elements. */
const shader = writeShader({
  key: "dropout_f32",
  reads: { x: "array<vec4f>", seed: "array<u32>" },
  writes: { y: "array<vec4f>" },
  sizes: { vectors: "u32", ...dropSizes },
  declarations: dropFunctions,
  main: `
  let i = group * ${workgroupSize}u + lane;
  if (i >= sizes.vectors) { return; }
  let key = vec2u(seed[0] ^ sizes.streamWord, seed[1]);
  let kept = isKept(4u * i + vec4u(0u, 1u, 2u, 3u), key, sizes.threshold);
  y[i] = select(vec4f(), x[i] * sizes.keepScale, kept);`,
});

/** y = kept ? x / (1 − rate) : 0. */
export const dropoutShaders = defineLowering({
  operation: dropout,
  lower({ attributes, inputs: [x, seed], outputs: [y], target }) {
    // Columns come in multiples of 4 at the least, and so do elements.
    const vectors = elementCount(y.type) / 4;
    const ranges = [x, seed, y].map((operand) => wholeRange(operand!, "dropout"));
    const sizes = [vectors, ...dropValues(attributes)];
    return [callShader(shader, ranges, sizes, Math.ceil(vectors / workgroupSize), target)];
  },
});
