/**
 * AdamW on rows of a table: bring rows up to date by replaying steps without a gradient, and take a step on some rows.
 *
 * Replayed steps run in registers: a row is read and written once however many steps it missed. Most rows of a word
 * table have never had a gradient; their moments are zero, and a step only multiplies their weights by the decay.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { adamScalars, emitAdam } from "./adam.ts";
import { type Cursors, emitConstants, emitVector, emitWhenFinite } from "./emit.ts";
import type { Constants, UpdateRule } from "./rule.ts";
import { emitScalar } from "./scalars.ts";

/** What all kernels are told about the table. */
const tableArguments = {
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

/** Reads what the arguments of all these kernels have in common. */
interface TableReader {
  pointer(
    name: "weights" | "firstMoment" | "secondMoment" | "lastSteps" | "history" | "historyLength",
  ): Integer;
  integer(name: "features"): Integer;
}

/** What is lazy: `UpdateRule.lazy` is true of this form of Adam alone. Its constants are in the scalars. */
const adamw = { name: "adamw", amsgrad: false } as const;

/** Its step of one vector. */
const adamwStep: Pick<UpdateRule, "emit"> = {
  emit: (vm, element, gradient, scalars, constants) =>
    emitAdam(vm, adamw, element, gradient, scalars, constants),
};

/** Bytes of a scalars block. */
const blockBytes = 4 * adamScalars.length;

/** Vectors that replay steps together: two chains of dependent instructions fill the divider. */
const liveVectors = 2;

/** Vectors whose weights and second moments decay together. */
const quietVectors = 4;

/** Vectors whose weights decay together: as many as multiplications are under way at once. */
const idleVectors = 8;

/**
 * Steps replayed before the row's moments are looked at again: a power of two. Without gradients a first moment is
 * zero after some 700 steps (β₁ = 0.9), and from then on a step needs neither root nor quotient.
 */
const partSteps = 256;

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

/** Where a row begins in one of the arrays, in a new register. */
function emitRowAddress(
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
function emitHistoryLength(vm: VectorMachine, args: TableReader): Integer {
  const [length, address] = [vm.integer(), args.pointer("historyLength")];
  vm.loadI32(length, address, 0);
  vm.free(address);
  return length;
}

/** The number of a step of the history, from 0, becomes the address of its scalars block. */
function emitScalarsAddress(vm: VectorMachine, args: TableReader, step: Integer): void {
  const history = args.pointer("history");
  vm.multiplyInteger(step, step, blockBytes);
  vm.addInteger(step, step, history);
  vm.free(history);
}

/** Runs `body` along a row, a number of vectors at a time as long as there are so many, then singly, then the rest. */
function emitAlongRow(
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

/** Replays the steps that a row missed, and notes that it has. */
function emitCatchUp(vm: VectorMachine, args: TableReader, row: Integer): void {
  const last = emitRowAddress(vm, args, "lastSteps", row);
  const [parts, taken] = [emitHistoryLength(vm, args), vm.integer()];
  vm.loadI32(taken, last, 0);
  vm.subtractInteger(parts, parts, taken);
  vm.addInteger(parts, parts, partSteps - 1);
  vm.shiftRightInteger(parts, parts, Math.log2(partSteps));
  vm.free(last, taken);
  vm.repeat(parts, () => emitPart(vm, args, row));
  vm.free(parts);
}

/** Replays the next `partSteps` steps that a row missed, or as many as there are. */
function emitPart(vm: VectorMachine, args: TableReader, row: Integer): void {
  const last = emitRowAddress(vm, args, "lastSteps", row);
  const steps: Steps = { first: vm.integer(), count: emitHistoryLength(vm, args) };
  vm.loadI32(steps.first, last, 0);
  vm.subtractInteger(steps.count, steps.count, steps.first);
  vm.when(steps.count, "greater", partSteps, () => vm.setInteger(steps.count, partSteps));

  // What of the row's moments is not zero: 0 nothing, 1 second moments, 2 first moments.
  const [state, bits] = [vm.integer(), vm.integer()];
  vm.setInteger(state, 0);
  for (const [moment, value] of [["secondMoment", 1], ["firstMoment", 2]] as const) {
    emitMomentBits(vm, args, row, moment, last, bits);
    vm.when(bits, "notEqual", 0, () => vm.setInteger(state, value));
  }
  vm.addInteger(bits, steps.first, steps.count);
  vm.storeI32(last, 0, bits);
  vm.free(bits, last);
  emitScalarsAddress(vm, args, steps.first);
  vm.when(state, "equal", 0, () => emitDecay(vm, args, row, steps), () => {
    vm.when(state, "equal", 1, () => emitQuiet(vm, args, row, steps), () => {
      vm.free(state); // Nothing reads it any more, and the replay needs every register.
      emitReplay(vm, args, row, steps);
    });
  });
  vm.free(...Object.values(steps));
}

/**
 * d = 0 when all of the row's moments of one kind are 0, and otherwise something else. Integers, because a comparison
 * of floats may take NaN for 0. There is no way from vectors to integers but through memory: the word at `last`, which
 * is the row's own, is overwritten.
 */
function emitMomentBits(
  vm: VectorMachine,
  args: TableReader,
  row: Integer,
  moment: "firstMoment" | "secondMoment",
  last: Integer,
  d: Integer,
): void {
  const [bits, value] = [vm.vector(), vm.vector()];
  vm.constantI32(bits, 0);
  const pointer = emitRowAddress(vm, args, moment, row);
  emitAlongRow(vm, args, 1, (_, count) => {
    if (count) vm.loadFirst(value, pointer, 0, count);
    else vm.load(value, pointer, 0);
    vm.or(bits, bits, value);
    vm.addInteger(pointer, pointer, 4 * vm.lanes);
  });
  // The signs move down, so that no lane is negative and the largest tells.
  vm.shiftRightI32(bits, bits, 1);
  vm.i32ToF32(bits, bits);
  vm.maximumLanes(bits, bits);
  vm.storeLane0(last, 0, bits);
  vm.loadI32(d, last, 0);
  vm.free(bits, value, pointer);
}

/** Steps to replay: the address of the first one's scalars, and how many. */
interface Steps {
  readonly first: Integer;
  readonly count: Integer;
}

/** Runs `body` for each step, with the address of its scalars. */
function emitForEachStep(vm: VectorMachine, { first, count }: Steps, body: (scalars: Integer) => void): void {
  const left = vm.integer();
  vm.moveInteger(left, count);
  vm.repeat(left, () => {
    body(first);
    vm.addInteger(first, first, blockBytes);
  });
  vm.multiplyInteger(left, count, blockBytes);
  vm.subtractInteger(first, first, left);
  vm.free(left);
}

/** Brings some of a row's arrays into registers, a number of vectors at a time, and stores what `replay` made of them. */
function emitOnRow(
  vm: VectorMachine,
  args: TableReader,
  row: Integer,
  arrays: readonly ("weights" | "firstMoment" | "secondMoment")[],
  vectors: number,
  replay: (values: Vector[][]) => void,
): void {
  const pointers = arrays.map((array) => emitRowAddress(vm, args, array, row));
  emitAlongRow(vm, args, vectors, (vectors, count) => {
    const values = Array.from({ length: vectors }, (_, i) =>
      pointers.map((pointer) => {
        const value = vm.vector();
        if (count) vm.loadFirst(value, pointer, 0, count);
        else vm.load(value, pointer, 4 * vm.lanes * i);
        return value;
      }));
    replay(values);
    values.forEach((parts, i) =>
      parts.forEach((value, array) => {
        if (count) vm.storeFirst(pointers[array], 0, value, count);
        else vm.store(pointers[array], 4 * vm.lanes * i, value);
      })
    );
    vm.free(...values.flat());
    for (const pointer of pointers) vm.addInteger(pointer, pointer, 4 * vm.lanes * vectors);
  });
  vm.free(...pointers);
}

/** All of a step but the gradient, for each missed step. */
function emitReplay(vm: VectorMachine, args: TableReader, row: Integer, steps: Steps): void {
  const constants = emitConstants(vm);
  emitOnRow(vm, args, row, ["weights", "firstMoment", "secondMoment"], liveVectors, (values) => {
    emitForEachStep(vm, steps, (scalars) => {
      for (const [w, ...states] of values) emitAdam(vm, adamw, { w, states }, undefined, scalars, constants);
    });
  });
  vm.free(...Object.values(constants));
}

/** What is left of a step when the first moments are zero: they stay zero, and w − stepSize · 0 is w. */
function emitQuiet(vm: VectorMachine, args: TableReader, row: Integer, steps: Steps): void {
  const { zero, smallest, signless } = emitConstants(vm);
  const scalar = vm.vector();
  emitOnRow(vm, args, row, ["weights", "secondMoment"], quietVectors, (values) => {
    emitForEachStep(vm, steps, (scalars) => {
      emitScalar(vm, scalar, scalars, adamScalars, "decay");
      for (const [w] of values) vm.multiply(w, w, scalar);
      emitScalar(vm, scalar, scalars, adamScalars, "beta2");
      for (const [, v] of values) {
        vm.multiply(v, v, scalar);
        vm.selectLess(v, v, smallest, zero, v);
      }
    });
  });
  vm.free(scalar, zero, smallest, signless);
}

/** What is left of a step when both moments are zero. */
function emitDecay(vm: VectorMachine, args: TableReader, row: Integer, steps: Steps): void {
  const decay = vm.vector();
  emitOnRow(vm, args, row, ["weights"], idleVectors, (values) => {
    emitForEachStep(vm, steps, (scalars) => {
      emitScalar(vm, decay, scalars, adamScalars, "decay");
      for (const [w] of values) vm.multiply(w, w, decay);
    });
  });
  vm.free(decay);
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
