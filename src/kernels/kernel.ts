/**
 * What a kernel is: a name, a list of arguments, and a function that emits its code.
 *
 * A kernel takes one pointer to a block of 32-bit arguments. Kernels that differ in a constant baked into the
 * code (tile width, epilogue, …) differ in their `key`; machines emit each key once.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../assemblers/vector_machine.ts";

/** How an argument word is read: a byte offset into the arena, a signed integer, or the bits of an f32. */
export type ArgumentKind = "pointer" | "integer" | "float";

/** Argument names and kinds, in the order of the words. */
export type ArgumentSpec = Readonly<Record<string, ArgumentKind>>;

/** Names of the arguments of one kind. */
export type ArgumentOf<S extends ArgumentSpec, K extends ArgumentKind> = {
  [N in keyof S]: S[N] extends K ? N : never;
}[keyof S];

/** Reads the arguments of the kernel being emitted. Each call takes a fresh register, which the caller frees. */
export interface ArgumentReader<S extends ArgumentSpec> {
  /** An absolute address. */
  pointer(name: ArgumentOf<S, "pointer">): Integer;
  /** A signed integer. */
  integer(name: ArgumentOf<S, "integer">): Integer;
  /** An f32 in every lane. */
  float(name: ArgumentOf<S, "float">): Vector;
}

/** A kernel: pure description, no code until a machine runs `emit`. */
export interface Kernel<S extends ArgumentSpec = ArgumentSpec> {
  /** Operation, types, block and constants: unique, readable in a profiler, a valid identifier. */
  readonly key: string;
  /** The argument words, in order. */
  readonly arguments: S;
  /** Emits the body. Must free every register it takes. */
  emit(machine: VectorMachine, args: ArgumentReader<S>): void;
}

/** Declares a kernel with its argument names checked by the type checker. */
export function defineKernel<const S extends ArgumentSpec>(kernel: Kernel<S>): Kernel<S> {
  return kernel;
}

/** The values of one call, by argument name. Pointers are byte offsets into the arena. */
export type ArgumentValues<S extends ArgumentSpec> = { readonly [N in keyof S]: number };

/** One call of a kernel, as a plan stores it: the 32-bit argument words in order. */
export interface KernelCall {
  readonly kernel: Kernel;
  readonly words: readonly number[];
}

const floatBits = new DataView(new ArrayBuffer(4));

/** Makes a call, turning f32 arguments into their bits. */
export function callKernel<S extends ArgumentSpec>(
  kernel: Kernel<S>,
  values: ArgumentValues<S>,
): KernelCall {
  const words = Object.keys(kernel.arguments).map((name) => {
    const value = values[name as keyof S];
    if (kernel.arguments[name] === "float") {
      floatBits.setFloat32(0, value, true);
      return floatBits.getInt32(0, true);
    }
    if (!Number.isInteger(value) || value < -(2 ** 31) || value >= 2 ** 32) {
      throw new RangeError(
        `Cannot call ${kernel.key}: argument ${name} is ${value}, wanted a 32-bit integer`,
      );
    }
    return value | 0;
  });
  return { kernel: kernel as unknown as Kernel, words };
}
