/**
 * WGSL that the shaders of a selection share.
 * @module
 */
import { workgroupSize } from "./layout.ts";

/** The scratch, and the uniform that says which matrix it is about. */
export const listText = `
struct List {
  count: u32, chunks: u32, groupsX: u32, firstWord: u32, spared: u32, ties: u32, reportWord: u32,
}
@group(0) @binding(0) var<storage, read_write> scratch: array<atomic<u32>>;
fn scratchAt(word: u32) -> u32 { return atomicLoad(&scratch[word]); }`;

/** `fn competing(word: u32) -> u32`: the bits of weights that are not pruned yet and may be. */
export function competingFunction(grouped: boolean): string {
  return `
fn competing(word: u32) -> u32 {
  return mask[list.firstWord + word]${grouped ? " & ~scratchAt(list.spared + word)" : ""};
}`;
}

/** `fn sumBefore(own: u32, lane: u32) -> u32`: what the invocations before have, with `workgroupTotal()` of all. */
export const scanFunction = `
var<workgroup> sums: array<u32, ${workgroupSize}>;
fn sumBefore(own: u32, lane: u32) -> u32 {
  sums[lane] = own;
  for (var distance = 1u; distance < ${workgroupSize}u; distance <<= 1u) {
    workgroupBarrier();
    var sum = sums[lane];
    if (lane >= distance) { sum += sums[lane - distance]; }
    workgroupBarrier();
    sums[lane] = sum;
  }
  workgroupBarrier();
  return sums[lane] - own;
}
fn workgroupTotal() -> u32 { return sums[${workgroupSize - 1}]; }`;

/** The way into `main`: which invocation it is. */
export const mainText = `
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32)`;
