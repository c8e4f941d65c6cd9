/**
 * From a threshold to masks: what is below it is pruned, and of what equals it the first.
 * @module
 */
import type { Shader } from "../shader.ts";
import { header, workgroupSize } from "./layout.ts";
import { competingFunction, listText, mainText, scanFunction } from "./wgsl_text.ts";

/** The bits of a word's weights that are below the threshold, and of those that equal it. */
const classifyFunction = `
struct Classes { below: u32, ties: u32 }
fn classify(word: u32) -> Classes {
  var classes = Classes(0u, 0u);
  let threshold = scratchAt(${header.threshold}u);
  let end = min(list.count, (word + 1u) * 32u);
  for (var i = word * 32u; i < end; i++) {
    let magnitude = weights[i] & 0x7fffffffu;
    let bit = 1u << (i & 31u);
    if (magnitude < threshold) { classes.below |= bit; }
    if (magnitude == threshold) { classes.ties |= bit; }
  }
  if (word * 32u < list.count) {
    let may = competing(word);
    classes.below &= may;
    classes.ties &= may;
  }
  return classes;
}`;

/** Counts the ties of each chunk. */
export function tiesShader(grouped: boolean): Shader {
  return {
    key: `magnitude_ties${grouped ? "_grouped" : ""}`,
    bindings: ["write", "read", "read", "uniform"],
    code: `
${listText}
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<uniform> list: List;
${competingFunction(grouped)}
${classifyFunction}
var<workgroup> ties: atomic<u32>;
${mainText} {
  let chunk = group.y * list.groupsX + group.x;
  if (chunk >= list.chunks) { return; }
  let own = countOneBits(classify(chunk * ${workgroupSize}u + lane).ties);
  if (own > 0u) { atomicAdd(&ties, own); }
  workgroupBarrier();
  if (lane == 0u) { atomicStore(&scratch[list.ties + chunk], atomicLoad(&ties)); }
}`,
  };
}

/** Makes of the ties of each chunk those of the chunks before it. One workgroup; an invocation has neighbours. */
export const tiesBeforeShader: Shader = {
  key: "magnitude_ties_before",
  bindings: ["write", "uniform"],
  code: `
struct Chunks { ties: u32, count: u32 }
@group(0) @binding(0) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(1) var<uniform> chunks: Chunks;
${scanFunction}
${mainText} {
  let share = (chunks.count + ${workgroupSize - 1}u) / ${workgroupSize}u;
  let begin = min(chunks.count, lane * share);
  let end = min(chunks.count, begin + share);
  var own = 0u;
  for (var i = begin; i < end; i++) { own += scratch[chunks.ties + i]; }
  var before = sumBefore(own, lane);
  for (var i = begin; i < end; i++) {
    let ties = scratch[chunks.ties + i];
    scratch[chunks.ties + i] = before;
    before += ties;
  }
}`,
};

/** Writes the masks; changes nothing where a weight is NaN. */
export function applyShader(grouped: boolean): Shader {
  return {
    key: `magnitude_apply${grouped ? "_grouped" : ""}`,
    bindings: ["write", "read", "write", "uniform"],
    code: `
${listText}
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<uniform> list: List;
${competingFunction(grouped)}
${classifyFunction}
${scanFunction}
${mainText} {
  let chunk = group.y * list.groupsX + group.x;
  if (chunk >= list.chunks) { return; }
  let word = chunk * ${workgroupSize}u + lane;
  let classes = classify(word);
  let own = countOneBits(classes.ties);
  let before = sumBefore(own, lane) + scratchAt(list.ties + chunk);
  if (word * 32u >= list.count || scratchAt(${header.nans}u) > 0u) { return; }
  let rest = scratchAt(${header.rest}u);
  var keptTies = classes.ties;
  for (var pruned = min(own, rest - min(rest, before)); pruned > 0u; pruned--) {
    keptTies &= keptTies - 1u;
  }
  let inside = 0xffffffffu >> (32u - min(32u, list.count - word * 32u));
  mask[list.firstWord + word] &= inside & ~classes.below & (~classes.ties | keptTies);
}`,
  };
}
