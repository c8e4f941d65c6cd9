/**
 * AdamW on rows of a table: bring rows up to date by replaying steps without a gradient, and take a step on some rows.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { emitAdam } from "./adam.ts";
import { type Cursors, emitConstants, emitVector, emitWhenFinite } from "./emit.ts";
import { emitCatchUp } from "./lazy_replay.ts";
import {
  adamw,
  emitAlongRow,
  emitHistoryLength,
  emitRowAddress,
  emitScalarsAddress,
  tableArguments,
} from "./lazy_rows.ts";
import type { Constants, UpdateRule } from "./rule.ts";

/** Arguments of `catchUpKernel`. */
export const catchUpArguments = {
  ...tableArguments,
  /** Row numbers, −1 for none. */
  list: "pointer",
  /** Bytes from one entry of the list to the next of this share. */
  listStride: "integer",
  /** Entries of this share. */
  count: "integer",
} as const;

/** Arguments of `flushKernel`: `count` rows begin, begin + stride, … */
export const flushArguments = {
  ...tableArguments,
  begin: "integer",
  count: "integer",
  stride: "integer",
} as const;

/** Arguments of `updateRowsKernel`. */
export const updateRowsArguments = {
  ...catchUpArguments,
  /** Gradient of the row that the first entry names. */
  gradients: "pointer",
  /** Bytes from the gradient of one entry to that of the next of this share. */
  gradientStride: "integer",
  clip: "pointer",
} as const;

/** The step of one vector. */
const adamwStep: Pick<UpdateRule, "emit"> = {
  emit: (vm, element, gradient, scalars, constants) =>
    emitAdam(vm, adamw, element, gradient, scalars, constants),
};

/** Brings the rows of a list up to date: afterwards they have taken every step of the history. */
export const catchUpKernel: Kernel<typeof catchUpArguments> = defineKernel({
  key: "adamw_catch_up_f32",
  arguments: catchUpArguments,
  emit(vm, args) {
    emitListed(vm, args, (row) => emitCatchUp(vm, args, row));
  },
});

/** Brings rows up to date, and calls them up to date with an empty history. */
export const flushKernel: Kernel<typeof flushArguments> = defineKernel({
  key: "adamw_flush_f32",
  arguments: flushArguments,
  emit(vm, args) {
    const [row, left] = [args.integer("begin"), args.integer("count")];
    vm.repeat(left, () => {
      emitCatchUp(vm, args, row);
      const last = emitRowAddress(vm, args, "lastSteps", row);
      const none = vm.integer();
      vm.setInteger(none, 0);
      vm.storeI32(last, 0, none);
      vm.free(last, none);
      const stride = args.integer("stride");
      vm.addInteger(row, row, stride);
      vm.free(stride);
    });
    vm.free(row, left);
  },
});

/**
 * Takes the step whose scalars stand after the history, on rows that are up to date. Nothing changes when the clip
 * factor is not finite.
 */
export const updateRowsKernel: Kernel<typeof updateRowsArguments> = defineKernel({
  key: "adamw_rows_f32",
  arguments: updateRowsArguments,
  emit(vm, args) {
    emitWhenFinite(vm, args.pointer("clip"), (clip) => {
      const constants = emitConstants(vm);
      const gradientRow = args.pointer("gradients");
      emitListed(vm, args, (row) => {
        emitUpdateRow(vm, args, row, gradientRow, clip, constants);
      }, () => {
        const stride = args.integer("gradientStride");
        vm.addInteger(gradientRow, gradientRow, stride);
        vm.free(stride);
      });
      vm.free(gradientRow, ...Object.values(constants));
    });
  },
});

/** Runs `body` for the rows of a share of the list, and `next` after each entry, −1 too. */
function emitListed(
  vm: VectorMachine,
  args: ArgumentReader<typeof catchUpArguments> | ArgumentReader<typeof updateRowsArguments>,
  body: (row: Integer) => void,
  next: () => void = () => {},
): void {
  const [entry, left] = [args.pointer("list"), args.integer("count")];
  vm.repeat(left, () => {
    const row = vm.integer();
    vm.loadI32(row, entry, 0);
    vm.when(row, "greaterOrEqual", 0, () => body(row));
    vm.free(row);
    next();
    const stride = args.integer("listStride");
    vm.addInteger(entry, entry, stride);
    vm.free(stride);
  });
  vm.free(entry, left);
}

/** The step under way, on one row, and notes that it is taken. */
function emitUpdateRow(
  vm: VectorMachine,
  args: ArgumentReader<typeof updateRowsArguments>,
  row: Integer,
  gradientRow: Integer,
  clip: Vector,
  constants: Constants,
): void {
  const last = emitRowAddress(vm, args, "lastSteps", row);
  const cursors: Cursors = {
    weights: emitRowAddress(vm, args, "weights", row),
    states: [
      emitRowAddress(vm, args, "firstMoment", row),
      emitRowAddress(vm, args, "secondMoment", row),
    ],
    gradients: vm.integer(),
    scalars: emitHistoryLength(vm, args),
  };
  vm.moveInteger(cursors.gradients, gradientRow);
  const taken = vm.integer();
  vm.addInteger(taken, cursors.scalars, 1);
  vm.storeI32(last, 0, taken);
  vm.free(taken, last);
  emitScalarsAddress(vm, args, cursors.scalars);
  emitAlongRow(vm, args, 1, (_, count) => emitVector(vm, adamwStep, cursors, clip, constants, { count }));
  const { weights, states, gradients, scalars } = cursors;
  vm.free(weights, ...states, gradients, scalars);
}
