/**
 * Kernels that make each result element from the operand elements at the same place: one loop for all of them.
 *
 * They do not care how a value lies in memory, so every f32 layout works; tails shorter than a vector are handled.
 * @module
 */
import type { Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import type { ValueType } from "../../graph/graph.ts";
import { elementCount, sameType } from "../../graph/graph.ts";
import { type NumberArray, type Operand, shapeError, splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, defineKernel, type Kernel } from "../kernel.ts";

/** Arguments of an elementwise kernel; one with a single operand is called with `b` = `a`. */
export const elementwiseArguments = {
  a: "pointer",
  b: "pointer",
  result: "pointer",
  count: "integer",
} as const;

/** Elements a worker's share is a multiple of: whole cache lines. */
const grain = 64;

/** What differs between elementwise kernels. */
export interface Elementwise {
  /** Operation and types: the kernel's key. */
  readonly key: string;
  /** Operands the result is made from. */
  readonly operands: 1 | 2;
  /** Vectors in an iteration. More than one pays only when the body is short. */
  readonly unroll: number;
  /** Emits d = f(a, b). `d` is `a`'s register; `b` is undefined for one operand. Frees what it takes. */
  readonly emit: (vm: VectorMachine, d: Vector, a: Vector, b: Vector | undefined) => void;
}

/**
 * result[i] = f(a[i], b[i]) for i < count.
 *
 * Requires: `result` overlaps an operand not at all or entirely. Touches nothing beyond `count` elements.
 */
export function elementwiseKernel(
  { key, operands, unroll, emit }: Elementwise,
): Kernel<typeof elementwiseArguments> {
  return defineKernel({
    key,
    arguments: elementwiseArguments,
    emit(vm, args) {
      const a = args.pointer("a");
      const b = operands === 2 ? args.pointer("b") : undefined;
      const result = args.pointer("result");
      const count = args.integer("count");
      const pointers = [a, result, ...(b ? [b] : [])];
      const vectorBytes = vm.lanes * 4;
      const x = vm.vector();
      const y = b && vm.vector();

      const loop = (vectors: number) => {
        const elements = vm.lanes * vectors;
        const iterations = vm.integer();
        vm.shiftRightInteger(iterations, count, Math.log2(elements));
        vm.repeat(iterations, () => {
          for (let i = 0; i < vectors; i++) {
            vm.load(x, a, i * vectorBytes);
            if (b && y) vm.load(y, b, i * vectorBytes);
            emit(vm, x, x, y);
            vm.store(result, i * vectorBytes, x);
          }
          for (const pointer of pointers) vm.addInteger(pointer, pointer, vectors * vectorBytes);
        });
        vm.andInteger(count, count, elements - 1);
        vm.free(iterations);
      };
      if (unroll > 1) loop(unroll);
      loop(1);
      vm.when(count, "greater", 0, () => {
        vm.loadFirst(x, a, 0, count);
        if (b && y) vm.loadFirst(y, b, 0, count);
        emit(vm, x, x, y);
        vm.storeFirst(result, 0, x, count);
      });
      vm.free(x, ...(y ? [y] : []), ...pointers, count);
    },
  });
}

/** The shape rule: all operands f32 of one type, which is the result's. */
export function inferElementwise(
  operation: string,
  operands: number,
  inputs: readonly (ValueType | undefined)[],
): ValueType[] {
  const [first] = inputs;
  const fits = inputs.length === operands && first?.dtype === "f32" &&
    inputs.every((input) => input && sameType(input, first));
  if (!fits) throw shapeError(operation, operands === 1 ? "f32" : `${operands} equal f32 types`, inputs);
  return [first];
}

/** One step in which each worker makes a range of the elements. */
export function lowerElementwise(
  kernel: Kernel<typeof elementwiseArguments>,
  inputs: readonly (Operand | undefined)[],
  output: Operand,
  workers: number,
): Step[] {
  const a = inputs[0]!.address;
  const b = (inputs[1] ?? inputs[0]!).address;
  const calls = splitRange(elementCount(output.type), workers, grain).map(({ begin, end }) =>
    begin === end ? [] : [callKernel(kernel, {
      a: a + 4 * begin,
      b: b + 4 * begin,
      result: output.address + 4 * begin,
      count: end - begin,
    })]
  );
  return [{ name: kernel.key, calls }];
}

/** The reference loop, in the precision of the first operand. */
export function mapElements(
  f: (a: number, b: number) => number,
  a: NumberArray,
  b: NumberArray = a,
): NumberArray {
  return a.map((value, index) => f(value, b[index]));
}
