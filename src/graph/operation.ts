/**
 * What an operation owes the rest: shapes, a plain reference, a gradient, and its lowering to kernel calls.
 *
 * Each lives in `src/kernels/<operation>/` and is checked by `src/kernels/conformance.ts`.
 * @module
 */
import type { KernelCall } from "../kernels/kernel.ts";
import type { Graph, Node, Value, ValueType } from "./graph.ts";
import { describeType } from "./graph.ts";

/** Arrays the references compute on. Tiled values are given plain: row-major [features, columns]. */
export type NumberArray = Float64Array | Float32Array | Int32Array | Uint8Array;

/** What kernels are emitted for. */
export interface Target {
  /** f32 lanes of the machine's vectors. */
  readonly lanes: number;
  /** Vector registers a kernel may hold. */
  readonly vectorRegisters: number;
  /** Columns in a tile of a tiled matrix: a multiple of `lanes`, the same for a whole plan. */
  readonly tile: number;
  /** Workers that share a step. */
  readonly workers: number;
}

/** A value with its place in the arena, in bytes from the arena's start. */
export interface Operand {
  readonly type: ValueType;
  readonly address: number;
}

/** One node, placed and ready to be turned into calls. */
export interface Placement<A> {
  readonly attributes: A;
  readonly inputs: readonly (Operand | undefined)[];
  readonly outputs: readonly Operand[];
  readonly target: Target;
  /** Start of the private scratch memory of a worker, `scratchBytes` long and 64-byte aligned. */
  scratch(worker: number): number;
}

/** Work between two barriers: for each worker the calls it makes, in order. Workers must not depend on each other. */
export interface Step {
  readonly name: string;
  readonly calls: readonly (readonly KernelCall[])[];
}

/** What a gradient rule may see: the node, the graph to add to, and the gradients that reached its outputs. */
export interface GradientRequest<A> {
  readonly graph: Graph;
  readonly node: Node<A>;
  /** One per output; undefined where nothing downstream depends on it. */
  readonly outputGradients: readonly (Value | undefined)[];
}

/** One kind of node. Stateless; `A` is the type of its attributes. */
// Attributes are consumed and produced by the same operation only, so variance does not matter to callers.
export interface Operation<A = unknown> {
  /** Lower camel case, unique: also the folder's name in snake case. */
  readonly name: string;
  /** Checks the operand types and gives the result types. Throws through `shapeError`. */
  infer(inputs: readonly (ValueType | undefined)[], attributes: A): ValueType[];
  /** The definition, as plain loops in float64 or float32. Pads tiled results with what the kernel would. */
  reference(
    inputs: readonly (NumberArray | undefined)[],
    node: {
      readonly attributes: A;
      readonly inputTypes: readonly (ValueType | undefined)[];
      readonly outputTypes: readonly ValueType[];
    },
  ): NumberArray[];
  /** Adds the gradient nodes; gives one gradient (or undefined) per input. Absent where there is none. */
  gradient?(request: GradientRequest<A>): (Value | undefined)[];
  /** Pairs [input, output] that may share a buffer when the input is not needed afterwards. */
  readonly inPlace?: readonly (readonly [input: number, output: number])[];
  /** Private scratch memory each worker needs. */
  scratchBytes?(node: Node<A>, target: Target): number;
  /** Kernel calls, one list per worker per step; a barrier separates the steps. Results must not depend on
   *  `target.workers`: a worker owns whole output elements and sums them in an order fixed by the shapes. */
  lower(placement: Placement<A>): Step[];
}

/** A shape error that names the operation and the operands. */
export function shapeError(
  operation: string,
  wanted: string,
  inputs: readonly (ValueType | undefined)[],
): TypeError {
  const found = inputs.map((type) => type ? describeType(type) : "nothing").join(", ");
  return new TypeError(`Cannot apply ${operation}: wanted ${wanted}, found ${found}`);
}

/** Splits [0, count) into `parts` ranges of nearly equal length whose borders are multiples of `grain`. */
export function splitRange(count: number, parts: number, grain = 1): { begin: number; end: number }[] {
  const units = Math.ceil(count / grain);
  return Array.from({ length: parts }, (_, part) => ({
    begin: Math.min(count, Math.floor((units * part) / parts) * grain),
    end: Math.min(count, Math.floor((units * (part + 1)) / parts) * grain),
  }));
}
