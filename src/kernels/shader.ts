/**
 * What a kernel of the GPU is: WGSL with its bindings, and one call of it. Pure; nothing here touches a device.
 *
 * An operation has its shaders in `src/kernels/<operation>/wgsl.ts`, beside the kernels of the CPU, and shares its shapes,
 * reference and tests with them. `src/webgpu` compiles and runs what they describe.
 *
 * On the device a `tiled` value [features, columns] lies `[column][feature]`: the features of a token are neighbours.
 * `rows` values lie as everywhere. There are no `u8` values: pruned matrices are dense with zeros.
 * @module
 */
import { UnsupportedError } from "../core/errors.ts";
import type { ValueType } from "../graph/graph.ts";
import type { Operation } from "../graph/operation.ts";

/** What shaders are written for: what the adapter offers, as far as code depends on it. Plain data. */
export interface ShaderTarget {
  /** Whether a CPU plays the GPU: then workgroup memory and barriers cost more than they save. */
  readonly isSoftware: boolean;
  readonly maxInvocations: number;
  readonly maxWorkgroupBytes: number;
  readonly maxWorkgroupsPerDimension: number;
  /** Bytes that one binding may span; larger parameters are split between rows (`ShaderOperand.parts`). */
  readonly maxBindingBytes: number;
  /** Lanes of a subgroup where subgroup built-ins work and all have that many; else undefined. */
  readonly subgroupSize?: number;
  /**
   * Matrices of float16 that a subgroup multiplies and sums in float32, at once: tensor cores. Absent or empty where
   * `enable chromium_experimental_subgroup_matrix;` does not work, or `subgroupSize` is not known.
   */
  readonly subgroupMatrices?: readonly SubgroupMatrixSize[];
  /** Whether `enable f16;` works. */
  readonly f16: boolean;
  /**
   * `f16`: tiled results lie in float16 (`ShaderOperand.element`), and products are of operands in float16. Wants `f16`; absent:
   * all is float32.
   */
  readonly activations?: "f16";
  /** Columns of tiled values are a multiple of this. */
  readonly columnGrain: number;
}

/** `rows` × `depth` times `depth` × `columns`. */
export interface SubgroupMatrixSize {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
}

/** How a shader uses a binding: `read` and `write` are storage (`write` may read too), `uniform` the call's constants. */
export type BindingUse = "read" | "write" | "uniform";

/** A compute shader with entry point `main`. Its bindings are those of group 0, numbered from 0 in order. */
export interface Shader {
  /** Operation, types, constants: all that the code depends on. Equal keys are equal code. */
  readonly key: string;
  readonly code: string;
  readonly bindings: readonly BindingUse[];
}

/** A part of a buffer. Offsets are multiples of 256 bytes. */
export interface BufferRange {
  /** Number of the buffer, as whoever places values counts them. */
  readonly buffer: number;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** One dispatch. No buffer may be bound for reading and for writing at once, and written ranges must not overlap. */
export interface ShaderCall {
  readonly shader: Shader;
  /** For the `read` and `write` bindings, in order. */
  readonly ranges: readonly BufferRange[];
  /** The words of the `uniform` binding, if there is one; see `uniformWords`. */
  readonly uniforms?: readonly number[];
  readonly workgroups: readonly [x: number, y: number, z: number];
}

/** A value in device memory. */
export interface ShaderOperand {
  readonly type: ValueType;
  /** What its elements lie in, if not in what the type says. Shaders need not know: see `wgsl_halves.ts`. */
  readonly element?: "f16";
  /** One range, unless a parameter is larger than a binding: then `rowsPerPart` rows in each but the last. */
  readonly parts: readonly BufferRange[];
  /** Rows (of the first dimension) in each part. */
  readonly rowsPerPart: number;
}

/** One node, placed. */
export interface ShaderPlacement<A> {
  readonly attributes: A;
  readonly inputs: readonly (ShaderOperand | undefined)[];
  readonly outputs: readonly ShaderOperand[];
  /** Private buffers, as long as `scratchBytes` asked for. */
  readonly scratch: readonly BufferRange[];
  readonly target: ShaderTarget;
}

/** How an operation runs on the GPU. */
// As with `Operation`, attributes are consumed by the same operation only, so variance does not matter to callers.
export interface ShaderLowering<A = unknown> {
  readonly operation: Operation<A>;
  /** Sizes of private buffers that live while the node runs. */
  scratchBytes?(node: {
    readonly attributes: A;
    readonly inputTypes: readonly (ValueType | undefined)[];
    readonly outputTypes: readonly ValueType[];
  }, target: ShaderTarget): number[];
  /** The calls, in order: each sees what those before it wrote. Outputs share no memory with inputs and hold anything before. */
  lower(placement: ShaderPlacement<A>): ShaderCall[];
  /**
   * How much further than a CPU kernel results may be from the reference, and why: built-in functions and divisions of a GPU
   * are exact to a few units in the last place only (WGSL §15.7.4). Default 1.
   */
  readonly toleranceFactor?: number;
  /** Why NaN and infinities need not come out as in the reference, where they need not. */
  readonly specials?: string;
}

/** Declares a lowering. */
export function defineLowering<A>(lowering: ShaderLowering<A>): ShaderLowering<A> {
  return lowering;
}

/** The range of an operand that must lie in one piece. @throws UnsupportedError for one that is larger than a binding. */
export function wholeRange({ type, parts }: ShaderOperand, what: string): BufferRange {
  if (parts.length === 1) return parts[0];
  throw new UnsupportedError(
    `Cannot run on this GPU: ${what} [${type.shape.join(", ")}] is larger than what one binding may span`,
  );
}

/** Makes the words of a uniform block of scalars: integers as they are, `f32` as bits. */
export function uniformWords(...values: readonly (number | { readonly f32: number })[]): number[] {
  const words = new Uint32Array(values.length);
  const floats = new Float32Array(words.buffer);
  values.forEach((value, index) => {
    if (typeof value === "number") words[index] = value;
    else floats[index] = value.f32;
  });
  return [...words];
}

/**
 * Workgroups for `count` of them, as a grid whose x is within the limit. A shader gets its number by
 * `workgroup.y * groups.x + workgroup.x` and must leave when that is `count` or more.
 */
export function linearGrid(
  count: number,
  { maxWorkgroupsPerDimension }: ShaderTarget,
): [number, number, number] {
  if (count <= maxWorkgroupsPerDimension) return [Math.max(1, count), 1, 1];
  const y = Math.ceil(count / maxWorkgroupsPerDimension);
  return [Math.ceil(count / y), y, 1];
}
