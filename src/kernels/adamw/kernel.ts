/**
 * A fused AdamW step: one pass reads weight, gradient and both moments, and writes weight and moments.
 *
 * The pass is bound by memory (28 bytes an element), so scalars are read again where they are used instead of
 * holding registers, and the mask is applied on the way.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
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

/** Arguments of both AdamW kernels. */
export const adamwArguments = {
  weights: "pointer",
  gradients: "pointer",
  firstMoment: "pointer",
  secondMoment: "pointer",
  /** First word of the bitset; any address where there is no mask. */
  mask: "pointer",
  scalars: "pointer",
  clip: "pointer",
  count: "integer",
} as const;

/** Elements that share a word of the mask. */
const wordElements = 32;

/** Every bit of an f32's exponent: all set in NaN and ∞, and only there. */
const exponentBits = 0x7f800000;

/** The step without a mask. */
export const adamwKernel: Kernel<typeof adamwArguments> = defineKernel({
  key: "adamw_f32",
  arguments: adamwArguments,
  emit: (vm, args) => emitAdamw(vm, args, false),
});

/** The step with a mask: element i is kept when bit i mod 32 of word ⌊i / 32⌋ is set, and otherwise zeroed. */
export const adamwMaskedKernel: Kernel<typeof adamwArguments> = defineKernel({
  key: "adamw_masked_f32",
  arguments: adamwArguments,
  emit: (vm, args) => emitAdamw(vm, args, true),
});

function emitAdamw(vm: VectorMachine, args: ArgumentReader<typeof adamwArguments>, masked: boolean): void {
  const clipBits = vm.integer();
  const clipAddress = args.pointer("clip");
  vm.loadI32(clipBits, clipAddress, 0);
  vm.andInteger(clipBits, clipBits, exponentBits);
  const clip = vm.vector();
  vm.broadcast(clip, clipAddress, 0);
  vm.free(clipAddress);
  vm.when(clipBits, "notEqual", exponentBits, () => emitRange(vm, args, clip, masked));
  vm.free(clipBits, clip);
}

/** Pointers: the first four move along the range. */
interface Cursors {
  readonly weights: Integer;
  readonly gradients: Integer;
  readonly firstMoment: Integer;
  readonly secondMoment: Integer;
  readonly scalars: Integer;
}

/** Constants in every lane. */
interface Constants {
  readonly clip: Vector;
  readonly zero: Vector;
  readonly smallest: Vector;
  readonly signless: Vector;
}

function emitRange(
  vm: VectorMachine,
  args: ArgumentReader<typeof adamwArguments>,
  clip: Vector,
  masked: boolean,
): void {
  const cursors: Cursors = {
    weights: args.pointer("weights"),
    gradients: args.pointer("gradients"),
    firstMoment: args.pointer("firstMoment"),
    secondMoment: args.pointer("secondMoment"),
    scalars: args.pointer("scalars"),
  };
  const constants: Constants = { clip, zero: vm.vector(), smallest: vm.vector(), signless: vm.vector() };
  vm.constantF32(constants.zero, 0);
  vm.constantF32(constants.smallest, smallestMoment);
  vm.constantI32(constants.signless, 0x7fffffff);
  const count = args.integer("count");

  if (masked) {
    emitMaskedRange(vm, args, cursors, constants, count);
  } else {
    const vectors = vm.integer();
    vm.shiftRightInteger(vectors, count, Math.log2(vm.lanes));
    vm.repeat(vectors, () => emitVector(vm, cursors, constants, undefined, undefined));
    vm.andInteger(count, count, vm.lanes - 1);
    vm.when(count, "greater", 0, () => emitVector(vm, cursors, constants, undefined, count));
    vm.free(vectors);
  }
  const { zero, smallest, signless } = constants;
  vm.free(count, zero, smallest, signless, ...Object.values(cursors));
}

