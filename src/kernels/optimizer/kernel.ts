/**
 * A fused optimiser step: one pass reads weight, gradient and states, and writes weight and states.
 *
 * The pass is bound by memory (28 bytes an element with two states), so scalars are read again where they are used
 * instead of holding registers, and the mask is applied on the way.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitLaneBits } from "../emit_math.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { type Cursors, emitConstants, emitVector, emitWhenFinite, type VectorOptions } from "./emit.ts";
import type { UpdateRule } from "./rule.ts";

/** Arguments that stand for a rule's states, in their order; any address where a rule has fewer. */
export const stateArguments = ["state0", "state1", "state2"] as const;

/** Arguments of all these kernels. */
export const updateArguments = {
  weights: "pointer",
  gradients: "pointer",
  state0: "pointer",
  state1: "pointer",
  state2: "pointer",
  /** First word of the bitset; any address where there is no mask. */
  mask: "pointer",
  scalars: "pointer",
  clip: "pointer",
  count: "integer",
} as const;

/** A kernel that takes a rule's step. */
export type UpdateKernel = Kernel<typeof updateArguments>;

/** Elements that share a word of the mask. */
const wordElements = 32;

const kernels = new Map<string, UpdateKernel>();

/**
 * The step of a rule. With a mask element i is kept when bit i mod 32 of word ⌊i / 32⌋ is set, and otherwise zeroed
 * together with its states.
 */
export function updateKernel(rule: UpdateRule, masked: boolean): UpdateKernel {
  const key = `${rule.key}${masked ? "_masked" : ""}_f32`;
  const known = kernels.get(key);
  if (known) return known;
  const kernel = defineKernel({
    key,
    arguments: updateArguments,
    emit(vm, args) {
      emitWhenFinite(vm, args.pointer("clip"), (clip) => emitRange(vm, args, rule, clip, masked));
    },
  });
  kernels.set(key, kernel);
  return kernel;
}

function emitRange(
  vm: VectorMachine,
  args: ArgumentReader<typeof updateArguments>,
  rule: UpdateRule,
  clip: Vector,
  masked: boolean,
): void {
  const cursors: Cursors = {
    weights: args.pointer("weights"),
    gradients: args.pointer("gradients"),
    states: rule.states.map((_, index) => args.pointer(stateArguments[index])),
    scalars: args.pointer("scalars"),
  };
  const constants = emitConstants(vm);
  const count = args.integer("count");
  const update = (options?: VectorOptions) => emitVector(vm, rule, cursors, clip, constants, options);

  if (masked) {
    emitMaskedRange(vm, args, count, update);
  } else {
    const vectors = vm.integer();
    vm.shiftRightInteger(vectors, count, Math.log2(vm.lanes));
    vm.repeat(vectors, () => update());
    vm.andInteger(count, count, vm.lanes - 1);
    vm.when(count, "greater", 0, () => update({ count }));
    vm.free(vectors);
  }
  const { weights, gradients, states, scalars } = cursors;
  vm.free(count, ...Object.values(constants), weights, gradients, ...states, scalars);
}

/** Walks the range a mask word at a time; after each vector the word moves right by the lanes just used. */
function emitMaskedRange(
  vm: VectorMachine,
  args: ArgumentReader<typeof updateArguments>,
  count: Integer,
  update: (options: VectorOptions) => void,
): void {
  const pointer = args.pointer("mask");
  const word = vm.vector();
  const laneBit = emitLaneBits(vm);
  const words = vm.integer();
  const vectors = vm.integer();
  const mask = { word, laneBit };
  const advance = () => vm.shiftRightI32(word, word, vm.lanes);

  vm.shiftRightInteger(words, count, Math.log2(wordElements));
  vm.repeat(words, () => {
    vm.broadcast(word, pointer, 0);
    vm.addInteger(pointer, pointer, 4);
    vm.setInteger(vectors, wordElements / vm.lanes);
    vm.repeat(vectors, () => {
      update({ mask });
      advance();
    });
  });
  vm.free(words);
  vm.andInteger(count, count, wordElements - 1);
  vm.when(count, "greater", 0, () => {
    vm.broadcast(word, pointer, 0);
    const part = vm.integer();
    vm.addInteger(vectors, count, vm.lanes - 1);
    vm.shiftRightInteger(vectors, vectors, Math.log2(vm.lanes));
    vm.repeat(vectors, () => {
      vm.moveInteger(part, count);
      vm.when(part, "greater", vm.lanes, () => vm.setInteger(part, vm.lanes));
      update({ mask, count: part });
      advance();
      vm.subtractInteger(count, count, part);
    });
    vm.free(part);
  });
  vm.free(pointer, word, laneBit, vectors);
}
