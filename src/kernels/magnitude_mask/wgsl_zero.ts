/**
 * Zeroing on the GPU what masks prune.
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
import { bindWords } from "../wgsl_ranges.ts";
import { workgroupSize } from "./layout.ts";
import { mainText } from "./wgsl_text.ts";

/** What to zero. */
export interface ZeroPrunedRequest {
  readonly ranges: readonly {
    /** Bitset of 32-bit words, from any of them, in another buffer than the arrays. */
    readonly mask: BufferRange;
    /** Weights and their states, from multiples of 256 bytes. */
    readonly arrays: readonly BufferRange[];
    /** Elements of each array. */
    readonly count: number;
  }[];
  readonly target: ShaderTarget;
}

/** A call for each array that sets the elements whose bit is 0 to 0, as `zeroPruned` in src/pruning. */
export function zeroPrunedCalls({ ranges, target }: ZeroPrunedRequest): ShaderCall[] {
  return ranges.flatMap(({ mask, arrays, count }) => {
    const { range, firstWord } = bindWords(mask);
    const workgroups = linearGrid(Math.ceil(count / workgroupSize), target);
    return arrays.map((array) => ({
      shader: zeroShader,
      ranges: [array, range],
      uniforms: uniformWords(count, workgroups[0], firstWord),
      workgroups,
    }));
  });
}

const zeroShader: Shader = {
  key: "zero_pruned",
  bindings: ["write", "read", "uniform"],
  code: `
struct Sizes { count: u32, groupsX: u32, firstWord: u32 }
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@group(0) @binding(1) var<storage, read> mask: array<u32>;
@group(0) @binding(2) var<uniform> sizes: Sizes;
${mainText} {
  let i = (group.y * sizes.groupsX + group.x) * ${workgroupSize}u + lane;
  if (i >= sizes.count) { return; }
  if (((mask[sizes.firstWord + (i >> 5u)] >> (i & 31u)) & 1u) == 0u) { values[i] = 0u; }
}`,
};
