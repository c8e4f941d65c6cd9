/**
 * Rows replay the steps that they missed, in registers: a row is read and written once however many steps it missed.
 * Most rows of a word table have never had a gradient; their moments are zero, and a step only multiplies their weights
 * by the decay.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { adamScalars, emitAdam } from "./adam.ts";
import { emitConstants } from "./emit.ts";
import {
  adamw,
  blockBytes,
  emitAlongRow,
  emitHistoryLength,
  emitRowAddress,
  emitScalarsAddress,
  type TableReader,
} from "./lazy_rows.ts";
import { emitScalar } from "./scalars.ts";

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

/** Replays the steps that a row missed, and notes that it has. */
export function emitCatchUp(vm: VectorMachine, args: TableReader, row: Integer): void {
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
