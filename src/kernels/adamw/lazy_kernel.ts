/**
 * AdamW on rows of a table: bring rows up to date by replaying steps without a gradient, and take a step on some rows.
 *
 * Replayed steps run in registers: a row is read and written once however many steps it missed. Most rows of a word
 * table have never had a gradient; their moments are zero, and a step only multiplies their weights by the decay.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  type Constants,
  type Cursors,
  emitConstants,
  emitUpdate,
  emitVector,
  emitWhenFinite,
  scalarWords,
} from "./emit.ts";

/** Arguments of `catchUpKernel` and `flushKernel`. */
export const catchUpArguments = {
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
  /** Row numbers, −1 for none; unused by `flushKernel`. */
  list: "pointer",
  /** Bytes from one entry of the list to the next of this share. */
  listStride: "integer",
  features: "integer",
  /** Entries of this share; in `flushKernel` rows, from row 0 of the pointers on. */
  count: "integer",
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
    name: "weights" | "firstMoment" | "secondMoment" | "lastSteps" | "history" | "historyLength" | "list",
  ): Integer;
  integer(name: "listStride" | "features" | "count"): Integer;
}

/** Bytes of a scalars block. */
const blockBytes = 4 * scalarWords.length;

/** Vectors that replay steps together: two chains of dependent instructions fill the divider. */
const liveVectors = 2;

/** Vectors that decay together: as many as multiplications are under way at once. */
const idleVectors = 8;

/** Brings the rows of a list up to date: afterwards they have taken every step of the history. */
export const catchUpKernel: Kernel<typeof catchUpArguments> = defineKernel({
  key: "adamw_catch_up_f32",
  arguments: catchUpArguments,
  emit(vm, args) {
    emitListed(vm, args, (row) => emitCatchUp(vm, args, row, "listed"));
  },
});

