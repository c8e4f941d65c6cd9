/**
 * What kernels of all rules share: constants, skipped steps, and a vector's way from memory through the rule and back.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { smallestMoment } from "./reference.ts";
import type { Constants, UpdateRule } from "./rule.ts";

/** Every bit of an f32's exponent: all set in NaN and ∞, and only there. */
const exponentBits = 0x7f800000;

/** Pointers: all but the last move along the parameters. */
export interface Cursors {
  readonly weights: Integer;
  readonly gradients: Integer;
  readonly states: readonly Integer[];
  readonly scalars: Integer;
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

/** Moments too small to keep become zero. `spare` is destroyed. */
export function emitFlush(
  vm: VectorMachine,
  moment: Vector,
  spare: Vector,
  { zero, smallest, signless }: Constants,
): void {
  vm.and(spare, moment, signless);
  vm.selectLess(moment, spare, smallest, zero, moment);
}

/** Updates one vector where it lies, or its first `count` elements, and moves the cursors on by a whole vector. */
export function emitVector(
  vm: VectorMachine,
  rule: Pick<UpdateRule, "emit">,
  { weights, gradients, states, scalars }: Cursors,
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
  const gradient = load(gradients);
  vm.multiply(gradient, gradient, clip);
  const targets = [weights, ...states];
  const [w, ...stateValues] = targets.map(load);
  const values = [w, ...stateValues];
  rule.emit(vm, { w, states: stateValues }, gradient, scalars, constants);
  if (mask) {
    // Lanes whose bit is set hold a power of two now; that of lane 31 would be negative, but there are 16 at most.
    vm.and(gradient, mask.word, mask.laneBit);
    vm.i32ToF32(gradient, gradient);
    for (const value of values) vm.selectLess(value, constants.zero, gradient, value, constants.zero);
  }
  targets.forEach((pointer, i) => {
    if (count) vm.storeFirst(pointer, 0, values[i], count);
    else vm.store(pointer, 0, values[i]);
  });
  for (const pointer of [gradients, ...targets]) vm.addInteger(pointer, pointer, 4 * vm.lanes);
  vm.free(gradient, ...values);
}
