/**
 * Tokenised examples, end to end in a few flat arrays: 67,349 texts are four objects and not 200,000, and pass from
 * thread to thread without a copy.
 * @module
 */
import type { EncodedExample } from "./batches.ts";

/** A set of tokenised examples. Example i holds tokens offsets[i] … offsets[i + 1]. */
export interface EncodedSet {
  /** [tokens of all examples] */
  readonly ids: Int32Array<ArrayBuffer>;
  /** [tokens of all examples] */
  readonly typeIds: Uint8Array<ArrayBuffer>;
  /** [examples + 1] */
  readonly offsets: Int32Array<ArrayBuffer>;
  /** [examples]: class numbers. */
  readonly labels: Int32Array<ArrayBuffer>;
  /** [examples], where numbers are to be predicted. */
  readonly targets?: Float32Array<ArrayBuffer>;
}

/** Puts examples end to end. All of them have a target, or none. */
export function encodedSetOf(examples: readonly EncodedExample[]): EncodedSet {
  const offsets = new Int32Array(examples.length + 1);
  for (const [index, { ids }] of examples.entries()) offsets[index + 1] = offsets[index] + ids.length;
  const tokens = offsets[examples.length];
  const set = {
    ids: new Int32Array(tokens),
    typeIds: new Uint8Array(tokens),
    offsets,
    labels: Int32Array.from(examples, ({ label }) => label),
    ...(examples[0]?.target !== undefined && {
      targets: Float32Array.from(examples, ({ target }) => target!),
    }),
  };
  for (const [index, { ids, typeIds }] of examples.entries()) {
    set.ids.set(ids, offsets[index]);
    set.typeIds.set(typeIds, offsets[index]);
  }
  return set;
}

/** One example, as views of the set. */
export function exampleAt(
  { ids, typeIds, offsets, labels, targets }: EncodedSet,
  index: number,
): EncodedExample {
  const [begin, end] = [offsets[index], offsets[index + 1]];
  return {
    ids: ids.subarray(begin, end),
    typeIds: typeIds.subarray(begin, end),
    label: labels[index],
    ...(targets && { target: targets[index] }),
  };
}

/** [examples]: the tokens of each. */
export function lengthsOf({ offsets }: EncodedSet): Int32Array {
  return Int32Array.from(offsets.subarray(1), (end, index) => end - offsets[index]);
}

/** The memory of a set, to hand it to another thread. */
export function buffersOf(set: EncodedSet): ArrayBuffer[] {
  const { ids, typeIds, offsets, labels, targets } = set;
  return [ids, typeIds, offsets, labels, ...(targets ? [targets] : [])].map(({ buffer }) => buffer);
}