/** Brings consecutive rows up to date, and calls them up to date with an empty history. */
export const flushKernel: Kernel<typeof catchUpArguments> = defineKernel({
  key: "adamw_flush_f32",
  arguments: catchUpArguments,
  emit(vm, args) {
    const [rows, row] = [args.integer("count"), vm.integer()];
    vm.forRange(row, 0, rows, 1, () => {
      const current = vm.integer();
      vm.moveInteger(current, row);
      emitCatchUp(vm, args, current, "flush");
    });
    vm.free(rows, row);
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

/** Runs `body` for the rows of a share of the list; it frees the register of the row. `next` runs for −1 too. */
function emitListed(
  vm: VectorMachine,
  args: TableReader,
  body: (row: Integer) => void,
  next: () => void = () => {},
): void {
  const [entry, left] = [args.pointer("list"), args.integer("count")];
  vm.repeat(left, () => {
    const row = vm.integer();
    vm.loadI32(row, entry, 0);
    vm.when(row, "greaterOrEqual", 0, () => body(row));
    next();
    const stride = args.integer("listStride");
    vm.addInteger(entry, entry, stride);
    vm.free(stride);
  });
  vm.free(entry, left);
}

/** The address of a word in a new register: base + row · words · 4. */
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
  for (const size of [vectors, 1]) {
    vm.shiftRightInteger(blocks, left, Math.log2(size * vm.lanes));
    vm.repeat(blocks, () => body(size));
    vm.andInteger(left, left, size * vm.lanes - 1);
  }
  vm.free(blocks);
  vm.when(left, "greater", 0, () => body(1, left));
  vm.free(left);
}

/** The row's address in weights and both moments, in new registers. */
interface RowCursors {
  readonly weights: Integer;
  readonly firstMoment: Integer;
  readonly secondMoment: Integer;
}

function emitRowCursors(vm: VectorMachine, args: TableReader, row: Integer): RowCursors {
  return {
    weights: emitRowAddress(vm, args, "weights", row),
    firstMoment: emitRowAddress(vm, args, "firstMoment", row),
    secondMoment: emitRowAddress(vm, args, "secondMoment", row),
  };
}

/** Loads and stores of whole vectors, or of the first `count` elements of one. */
function memoryAccess(vm: VectorMachine, count?: Integer) {
  return {
    load(address: Integer, vector: number): Vector {
      const value = vm.vector();
      if (count) vm.loadFirst(value, address, 0, count);
      else vm.load(value, address, 4 * vm.lanes * vector);
      return value;
    },
    store(address: Integer, vector: number, value: Vector): void {
      if (count) vm.storeFirst(address, 0, value, count);
      else vm.store(address, 4 * vm.lanes * vector, value);
    },
  };
}

/** Replays the steps that a row missed, and notes that it has. Frees `row`. */
function emitCatchUp(vm: VectorMachine, args: TableReader, row: Integer, kind: "listed" | "flush"): void {
  const last = emitRowAddress(vm, args, "lastSteps", row);
  const cursors = emitRowCursors(vm, args, row);
  vm.free(row);
  const steps: Steps = { first: vm.integer(), count: emitHistoryLength(vm, args) };
  vm.loadI32(steps.first, last, 0);
  vm.subtractInteger(steps.count, steps.count, steps.first);
  vm.when(steps.count, "greater", 0, () => {
    emitScalarsAddress(vm, args, steps.first);
    const bits = emitMomentBits(vm, args, cursors);
    // There is no way from vectors to integers but through memory; this word is the row's own and is rewritten below.
    vm.storeLane0(last, 0, bits);
    vm.free(bits);
    const isLive = vm.integer();
    vm.loadI32(isLive, last, 0);
    vm.when(isLive, "notEqual", 0, () => {
      vm.free(isLive); // Both branches need every register, and neither reads this one.
      emitReplay(vm, args, cursors, steps);
    }, () => emitDecay(vm, args, cursors.weights, steps));
  });
  vm.free(...Object.values(steps), ...Object.values(cursors));
  const now = kind === "flush" ? vm.integer() : emitHistoryLength(vm, args);
  if (kind === "flush") vm.setInteger(now, 0);
  vm.storeI32(last, 0, now);
  vm.free(now, last);
}

/**
 * Every lane = 0 when all of the row's moments are 0, and otherwise a number above 0. Integers, because a comparison of
 * floats may take NaN for 0.
 */
function emitMomentBits(vm: VectorMachine, args: TableReader, cursors: RowCursors): Vector {
  const bits = vm.vector();
  vm.constantI32(bits, 0);
  const moments = [cursors.firstMoment, cursors.secondMoment].map((pointer) => {
    const copy = vm.integer();
    vm.moveInteger(copy, pointer);
    return copy;
  });
  emitAlongRow(vm, args, 1, (_, count) => {
    const { load } = memoryAccess(vm, count);
    for (const pointer of moments) {
      const value = load(pointer, 0);
      vm.or(bits, bits, value);
      vm.addInteger(pointer, pointer, 4 * vm.lanes);
      vm.free(value);
    }
  });
  // The signs move down, so that no lane is negative and the largest tells.
  vm.shiftRightI32(bits, bits, 1);
  vm.i32ToF32(bits, bits);
  vm.maximumLanes(bits, bits);
  vm.free(...moments);
  return bits;
}

/** Steps to replay: the address of the first one's scalars, and how many. */
interface Steps {
  readonly first: Integer;
  readonly count: Integer;
}

/** Runs `body` for each step, with the address of its scalars. */
function emitForEachStep(vm: VectorMachine, { first, count }: Steps, body: (scalars: Integer) => void): void {
  const [scalars, left] = [vm.integer(), vm.integer()];
  vm.moveInteger(scalars, first);
  vm.moveInteger(left, count);
  vm.repeat(left, () => {
    body(scalars);
    vm.addInteger(scalars, scalars, blockBytes);
  });
  vm.free(scalars, left);
}

/** All of a step but the gradient, for each missed step. Moves the cursors on. */
function emitReplay(vm: VectorMachine, args: TableReader, cursors: RowCursors, steps: Steps): void {
  const { weights, firstMoment, secondMoment } = cursors;
  const constants = emitConstants(vm);
  emitAlongRow(vm, args, liveVectors, (vectors, count) => {
    const { load, store } = memoryAccess(vm, count);
    const states = Array.from({ length: vectors }, (_, i) => ({
      w: load(weights, i),
      m: load(firstMoment, i),
      v: load(secondMoment, i),
    }));
    emitForEachStep(vm, steps, (scalars) => {
      for (const state of states) emitUpdate(vm, state, undefined, scalars, constants);
    });
    states.forEach(({ w, m, v }, i) => {
      store(weights, i, w);
      store(firstMoment, i, m);
      store(secondMoment, i, v);
      vm.free(w, m, v);
    });
    for (const pointer of [weights, firstMoment, secondMoment]) {
      vm.addInteger(pointer, pointer, 4 * vm.lanes * vectors);
    }
  });
  vm.free(...Object.values(constants));
}

/** What is left of a step when both moments are zero: they stay zero, and w − stepSize · 0 is w. */
function emitDecay(vm: VectorMachine, args: TableReader, weights: Integer, steps: Steps): void {
  const decay = vm.vector();
  emitAlongRow(vm, args, idleVectors, (vectors, count) => {
    const { load, store } = memoryAccess(vm, count);
    const values = Array.from({ length: vectors }, (_, i) => load(weights, i));
    emitForEachStep(vm, steps, (scalars) => {
      vm.broadcast(decay, scalars, 4 * scalarWords.indexOf("decay"));
      for (const value of values) vm.multiply(value, value, decay);
    });
    values.forEach((value, i) => store(weights, i, value));
    vm.free(...values);
    vm.addInteger(weights, weights, 4 * vm.lanes * vectors);
  });
  vm.free(decay);
}

/** The step under way, on one row, and notes that it is taken. Frees `row`. */
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
    ...emitRowCursors(vm, args, row),
    gradients: vm.integer(),
    scalars: emitHistoryLength(vm, args),
  };
  vm.moveInteger(cursors.gradients, gradientRow);
  vm.addInteger(row, cursors.scalars, 1);
  vm.storeI32(last, 0, row);
  vm.free(row, last);
  emitScalarsAddress(vm, args, cursors.scalars);
  emitAlongRow(vm, args, 1, (_, count) => emitVector(vm, cursors, clip, constants, { count }));
  vm.free(...Object.values(cursors));
}
