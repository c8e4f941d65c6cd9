/**
 * What shaders share that walk over ranges of parameters: a vector an invocation, and bitsets that say which elements count.
 * @module
 */
import type { BufferRange } from "./shader.ts";

/** Elements that an invocation has at a time. */
export type Lanes = 1 | 4;

/** Vectors where a count has no remainder. */
export function lanesOf(count: number): Lanes {
  return count % 4 === 0 ? 4 : 1;
}

/** `V` holds the elements of an invocation, `B` what is true of them. `V(x)` has x in every lane. */
export function laneTypes(lanes: Lanes): string {
  return lanes === 4 ? "alias V = vec4f;\nalias B = vec4<bool>;" : "alias V = f32;\nalias B = bool;";
}

/**
 * `fn isKept(firstWord: u32, i: u32) -> B`: the bits of the i-th `V` in the bitset that begins at a word of `mask`. Bit
 * e mod 32 of word ⌊e / 32⌋ belongs to element e.
 */
export function isKeptFunction(lanes: Lanes): string {
  return lanes === 4
    ? `
fn isKept(firstWord: u32, i: u32) -> B {
  let bits = mask[firstWord + (i >> 3u)] >> ((i & 7u) * 4u);
  return (vec4u(bits) & vec4u(1u, 2u, 4u, 8u)) != vec4u(0u);
}`
    : `
fn isKept(firstWord: u32, i: u32) -> B {
  return ((mask[firstWord + (i >> 5u)] >> (i & 31u)) & 1u) != 0u;
}`;
}

/** Offsets of bindings are multiples of this. */
const bindingAlignment = 256;

/** A range as it can be bound. */
export interface BoundWords {
  readonly range: BufferRange;
  /** Where the words that were asked for begin in it. */
  readonly firstWord: number;
}

/**
 * Binds words that may begin anywhere: the mask of a part of the parameters does, for a word of it stands for 32 of them. The
 * range begins up to 63 words earlier.
 */
export function bindWords({ buffer, byteOffset, byteLength }: BufferRange): BoundWords {
  const before = byteOffset % bindingAlignment;
  return {
    range: { buffer, byteOffset: byteOffset - before, byteLength: byteLength + before },
    firstWord: before / 4,
  };
}
