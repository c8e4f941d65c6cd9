/**
 * The arithmetic of a step on one vector of parameters: what every AdamW kernel shares, so that they agree bit for bit.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { smallestMoment } from "./reference.ts";

/** Order of the f32 words of the scalars block: see `adamwScalars`. */
export const scalarWords = [
  "decay",
  "stepSize",
  "inverseRootCorrection2",
  "oneMinusBeta1",
  "beta2",
  "oneMinusBeta2",
  "epsilon",
] as const;

/** Every bit of an f32's exponent: all set in NaN and ∞, and only there. */
const exponentBits = 0x7f800000;

/** Pointers: the first four move along the parameters. */
export interface Cursors {
  readonly weights: Integer;
  readonly gradients: Integer;
  readonly firstMoment: Integer;
  readonly secondMoment: Integer;
  readonly scalars: Integer;
}

/** Constants in every lane. */
export interface Constants {
  readonly zero: Vector;
  readonly smallest: Vector;
  readonly signless: Vector;
}

/** A vector of parameters and its moments, in registers. */
export interface State {
  readonly w: Vector;
  readonly m: Vector;
  readonly v: Vector;
}

/** What differs between vectors of a pass. */
export interface VectorOptions {
  /** Lane i is kept when its bit of `word` is set, and otherwise zeroed. */
  readonly mask?: { readonly word: Vector; readonly laneBit: Vector };
  /** Elements of a last vector that is not whole. */
  readonly count?: Integer;
}

/** The constants in new registers. */
export function emitConstants(vm: VectorMachine): Constants {
  const constants = { zero: vm.vector(), smallest: vm.vector(), signless: vm.vector() };
  vm.constantF32(constants.zero, 0);
  vm.constantF32(constants.smallest, smallestMoment);
  vm.constantI32(constants.signless, 0x7fffffff);
  return constants;
}

/** Runs `body` when the clip factor at an address is a number: nothing happens in a step whose norm was not finite. */
export function emitWhenFinite(vm: VectorMachine, clipAddress: Integer, body: (clip: Vector) => void): void {
  const clipBits = vm.integer();
  vm.loadI32(clipBits, clipAddress, 0);
  vm.andInteger(clipBits, clipBits, exponentBits);
  const clip = vm.vector();
  vm.broadcast(clip, clipAddress, 0);
  vm.free(clipAddress);
  vm.when(clipBits, "notEqual", exponentBits, () => body(clip));
  vm.free(clipBits, clip);
}

/** d = one of the scalars of the block at an address, in every lane. */
export function emitScalar(
  vm: VectorMachine,
  d: Vector,
  scalars: Integer,
  name: (typeof scalarWords)[number],
): void {
  vm.broadcast(d, scalars, 4 * scalarWords.indexOf(name));
}

/**
 * One step of one vector, as `adamwReference` says. `gradient` is the clipped gradient and is destroyed; left out, it
 * is zero, and what a zero changes in no bit is left out too: v ≥ 0, so v + (1 − β₂)·0² is v.
 */
export function emitUpdate(
  vm: VectorMachine,
  { w, m, v }: State,
  gradient: Vector | undefined,
  scalars: Integer,
  { zero, smallest, signless }: Constants,
): void {
  const [scalar, other] = [vm.vector(), vm.vector()];
  const readScalar = (name: (typeof scalarWords)[number]) => {
    emitScalar(vm, scalar, scalars, name);
    return scalar;
  };
  vm.subtract(other, gradient ?? zero, m);
  vm.fma(m, other, readScalar("oneMinusBeta1"));
  vm.and(other, m, signless);
  vm.selectLess(m, other, smallest, zero, m);

  vm.multiply(v, v, readScalar("beta2"));
  if (gradient) {
    vm.multiply(gradient, gradient, gradient);
    vm.fma(v, gradient, readScalar("oneMinusBeta2"));
  }
  vm.selectLess(v, v, smallest, zero, v);

  vm.squareRoot(other, v);
  vm.multiply(other, other, readScalar("inverseRootCorrection2"));
  vm.add(other, other, readScalar("epsilon"));
  vm.divide(other, m, other);
  vm.multiply(w, w, readScalar("decay"));
  vm.fmaNegated(w, other, readScalar("stepSize"));
  vm.free(scalar, other);
}

/** Updates one vector where it lies, or its first `count` elements, and moves the cursors on by a whole vector. */
export function emitVector(
  vm: VectorMachine,
  { weights, gradients, firstMoment, secondMoment, scalars }: Cursors,
  clip: Vector,
  constants: Constants,
  { mask, count }: VectorOptions = {},
): void {
  const load = (pointer: Integer) => {
    const value = vm.vector();
    if (count) vm.loadFirst(value, pointer, 0, count);
    else vm.load(value, pointer, 0);
    return value;
  };
  const store = (pointer: Integer, value: Vector) => {
    if (count) vm.storeFirst(pointer, 0, value, count);
    else vm.store(pointer, 0, value);
  };
  const gradient = load(gradients);
  vm.multiply(gradient, gradient, clip);
  const state = { w: load(weights), m: load(firstMoment), v: load(secondMoment) };
  emitUpdate(vm, state, gradient, scalars, constants);
  const { w, m, v } = state;
  if (mask) {
    // Lanes whose bit is set hold a power of two now; that of lane 31 would be negative, but there are 16 at most.
    vm.and(gradient, mask.word, mask.laneBit);
    vm.i32ToF32(gradient, gradient);
    for (const value of [w, m, v]) vm.selectLess(value, constants.zero, gradient, value, constants.zero);
  }
  store(weights, w);
  store(firstMoment, m);
  store(secondMoment, v);
  for (const pointer of [weights, gradients, firstMoment, secondMoment]) {
    vm.addInteger(pointer, pointer, 4 * vm.lanes);
  }
  vm.free(gradient, w, m, v);
}
