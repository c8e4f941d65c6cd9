/**
 * The norm of all gradients on the GPU, and the factor that clips them: sums of squares by chunk, then one workgroup.
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
import { bindWords, isKeptFunction, type Lanes, lanesOf, laneTypes } from "../wgsl_ranges.ts";
import { chunkElements } from "./kernel.ts";

const workgroupSize = 256;

/** A range of f32 elements in device memory. */
export interface GradientShaderRange {
  readonly range: BufferRange;
  /** Elements; multiples of 4 run best. */
  readonly count: number;
  /**
   * Bitset of 32-bit words, from any of them: only element i whose bit i mod 32 of word ⌊i / 32⌋ is set counts. What the
   * others hold, NaN too, does not matter. Absent: all count.
   */
  readonly mask?: BufferRange;
}

/** Where the gradients are and where the results go. Partials and result lie in other buffers than what is read. */
export interface GlobalNormShaderRequest {
  readonly gradients: readonly GradientShaderRange[];
  /** Room for `globalNormPartialBytes(gradients)`, in another buffer than the result. */
  readonly partials: BufferRange;
  /** Two f32: the norm and the clip factor. */
  readonly result: BufferRange;
  /** Norm above which gradients are scaled down; 0 or less for never. */
  readonly maximumNorm: number;
  /** f32: what the gradients are too large by. The norm is theirs without it, and the clip factor takes it off. Absent: 1. */
  readonly scale?: BufferRange;
  readonly target: ShaderTarget;
}

/** Bytes of `GlobalNormShaderRequest.partials`. */
export function globalNormPartialBytes(gradients: readonly Pick<GradientShaderRange, "count">[]): number {
  return 4 * gradients.reduce((sum, { count }) => sum + Math.ceil(count / chunkElements), 0);
}

/**
 * A call for each range and one more leave [norm, clip] at `result`: see `globalNormReference` for what they are. Every
 * workgroup sums a chunk of 16384 elements in an order that is fixed, so results are the same bits in every run.
 *
 * Numerics: f32. A partial sum is 16 squares in each of 1024 lanes (64 in 256 where a count is no multiple of 4), then a tree;
 * the last sum is ⌈partials / 256⌉ in each of 256 lanes, then a tree. The norm's relative error is at most half as many units
 * of 2⁻²⁴ as that is additions in a row: 2e-6 for 10⁸ elements, and far less as a rule. It is ∞ where a square is.
 */
export function globalNormCalls(
  { gradients, partials, result, maximumNorm, scale, target }: GlobalNormShaderRequest,
): ShaderCall[] {
  let firstPartial = 0;
  const sums = gradients.map(({ range, count, mask }): ShaderCall => {
    const lanes = lanesOf(count);
    const words = mask && bindWords(mask);
    const chunks = Math.ceil(count / chunkElements);
    const workgroups = linearGrid(chunks, target);
    const call = {
      shader: sumOfSquaresShader(lanes, words !== undefined),
      ranges: [partials, range, ...(words ? [words.range] : [])],
      uniforms: uniformWords(count / lanes, chunks, workgroups[0], firstPartial, words?.firstWord ?? 0),
      workgroups,
    };
    firstPartial += chunks;
    return call;
  });
  return [...sums, {
    shader: clipFactorShader(scale !== undefined),
    ranges: [result, partials, ...(scale ? [scale] : [])],
    uniforms: uniformWords(firstPartial, { f32: maximumNorm }),
    workgroups: [1, 1, 1],
  }];
}

/** The sum over a workgroup of what each invocation has, in the first one. */
const treeSum = `
var<workgroup> sums: array<f32, ${workgroupSize}>;
fn treeSum(own: f32, lane: u32) -> f32 {
  sums[lane] = own;
  for (var half = ${workgroupSize / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { sums[lane] += sums[lane + half]; }
  }
  return sums[lane];
}`;

/** partials[firstPartial + k] = Σ of gradients² over the k-th chunk; the last chunk may be shorter. */
function sumOfSquaresShader(lanes: Lanes, masked: boolean): Shader {
  const vectors = chunkElements / lanes;
  return {
    key: `sum_of_squares${masked ? "_masked" : ""}_f32x${lanes}`,
    bindings: ["write", "read", ...(masked ? ["read" as const] : []), "uniform"],
    code: `
${laneTypes(lanes)}
struct Sizes { count: u32, chunks: u32, groupsX: u32, firstPartial: u32, firstWord: u32 }
@group(0) @binding(0) var<storage, read_write> partials: array<f32>;
@group(0) @binding(1) var<storage, read> gradients: array<V>;
${masked ? "@group(0) @binding(2) var<storage, read> mask: array<u32>;" : ""}
@group(0) @binding(${masked ? 3 : 2}) var<uniform> sizes: Sizes;
${masked ? isKeptFunction(lanes) : ""}
${treeSum}
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let chunk = group.y * sizes.groupsX + group.x;
  if (chunk >= sizes.chunks) { return; }
  let end = min(sizes.count, (chunk + 1u) * ${vectors}u);
  var sum = V(0);
  for (var i = chunk * ${vectors}u + lane; i < end; i += ${workgroupSize}u) {
    let value = ${masked ? "select(V(0), gradients[i], isKept(sizes.firstWord, i))" : "gradients[i]"};
    sum = fma(value, value, sum);
  }
  let total = treeSum(${lanes === 4 ? "(sum.x + sum.y) + (sum.z + sum.w)" : "sum"}, lane);
  if (lane == 0u) { partials[sizes.firstPartial + chunk] = total; }
}`,
  };
}

/**
 * result = [norm, clip]: norm = √Σ partials, clip = min(1, maximumNorm / (norm + 10⁻⁶)), as PyTorch's
 * `clip_grad_norm_`; 1 when maximumNorm ≤ 0; NaN when the norm is NaN or infinite. As bits: WGSL has no NaN to write. Both are
 * divided by the scale if there is one.
 */
function clipFactorShader(scaled: boolean): Shader {
  return {
    key: `clip_factor_f32${scaled ? "_scaled" : ""}`,
    bindings: ["write", "read", ...(scaled ? ["read" as const] : []), "uniform"],
    code: `
struct Sizes { count: u32, maximumNorm: f32 }
@group(0) @binding(0) var<storage, read_write> result: array<u32, 2>;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
${scaled ? "@group(0) @binding(2) var<storage, read> scale: f32;" : ""}
@group(0) @binding(${scaled ? 3 : 2}) var<uniform> sizes: Sizes;
${treeSum}
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var i = lane; i < sizes.count; i += ${workgroupSize}u) { sum += partials[i]; }
  let total = treeSum(sum, lane);
  if (lane != 0u) { return; }
  let isFinite = (bitcast<u32>(total) & 0x7f800000u) != 0x7f800000u;
  let norm = select(total, sqrt(total)${scaled ? " / scale" : ""}, isFinite);
  let limited = select(1.0, min(1.0, sizes.maximumNorm / (norm + 1e-6)), sizes.maximumNorm > 0.0)${
      scaled ? " / scale" : ""
    };
  result[0] = bitcast<u32>(norm);
  result[1] = select(0x7fc00000u, bitcast<u32>(limited), isFinite);
}`,
  };
}
