/**
 * The product without workgroup memory: each invocation reads what it multiplies. For a CPU that plays the GPU, where barriers
 * and copies cost more than caches do.
 * @module
 */
import type { Shader } from "../shader.ts";
import type { DirectConfiguration } from "./wgsl_configurations.ts";
import { productDeclarations, productShader } from "./wgsl_patches.ts";
import { type ProductTraits } from "./wgsl_product.ts";

/** Steps of depth between two reads. */
export const directDepthStep = 4;

/** An invocation makes `blockRows` × `blockColumns` elements, a workgroup `tileRows` × `tileColumns`. */
export function directShader(configuration: DirectConfiguration, traits: ProductTraits): Shader {
  const { tileRows, tileColumns, blockRows, blockColumns, precision, name } = configuration;
  const [lanesDown, lanesAcross] = [tileRows / blockRows, tileColumns / blockColumns];
  const [down, across] = [range(blockRows / 4), range(blockColumns / 4)];
  const blocks = down.flatMap((r) => across.map((c) => ({ r, c, sum: `sum${r}_${c}` })));
  const code = `${productDeclarations(traits, precision, "result")}
@compute @workgroup_size(${lanesDown * lanesAcross})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * ${tileRows}u + lane / ${lanesAcross}u * ${blockRows}u;
  let column = group.x * ${tileColumns}u + lane % ${lanesAcross}u * ${blockColumns}u;
  // Column i of a sum is row i of its 4×4 block of results.
  ${blocks.map(({ sum }) => `var ${sum} = mat4x4f();`).join("\n  ")}
  for (var k = 0u; k < sizes.depth; k += ${directDepthStep}u) {
    ${down.map((r) => `let a${r} = transpose(mat4x4f(patchA(row + ${4 * r}u, k)));`).join("\n    ")}
    ${across.map((c) => `let b${c} = mat4x4f(patchB(column + ${4 * c}u, k));`).join("\n    ")}
    ${blocks.map(({ r, c, sum }) => `${sum} += b${c} * a${r};`).join("\n    ")}
  }
  ${
    blocks.flatMap(({ r, c, sum }) =>
      range(4).map((i) => `finish(row + ${4 * r + i}u, column + ${4 * c}u, 0u, ${sum}[${i}]);`)
    ).join("\n  ")
  }
}`;
  return productShader(name, traits, "result", code);
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
