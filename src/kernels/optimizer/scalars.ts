/**
 * The block of f32 words that a rule's step reads: its words by name, on the side that writes and on the one that reads.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { InputError } from "../../core/errors.ts";
import type { GroupStep } from "./rule.ts";

/** A block with its words in order. */
export function scalarBlock<W extends string>(
  words: readonly W[],
  values: Readonly<Record<W, number>>,
): Float32Array {
  return Float32Array.from(words, (word) => values[word]);
}

/** d = one word of the block at an address, in every lane. Gives d. */
export function emitScalar<W extends string>(
  vm: VectorMachine,
  d: Vector,
  scalars: Integer,
  words: readonly W[],
  word: W,
): Vector {
  vm.broadcast(d, scalars, 4 * words.indexOf(word));
  return d;
}

/** β₁ or the momentum of a step: what a schedule gives, or the optimiser's own. Throws an InputError outside [0, 1). */
export function momentumOf({ momentum }: GroupStep, own: number): number {
  if (momentum === undefined) return own;
  if (!(momentum >= 0 && momentum < 1)) {
    throw new InputError(`momentum is ${momentum}: wanted a number in [0, 1)`);
  }
  return momentum;
}

/** Throws an InputError when a schedule gives a momentum to an optimiser without one. */
export function refuseMomentum(optimizer: string, { momentum }: GroupStep): void {
  if (momentum === undefined) return;
  throw new InputError(`momentum is ${momentum}: wanted none, ${optimizer} was made with a momentum of 0`);
}
