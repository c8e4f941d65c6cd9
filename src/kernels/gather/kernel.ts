/**
 * The gathering kernel: words moved one by one. Reads of the values are as random as the permutation.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { defineKernel, type Kernel } from "../kernel.ts";

const gatherArguments = {
  /** All values. */
  values: "pointer",
  /** First index of the range. */
  permutation: "pointer",
  /** First result of the range. */
  result: "pointer",
  /** Results in the range. */
  count: "integer",
} as const;

/** Arguments of the gathering kernel. */
export type GatherArguments = typeof gatherArguments;

/** Moves in flight: enough that no load waits for the one before. */
const unrolled = 4;

/**
 * result[i] = values[permutation[i]], the bits as they are.
 *
 * Requires: the result overlaps nothing; indices are not negative.
 * Cost:     12 bytes moved for each result.
 */
export const gatherKernel: Kernel<GatherArguments> = defineKernel({
  key: "gather_values_32",
  arguments: gatherArguments,
  emit(vm, args) {
    const values = args.pointer("values");
    const permutation = args.pointer("permutation");
    const result = args.pointer("result");
    const count = args.integer("count");
    const turns = vm.integer();
    vm.shiftRightInteger(turns, count, Math.log2(unrolled));
    vm.repeat(turns, () => emitMoves(vm, unrolled, { values, permutation, result }));
    vm.andInteger(count, count, unrolled - 1);
    vm.repeat(count, () => emitMoves(vm, 1, { values, permutation, result }));
    vm.free(values, permutation, result, count, turns);
  },
});

function emitMoves(
  vm: VectorMachine,
  count: number,
  at: { readonly values: Integer; readonly permutation: Integer; readonly result: Integer },
): void {
  const words = Array.from({ length: count }, () => vm.integer());
  words.forEach((word, i) => {
    vm.loadI32(word, at.permutation, 4 * i);
    vm.shiftLeftInteger(word, word, 2);
    vm.addInteger(word, word, at.values);
    vm.loadI32(word, word, 0);
  });
  words.forEach((word, i) => vm.storeI32(at.result, 4 * i, word));
  vm.addInteger(at.permutation, at.permutation, 4 * count);
  vm.addInteger(at.result, at.result, 4 * count);
  vm.free(...words);
}
