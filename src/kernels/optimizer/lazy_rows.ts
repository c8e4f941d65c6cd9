/**
 * Where a table's rows, their counts of steps and the history lie: what the lazy kernels have in common.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { adamScalars } from "./adam.ts";

/** What all lazy kernels are told about the table. */
export const tableArguments = {
  /** First element of row 0, of all three. */
  weights: "pointer",
  firstMoment: "pointer",
  secondMoment: "pointer",
  /** i32 by row: how many steps of the history the row has taken. */
  lastSteps: "pointer",
  /** Scalars blocks, one per step. */
  history: "pointer",
  /** i32: steps in the history. */
  historyLength: "pointer",
  features: "integer",
} as const;

/** Reads what the arguments of all these kernels have in common. */
export interface TableReader {
  pointer(
    name: "weights" | "firstMoment" | "secondMoment" | "lastSteps" | "history" | "historyLength",
  ): Integer;
  integer(name: "features"): Integer;
}

/** What is lazy: `UpdateRule.lazy` is true of this form of Adam alone. Its constants are in the scalars. */
export const adamw = { name: "adamw", amsgrad: false } as const;

/** Bytes of a scalars block. */
export const blockBytes = 4 * adamScalars.length;

/** Where a row begins in one of the arrays, in a new register. */
export function emitRowAddress(
  vm: VectorMachine,
  args: TableReader,
  base: "weights" | "firstMoment" | "secondMoment" | "lastSteps",
  row: Integer,
): Integer {
  const address = args.pointer(base);
  const offset = vm.integer();
  vm.moveInteger(offset, row);
  if (base !== "lastSteps") {
    const features = args.integer("features");
    vm.multiplyInteger(offset, offset, features);
    vm.free(features);
  }
  vm.shiftLeftInteger(offset, offset, 2);
  vm.addInteger(address, address, offset);
  vm.free(offset);
  return address;
}

/** Steps in the history, in a new register. */
export function emitHistoryLength(vm: VectorMachine, args: TableReader): Integer {
  const [length, address] = [vm.integer(), args.pointer("historyLength")];
  vm.loadI32(length, address, 0);
  vm.free(address);
  return length;
}

/** The number of a step of the history, from 0, becomes the address of its scalars block. */
export function emitScalarsAddress(vm: VectorMachine, args: TableReader, step: Integer): void {
  const history = args.pointer("history");
  vm.multiplyInteger(step, step, blockBytes);
  vm.addInteger(step, step, history);
  vm.free(history);
}

/** Runs `body` along a row, a number of vectors at a time as long as there are so many, then singly, then the rest. */
export function emitAlongRow(
  vm: VectorMachine,
  args: TableReader,
  vectors: number,
  body: (vectors: number, count?: Integer) => void,
): void {
  const [left, blocks] = [args.integer("features"), vm.integer()];
  for (const size of new Set([vectors, 1])) {
    vm.shiftRightInteger(blocks, left, Math.log2(size * vm.lanes));
    vm.repeat(blocks, () => body(size));
    vm.andInteger(left, left, size * vm.lanes - 1);
  }
  vm.free(blocks);
  vm.when(left, "greater", 0, () => body(1, left));
  vm.free(left);
}
