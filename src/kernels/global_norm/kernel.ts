/**
 * The norm of all gradients, and the factor that clips them: sums of squares by chunk, then one small call.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitLaneBits } from "../emit_math.ts";
import { defineKernel, type Kernel } from "../kernel.ts";

/** Elements of a chunk: the unit of a partial sum. Fixed, so that the sum does not depend on the workers. */
export const chunkElements = 16384;

/** Independent sums in a chunk, so that additions overlap; a power of two. */
const accumulators = 4;

const sumArguments = { gradients: "pointer", partials: "pointer", count: "integer" } as const;

/**
 * partials[k] = Σ of gradients² over the k-th chunk of 16384 elements; the last chunk may be shorter.
 *
 * Numerics: 4 · lanes sums in f32, then added in a fixed tree. Overflows to ∞ where a square does.
 */
export const sumOfSquaresKernel: Kernel<typeof sumArguments> = defineKernel({
  key: "sum_of_squares_f32",
  arguments: sumArguments,
  emit(vm, args) {
    const gradients = args.pointer("gradients");
    const partials = args.pointer("partials");
    const left = args.integer("count");
    const chunk = vm.integer();
    const chunks = vm.integer();
    vm.addInteger(chunks, left, chunkElements - 1);
    vm.shiftRightInteger(chunks, chunks, Math.log2(chunkElements));
    const sums = Array.from({ length: accumulators }, () => vm.vector());
    vm.repeat(chunks, () => {
      vm.moveInteger(chunk, left);
      vm.when(chunk, "greater", chunkElements, () => vm.setInteger(chunk, chunkElements));
      vm.subtractInteger(left, left, chunk);
      emitSumOfSquares(vm, gradients, chunk, sums);
      vm.storeLane0(partials, 0, sums[0]);
      vm.addInteger(partials, partials, 4);
    });
    vm.free(gradients, partials, left, chunk, chunks, ...sums);
  },
});

/** sums[0] = Σ of the next `count` squares in every lane; moves the pointer on, destroys `count`. */
function emitSumOfSquares(
  vm: VectorMachine,
  pointer: Integer,
  count: Integer,
  sums: readonly Vector[],
): void {
  const value = vm.vector();
  const iterations = vm.integer();
  for (const sum of sums) vm.constantF32(sum, 0);
  for (const vectors of [sums.length, 1]) {
    const elements = vectors * vm.lanes;
    vm.shiftRightInteger(iterations, count, Math.log2(elements));
    vm.repeat(iterations, () => {
      for (let i = 0; i < vectors; i++) {
        vm.load(value, pointer, 4 * vm.lanes * i);
        vm.fma(sums[i], value, value);
      }
      vm.addInteger(pointer, pointer, 4 * elements);
    });
    vm.andInteger(count, count, elements - 1);
  }
  vm.loadFirst(value, pointer, 0, count);
  vm.fma(sums[0], value, value);
  vm.shiftLeftInteger(count, count, 2);
  vm.addInteger(pointer, pointer, count);
  emitTreeSum(vm, sums);
  vm.free(value, iterations);
}

/** The sum of all lanes of all vectors, in every lane of the first. */
function emitTreeSum(vm: VectorMachine, sums: readonly Vector[]): void {
  for (let half = sums.length / 2; half >= 1; half /= 2) {
    for (let i = 0; i < half; i++) vm.add(sums[i], sums[i], sums[i + half]);
  }
  vm.sumLanes(sums[0], sums[0]);
}

const maskedSumArguments = { ...sumArguments, mask: "pointer" } as const;

/** Elements that a word of a mask tells about. */
const wordElements = 32;

/**
 * The same over the gradients whose bit is set: bit i mod 32 of word ⌊i / 32⌋ belongs to element i. What the others
 * hold, NaN too, does not matter. The count is a multiple of 32.
 */
