/**
 * A fused AdamW step: one pass reads weight, gradient and both moments, and writes weight and moments.
 *
 * The pass is bound by memory (28 bytes an element), so scalars are read again where they are used instead of
 * holding registers, and the mask is applied on the way.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitLaneBits } from "../emit_math.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { type Constants, type Cursors, emitConstants, emitVector, emitWhenFinite } from "./emit.ts";

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
  emitWhenFinite(vm, args.pointer("clip"), (clip) => emitRange(vm, args, clip, masked));
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
  const constants = emitConstants(vm);
  const count = args.integer("count");

  if (masked) {
    emitMaskedRange(vm, args, cursors, clip, constants, count);
  } else {
    const vectors = vm.integer();
    vm.shiftRightInteger(vectors, count, Math.log2(vm.lanes));
    vm.repeat(vectors, () => emitVector(vm, cursors, clip, constants));
    vm.andInteger(count, count, vm.lanes - 1);
    vm.when(count, "greater", 0, () => emitVector(vm, cursors, clip, constants, { count }));
    vm.free(vectors);
  }
  vm.free(count, ...Object.values(constants), ...Object.values(cursors));
}

/** Walks the range a mask word at a time; after each vector the word moves right by the lanes just used. */
function emitMaskedRange(
  vm: VectorMachine,
  args: ArgumentReader<typeof adamwArguments>,
  cursors: Cursors,
  clip: Vector,
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
      emitVector(vm, cursors, clip, constants, { mask: bits });
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
      emitVector(vm, cursors, clip, constants, { mask: bits, count: part });
      advance();
      vm.subtractInteger(count, count, part);
    });
    vm.free(part);
  });
  vm.free(mask, word, laneBit, vectors);
}
