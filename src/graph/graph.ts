/**
 * The graph: typed values joined by shape-checked operations. Plain data, no arithmetic.
 *
 * A model is a function that adds nodes here (`models/bert.ts`); autodiff adds more (`autodiff.ts`); the planner
 * turns the nodes into kernel calls (`src/plan/planner.ts`); the interpreter runs the references on them
 * (`interpreter.ts`) to say what the right answer is.
 * @module
 */
import type { Operation } from "./operation.ts";

/**
 * How a value lies in memory.
 *
 * - `tiled`: shape [features, columns], stored `[column tile][feature][column in tile]`: columns (tokens or
 *   sequences) run in the vector lanes. The column count is a multiple of the plan's tile; columns beyond the
 *   batch are padding, always finite, and zero in every gradient.
 * - `rows`: any shape, row-major. Parameters, their gradients, index lists, statistics and scalars.
 */
export type Layout = "tiled" | "rows";

/** Element type. `u8` is an opaque byte range (packed weights). */
export type DType = "f32" | "i32" | "u8";

/** Element type, layout and shape of a value. */
export interface ValueType {
  readonly dtype: DType;
  readonly layout: Layout;
  readonly shape: readonly number[];
}

/** Where a value comes from: a named parameter, a named input of the step, or a node. */
export type Role = "parameter" | "input" | "result";

/** An edge of the graph. */
export interface Value {
  readonly id: number;
  readonly role: Role;
  /** The checkpoint name of a parameter, the name of an input, `operation.output` of a result. */
  readonly name: string;
  readonly type: ValueType;
}

/** One application of an operation. `undefined` stands for an operand that was left out. */
export interface Node<A = unknown> {
  readonly id: number;
  readonly operation: Operation<A>;
  readonly attributes: A;
  readonly inputs: readonly (Value | undefined)[];
  readonly outputs: readonly Value[];
  /** A value that is not read but must be finished before the node starts: a plan runs nodes as soon as it can. */
  readonly after?: Value;
}

/** The type of a tiled f32 matrix. */
export function tiled(features: number, columns: number): ValueType {
  return { dtype: "f32", layout: "tiled", shape: [features, columns] };
}

/** The type of a row-major f32 array. */
export function rows(...shape: number[]): ValueType {
  return { dtype: "f32", layout: "rows", shape };
}

/** The type of a list of 32-bit integers. */
export function indices(length: number): ValueType {
  return { dtype: "i32", layout: "rows", shape: [length] };
}

/** Number of elements of a type. */
export function elementCount(type: ValueType): number {
  return type.shape.reduce((product, size) => product * size, 1);
}

/** Size of a type in bytes. */
export function byteLength(type: ValueType): number {
  return elementCount(type) * (type.dtype === "u8" ? 1 : 4);
}

/** A type in the words of error messages: `f32 tiled [384, 64]`. */
export function describeType(type: ValueType): string {
  return `${type.dtype} ${type.layout} [${type.shape.join(", ")}]`;
}

/** Whether two types are the same in every respect. */
export function sameType(a: ValueType, b: ValueType): boolean {
  return a.dtype === b.dtype && a.layout === b.layout && a.shape.length === b.shape.length &&
    a.shape.every((size, axis) => size === b.shape[axis]);
}

/** A graph under construction. Nodes are in execution order: operands come before their uses. */
export class Graph {
  readonly nodes: Node[] = [];
  readonly parameters = new Map<string, Value>();
  readonly inputs = new Map<string, Value>();
  /** Results the caller wants to read after a run, by name. */
  readonly outputs = new Map<string, Value>();
  readonly #producer = new Map<number, Node>();
  #nextId = 0;

  /** Declares (or finds again) the parameter of that checkpoint name. */
  parameter(name: string, type: ValueType): Value {
    return this.#declare(this.parameters, "parameter", name, type);
  }

  /** Declares (or finds again) a value that is written before each run. */
  input(name: string, type: ValueType): Value {
    return this.#declare(this.inputs, "input", name, type);
  }

  /** Names a result that must still be readable after the run. */
  output(name: string, value: Value): void {
    this.outputs.set(name, value);
  }

  /** Applies an operation; its shape check throws an error that names the operation and both shapes. */
  apply<A>(
    operation: Operation<A>,
    attributes: A,
    inputs: readonly (Value | undefined)[],
    after?: Value,
  ): Value[] {
    const types = operation.infer(inputs.map((value) => value?.type), attributes);
    const outputs = types.map((type, index): Value => ({
      id: this.#nextId++,
      role: "result",
      name: `${operation.name}.${index}`,
      type,
    }));
    const node: Node<A> = { id: this.nodes.length, operation, attributes, inputs, outputs, after };
    this.nodes.push(node as Node);
    for (const output of outputs) this.#producer.set(output.id, node as Node);
    return outputs;
  }

  /** The node a result comes from; undefined for parameters and inputs. */
  producer(value: Value): Node | undefined {
    return this.#producer.get(value.id);
  }

  #declare(table: Map<string, Value>, role: Role, name: string, type: ValueType): Value {
    const known = table.get(name);
    if (known) {
      if (sameType(known.type, type)) return known;
      throw new TypeError(
        `Cannot declare ${role} ${name} as ${describeType(type)}: it is ${describeType(known.type)} already`,
      );
    }
    const value: Value = { id: this.#nextId++, role, name, type };
    table.set(name, value);
    return value;
  }
}
