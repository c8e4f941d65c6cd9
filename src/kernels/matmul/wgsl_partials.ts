/**
 * The sum of what the shares of a divided depth made.
 * @module
 */
import type { Shader } from "../shader.ts";

const workgroupSize = 256;

/** Elements that an invocation of the shader sums. */
export function partialsWidth(vectors: boolean): 1 | 4 {
  return vectors ? 4 : 1;
}

/** result[i] = Σ_share partials[share, i], in the order of the shares; `count` elements, or `vec4f`s of them. */
export function sumPartialsShader(vectors: boolean): Shader {
  const element = vectors ? "vec4f" : "f32";
  return {
    key: `matmul_sum_partials_${element}`,
    bindings: ["read", "write", "uniform"],
    code: `
struct Sizes { count: u32, shares: u32, groupsX: u32 }
@group(0) @binding(0) var<storage, read> partials: array<${element}>;
@group(0) @binding(1) var<storage, read_write> result: array<${element}>;
@group(0) @binding(2) var<uniform> sizes: Sizes;
@compute @workgroup_size(${workgroupSize})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * sizes.groupsX + group.x) * ${workgroupSize}u + lane;
  if (i >= sizes.count) { return; }
  var sum = partials[i];
  for (var share = 1u; share < sizes.shares; share++) { sum += partials[share * sizes.count + i]; }
  result[i] = sum;
}`,
  };
}
