/**
 * A fused optimiser step on the GPU: one pass reads weight, gradient and states, and writes weight and states.
 * @module
 */
import {
  type BufferRange,
  linearGrid,
  type Shader,
  type ShaderCall,
  type ShaderTarget,
  uniformWords,
} from "../shader.ts";
import { f32Literal } from "../wgsl_math.ts";
import { bindWords, isKeptFunction, type Lanes, lanesOf, laneTypes } from "../wgsl_ranges.ts";
import { smallestMoment } from "./reference.ts";
import { checkStates, type UpdateRule } from "./rule.ts";

const workgroupSize = 256;

/** A range of parameters that share a scalars block. Bindings all but the mask's begin at multiples of 256 bytes. */
export interface UpdateShaderRange {
  /** Updated in place, as all states are. */
  readonly weights: BufferRange;
  /** As `UpdateRule.states` lists them. */
  readonly states: readonly BufferRange[];
  /** Only read: in another buffer than weights and states, as mask, scalars and clip factor are. */
  readonly gradients: BufferRange;
  /** Bitset of 32-bit words, from any of them: bit i mod 32 of word ⌊i / 32⌋ keeps element i. Absent: all are kept. */
  readonly mask?: BufferRange;
  /** A block of `UpdateRule.scalars`, written before the step runs. */
  readonly scalars: BufferRange;
  /** Elements of the range; multiples of 4 run best. */
  readonly count: number;
}

/** What to update. */
export interface UpdateShaderRequest {
  readonly rule: UpdateRule;
  /** Disjoint ranges, each with its own scalars and mask. */
  readonly ranges: readonly UpdateShaderRange[];
  /** The two f32 that `globalNormCalls` leaves: the second multiplies the gradients. */
  readonly clip: BufferRange;
  readonly target: ShaderTarget;
}

/**
 * A call for each range that updates it as `UpdateRule.reference` says. Pruned elements leave with weight and states of zero,
 * whatever their gradient. When the clip factor is NaN or infinite nothing is changed at all.
 *
 * Throws a RangeError when a range does not have the states of the rule.
 */
export function updateCalls({ rule, ranges, clip, target }: UpdateShaderRequest): ShaderCall[] {
  return ranges.map(({ weights, states, gradients, mask, scalars, count }) => {
    checkStates(rule, states.length);
    const lanes = lanesOf(count);
    const words = mask && bindWords(mask);
    const vectors = count / lanes;
    const workgroups = linearGrid(Math.ceil(vectors / workgroupSize), target);
    return {
      shader: updateShader(rule, lanes, words !== undefined),
      ranges: [weights, ...states, gradients, scalars, clip, ...(words ? [words.range] : [])],
      uniforms: uniformWords(vectors, workgroups[0], words?.firstWord ?? 0),
      workgroups,
    };
  });
}

/** The step of a rule on `lanes` elements an invocation. */
function updateShader({ key, states, scalars, wgsl }: UpdateRule, lanes: Lanes, masked: boolean): Shader {
  const [gradients, scalarsAt, clip, mask] = [1, 2, 3, 4].map((place) => states.length + place);
  const sizes = masked ? mask + 1 : mask;
  const variables = ["w", ...states];
  const array = (variable: string) => variable === "w" ? "weights" : `${variable}s`;
  const lines = (text: (variable: string, binding: number) => string) => variables.map(text).join("\n");
  return {
    key: `update_${key}${masked ? "_masked" : ""}_f32x${lanes}`,
    bindings: [
      ...variables.map(() => "write" as const),
      ...["read", "read", "read"] as const,
      ...(masked ? ["read" as const] : []),
      "uniform",
    ],
    code: `
${laneTypes(lanes)}
struct Scalars { ${scalars.map((word) => `${word}: f32`).join(", ")} }
struct Sizes { count: u32, groupsX: u32, firstWord: u32 }
${
      lines((variable, binding) =>
        `@group(0) @binding(${binding}) var<storage, read_write> ${array(variable)}: array<V>;`
      )
    }
@group(0) @binding(${gradients}) var<storage, read> gradients: array<V>;
@group(0) @binding(${scalarsAt}) var<storage, read> scalars: Scalars;
// As bits, which no compiler takes for numbers that cannot be NaN.
@group(0) @binding(${clip}) var<storage, read> normAndClip: array<u32, 2>;
${masked ? `@group(0) @binding(${mask}) var<storage, read> mask: array<u32>;` : ""}
@group(0) @binding(${sizes}) var<uniform> sizes: Sizes;
${masked ? isKeptFunction(lanes) : ""}
fn flush(moment: V) -> V {
  return select(moment, V(0), abs(moment) < V(${f32Literal(smallestMoment)}));
}
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * sizes.groupsX + group.x) * ${workgroupSize}u + lane;
  let clipBits = normAndClip[1];
  if (i >= sizes.count || (clipBits & 0x7f800000u) == 0x7f800000u) { return; }
  var g = gradients[i] * bitcast<f32>(clipBits);
${lines((variable) => `var ${variable} = ${array(variable)}[i];`)}
${wgsl}
${masked ? "let kept = isKept(sizes.firstWord, i);" : ""}
${lines((variable) => `${array(variable)}[i] = ${masked ? `select(V(0), ${variable}, kept)` : variable};`)}
}`,
  };
}
