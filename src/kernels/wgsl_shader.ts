/**
 * What the text of all shaders has in common: bindings, the uniform block, the entry point, vectors of features.
 * @module
 */
import {
  type BufferRange,
  linearGrid,
  type Shader,
  type ShaderCall,
  type ShaderTarget,
  uniformWords,
} from "./shader.ts";

/** Invocations of a workgroup, unless a shader wants other: what every device can do. */
export const workgroupSize = 256;

/** What differs between shaders. */
export interface ShaderText {
  readonly key: string;
  /** Invocations of a workgroup; 256 by default. */
  readonly workgroupSize?: number;
  /** WGSL type by the name of what is read, in the order of the bindings; false for one that this variant does without. */
  readonly reads: Readonly<Record<string, string | false>>;
  /** WGSL type by the name of what is written. */
  readonly writes: Readonly<Record<string, string>>;
  /** Scalars by name: `sizes.columns` and so on in the text. */
  readonly sizes: Readonly<Record<string, "u32" | "f32">>;
  /** Module scope: functions, workgroup memory. */
  readonly declarations?: string;
  /** Body of `main`, where `group` is the workgroup's number and `lane` the invocation's in it. */
  readonly main: string;
}

/** A shader of one-dimensional workgroups. */
export function writeShader(
  { key, workgroupSize: lanes = workgroupSize, reads, writes, sizes, declarations = "", main }: ShaderText,
): Shader {
  const storage = [
    ...Object.entries(reads).filter(([, type]) => type).map(([name, type]) =>
      `<storage, read> ${name}: ${type}`
    ),
    ...Object.entries(writes).map(([name, type]) => `<storage, read_write> ${name}: ${type}`),
  ];
  const members = Object.entries({ ...sizes, groups: "u32", groupsX: "u32" });
  const readCount = storage.length - Object.keys(writes).length;
  return {
    key,
    bindings: [
      ...storage.map((_, index) => index < readCount ? "read" as const : "write" as const),
      "uniform",
    ],
    code: `
struct Sizes { ${members.map(([name, type]) => `${name}: ${type}`).join(", ")} }
${storage.map((text, binding) => `@group(0) @binding(${binding}) var${text};`).join("\n")}
@group(0) @binding(${storage.length}) var<uniform> sizes: Sizes;
${declarations}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) groupPosition: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = groupPosition.y * sizes.groupsX + groupPosition.x;
  if (group >= sizes.groups) { return; }
${main}
}`,
  };
}

/** A call of such a shader with so many workgroups: its ranges and its `sizes`, in the order of their declaration. */
export function callShader(
  shader: Shader,
  ranges: readonly (BufferRange | undefined)[],
  sizes: readonly (number | { readonly f32: number })[],
  groups: number,
  target: ShaderTarget,
): ShaderCall {
  const workgroups = linearGrid(groups, target);
  return {
    shader,
    ranges: ranges.filter((range) => range !== undefined),
    uniforms: uniformWords(...sizes, groups, workgroups[0]),
    workgroups,
  };
}

/** How the features of a column are read: four at a time where they come in fours. */
export interface FeatureVector {
  /** WGSL type. */
  readonly type: "vec4f" | "f32";
  /** Vectors in a column. */
  readonly count: number;
}

/** The widest vectors that columns of so many features are made of. */
export function featureVector(features: number): FeatureVector {
  return features % 4 === 0 ? { type: "vec4f", count: features / 4 } : { type: "f32", count: features };
}