/** Walks the range a mask word at a time; after each vector the word moves right by the lanes just used. */
function emitMaskedRange(
  vm: VectorMachine,
  args: ArgumentReader<typeof adamwArguments>,
  cursors: Cursors,
  constants: Constants,
  count: Integer,
): void {
  const mask = args.pointer("mask");
  const word = vm.vector();
  const laneBit = emitLaneBits(vm);
  const words = vm.integer();
  const vectors = vm.integer();
  const bits = { word, laneBit };
  const advance = () => vm.shiftRightI32(word, word, vm.lanes);

  vm.shiftRightInteger(words, count, Math.log2(wordElements));
  vm.repeat(words, () => {
    vm.broadcast(word, mask, 0);
    vm.addInteger(mask, mask, 4);
    vm.setInteger(vectors, wordElements / vm.lanes);
    vm.repeat(vectors, () => {
      emitVector(vm, cursors, constants, bits, undefined);
      advance();
    });
  });
  vm.free(words);
  vm.andInteger(count, count, wordElements - 1);
  vm.when(count, "greater", 0, () => {
    vm.broadcast(word, mask, 0);
    const part = vm.integer();
    vm.addInteger(vectors, count, vm.lanes - 1);
    vm.shiftRightInteger(vectors, vectors, Math.log2(vm.lanes));
    vm.repeat(vectors, () => {
      vm.moveInteger(part, count);
      vm.when(part, "greater", vm.lanes, () => vm.setInteger(part, vm.lanes));
      emitVector(vm, cursors, constants, bits, part);
      advance();
      vm.subtractInteger(count, count, part);
    });
    vm.free(part);
  });
  vm.free(mask, word, laneBit, vectors);
}

/** Lane i = 1 << i, in a new register: 2^i is built as a float, whose exponent field is 127 + i. */
function emitLaneBits(vm: VectorMachine): Vector {
  const bits = vm.vector();
  const bias = vm.vector();
  vm.laneIndex(bits);
  vm.constantI32(bias, 127);
  vm.addI32(bits, bits, bias);
  vm.shiftLeftI32(bits, bits, 23);
  vm.f32ToI32(bits, bits);
  vm.free(bias);
  return bits;
}

/** Updates one vector, or its first `count` elements, and moves the cursors on by a whole vector. */
function emitVector(
  vm: VectorMachine,
  { weights, gradients, firstMoment, secondMoment, scalars }: Cursors,
  { clip, zero, smallest, signless }: Constants,
  mask: { readonly word: Vector; readonly laneBit: Vector } | undefined,
  count: Integer | undefined,
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
  const scalar = vm.vector();
  const readScalar = (name: (typeof scalarWords)[number]) => {
    vm.broadcast(scalar, scalars, 4 * scalarWords.indexOf(name));
    return scalar;
  };
  const other = vm.vector();

  const gradient = load(gradients);
  vm.multiply(gradient, gradient, clip);

  const m = load(firstMoment);
  vm.subtract(other, gradient, m);
  vm.fma(m, other, readScalar("oneMinusBeta1"));
  vm.and(other, m, signless);
  vm.selectLess(m, other, smallest, zero, m);

  const v = load(secondMoment);
  vm.multiply(v, v, readScalar("beta2"));
  vm.multiply(gradient, gradient, gradient);
  vm.fma(v, gradient, readScalar("oneMinusBeta2"));
  vm.selectLess(v, v, smallest, zero, v);
  vm.free(gradient);

  vm.squareRoot(other, v);
  vm.multiply(other, other, readScalar("inverseRootCorrection2"));
  vm.add(other, other, readScalar("epsilon"));
  vm.divide(other, m, other);
  const w = load(weights);
  vm.multiply(w, w, readScalar("decay"));
  vm.fmaNegated(w, other, readScalar("stepSize"));

  if (mask) {
    vm.and(other, mask.word, mask.laneBit);
    vm.i32ToF32(other, other);
    for (const value of [w, m, v]) vm.selectLess(value, zero, other, value, zero);
  }
  store(weights, w);
  store(firstMoment, m);
  store(secondMoment, v);
  for (const pointer of [weights, gradients, firstMoment, secondMoment]) {
    vm.addInteger(pointer, pointer, 4 * vm.lanes);
  }
  vm.free(scalar, other, m, v, w);
}