export const sumOfSquaresMaskedKernel: Kernel<typeof maskedSumArguments> = defineKernel({
  key: "sum_of_squares_masked_f32",
  arguments: maskedSumArguments,
  emit(vm, args) {
    const gradients = args.pointer("gradients");
    const partials = args.pointer("partials");
    const mask = args.pointer("mask");
    const left = args.integer("count");
    const words = vm.integer();
    const laneBits = emitLaneBits(vm);
    const [zero, word, value, bit] = [vm.vector(), vm.vector(), vm.vector(), vm.vector()];
    vm.constantF32(zero, 0);
    const sums = Array.from({ length: accumulators }, () => vm.vector());
    const vectors = wordElements / vm.lanes;
    vm.shiftRightInteger(left, left, Math.log2(wordElements));
    const chunks = vm.integer();
    vm.addInteger(chunks, left, chunkElements / wordElements - 1);
    vm.shiftRightInteger(chunks, chunks, Math.log2(chunkElements / wordElements));
    vm.repeat(chunks, () => {
      vm.moveInteger(words, left);
      vm.when(words, "greater", chunkElements / wordElements, () => {
        vm.setInteger(words, chunkElements / wordElements);
      });
      vm.subtractInteger(left, left, words);
      for (const sum of sums) vm.constantF32(sum, 0);
      vm.repeat(words, () => {
        vm.broadcast(word, mask, 0);
        for (let i = 0; i < vectors; i++) {
          vm.load(value, gradients, 4 * vm.lanes * i);
          vm.and(bit, word, laneBits);
          vm.i32ToF32(bit, bit);
          vm.selectLess(value, zero, bit, value, zero);
          vm.fma(sums[i % accumulators], value, value);
          vm.shiftRightI32(word, word, vm.lanes);
        }
        vm.addInteger(mask, mask, 4);
        vm.addInteger(gradients, gradients, 4 * wordElements);
      });
      emitTreeSum(vm, sums);
      vm.storeLane0(partials, 0, sums[0]);
      vm.addInteger(partials, partials, 4);
    });
    vm.free(gradients, partials, mask, left, words, chunks, laneBits, zero, word, value, bit, ...sums);
  },
});

const clipArguments = {
  partials: "pointer",
  count: "integer",
  maximumNorm: "float",
  result: "pointer",
} as const;

/**
 * result = [norm, clip]: norm = √Σ partials, clip = min(1, maximumNorm / (norm + 10⁻⁶)), as PyTorch's
 * `clip_grad_norm_`; 1 when maximumNorm ≤ 0; NaN when the norm is NaN or infinite.
 *
 * Numerics: partials are added in order with Neumaier's correction, so thousands of them cost no accuracy.
 */
export const clipFactorKernel: Kernel<typeof clipArguments> = defineKernel({
  key: "clip_factor_f32",
  arguments: clipArguments,
  emit(vm, args) {
    const [norm, clip, one] = [vm.vector(), vm.vector(), vm.vector()];
    emitSum(vm, args.pointer("partials"), args.integer("count"), norm);
    vm.squareRoot(norm, norm);
    vm.constantF32(one, 1);

    const [zero, other] = [vm.vector(), vm.vector()];
    const maximumNorm = args.float("maximumNorm");
    vm.constantF32(clip, 1e-6);
    vm.add(clip, clip, norm);
    vm.divide(clip, maximumNorm, clip);
    vm.selectLess(clip, clip, one, clip, one);
    vm.constantF32(zero, 0);
    vm.selectLess(clip, zero, maximumNorm, clip, one);
    // Anything below ∞ keeps its factor; the rest, NaN included, gets ∞ − ∞.
    vm.constantF32(other, Infinity);
    vm.subtract(zero, other, other);
    vm.selectLess(clip, norm, other, clip, zero);

    const result = args.pointer("result");
    vm.storeLane0(result, 0, norm);
    vm.storeLane0(result, 4, clip);
    vm.free(norm, clip, one, zero, other, maximumNorm, result);
  },
});

/** sum = Σ of non-negative f32 elements in every lane, in order, with the rounding errors added at the end. */
function emitSum(vm: VectorMachine, pointer: Integer, count: Integer, sum: Vector): void {
  const [value, total, error, part] = [vm.vector(), vm.vector(), vm.vector(), vm.vector()];
  vm.constantF32(sum, 0);
  vm.constantF32(error, 0);
  vm.repeat(count, () => {
    vm.broadcast(value, pointer, 0);
    vm.add(total, sum, value);
    // error += what the larger of the two lost: (larger − total) + smaller
    const [larger, smaller] = [part, vm.vector()];
    vm.selectLess(larger, sum, value, value, sum);
    vm.selectLess(smaller, sum, value, sum, value);
    vm.subtract(larger, larger, total);
    vm.add(larger, larger, smaller);
    vm.add(error, error, larger);
    vm.free(smaller);
    vm.move(sum, total);
    vm.addInteger(pointer, pointer, 4);
  });
  // An infinite sum makes the error NaN: keep the sum then.
  vm.add(total, sum, error);
  vm.constantF32(value, Infinity);
  vm.selectLess(sum, sum, value, total, sum);
  vm.free(value, total, error, part, pointer, count);
}
