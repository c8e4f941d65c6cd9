/**
 * The generator of `src/core/random.ts` in the instructions of the vector machine, and the decision to drop.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { mix32 } from "../../core/random.ts";

/** The two words of a random key, in every lane. */
export interface KeyVectors {
  /** Combined with the index before mixing. */
  readonly low: Vector;
  /** Added between the two mixings. */
  readonly high: Vector;
}

/** What a kernel gets for a stream number, to combine with the seed: see `emitDropoutKey`. */
export function streamWord(stream: number): number {
  return mix32(stream) | 0;
}

/** The bits of a dropped element, shifted right by 8, are below this number: rate · 2²⁴, exact as an f32. */
export function dropThreshold(rate: number): number {
  return Math.round(rate * 2 ** 24);
}

/** key = {low: seed[0] ^ streamWord, high: seed[1]}, in two new registers that the caller frees. */
export function emitDropoutKey(vm: VectorMachine, seed: Integer, streamWord: Integer): KeyVectors {
  const low = vm.vector();
  const high = vm.vector();
  vm.broadcast(high, seed, 0);
  vm.broadcastInteger(low, streamWord);
  vm.xor(low, low, high);
  vm.broadcast(high, seed, 4);
  return { low, high };
}

/** d = randomBits(key, index), lane by lane. Two temporaries; `d` may be `index`. */
export function emitRandomBits(vm: VectorMachine, d: Vector, index: Vector, key: KeyVectors): void {
  const shifted = vm.vector();
  const factor = vm.vector();
  vm.xor(d, index, key.low);
  emitMix32(vm, d, shifted, factor);
  vm.addI32(d, d, key.high);
  emitMix32(vm, d, shifted, factor);
  vm.free(shifted, factor);
}

/** d = the bits above the lowest eight as an f32, exact: below `dropThreshold(rate)` with probability `rate`. */
export function emitUniform24(vm: VectorMachine, d: Vector, bits: Vector): void {
  vm.shiftRightI32(d, bits, 8);
  vm.i32ToF32(d, d);
}

function emitMix32(vm: VectorMachine, x: Vector, shifted: Vector, factor: Vector): void {
  vm.shiftRightI32(shifted, x, 16);
  vm.xor(x, x, shifted);
  vm.constantI32(factor, 0x7feb352d);
  vm.multiplyI32(x, x, factor);
  vm.shiftRightI32(shifted, x, 15);
  vm.xor(x, x, shifted);
  vm.constantI32(factor, 0x846ca68b);
  vm.multiplyI32(x, x, factor);
  vm.shiftRightI32(shifted, x, 16);
  vm.xor(x, x, shifted);
}
