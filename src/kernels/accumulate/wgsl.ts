/**
 * sums += scale · gradients on the GPU: gradients of several batches make one step.
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
import { type Lanes, lanesOf, laneTypes } from "../wgsl_ranges.ts";

const workgroupSize = 256;

/** What to add to what. */
export interface AccumulateShaderRequest {
  readonly ranges: readonly {
    /** Only read: in another buffer than the sums, as the scale is. */
    readonly gradients: BufferRange;
    readonly sums: BufferRange;
    /** Elements of the range; multiples of 4 run best. */
    readonly count: number;
  }[];
  /** An f32: the factor. */
  readonly scale: BufferRange;
  /** Whether sums begin with these gradients, whatever they held before. */
  readonly begins: boolean;
  readonly target: ShaderTarget;
}

/** A call for each range that adds gradients to their sums. */
export function accumulateCalls(
  { ranges, scale, begins, target }: AccumulateShaderRequest,
): ShaderCall[] {
  return ranges.map(({ gradients, sums, count }) => {
    const lanes = lanesOf(count);
    const vectors = count / lanes;
    const workgroups = linearGrid(Math.ceil(vectors / workgroupSize), target);
    return {
      shader: accumulateShader(begins, lanes),
      ranges: [sums, gradients, scale],
      uniforms: uniformWords(vectors, workgroups[0]),
      workgroups,
    };
  });
}

/** sums[i] = sums[i] + scale · gradients[i] for i < count; with `begins` sums[i] = scale · gradients[i]. */
function accumulateShader(begins: boolean, lanes: Lanes): Shader {
  return {
    key: `accumulate${begins ? "_begin" : ""}_f32x${lanes}`,
    bindings: ["write", "read", "read", "uniform"],
    code: `
${laneTypes(lanes)}
struct Sizes { count: u32, groupsX: u32 }
@group(0) @binding(0) var<storage, read_write> sums: array<V>;
@group(0) @binding(1) var<storage, read> gradients: array<V>;
@group(0) @binding(2) var<storage, read> scale: f32;
@group(0) @binding(3) var<uniform> sizes: Sizes;
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * sizes.groupsX + group.x) * ${workgroupSize}u + lane;
  if (i >= sizes.count) { return; }
  sums[i] = ${begins ? "gradients[i] * scale" : "fma(gradients[i], V(scale), sums[i])"};
}`,
  };
}
