/**
 * Examples by number, whatever they are: what batches are planned for and made of.
 * @module
 */
import type { EncodedExample } from "./batches.ts";
import { type EncodedSet, exampleAt, lengthsOf } from "./encoded_set.ts";

/** A set of examples. */
export interface ExampleSet<Example> {
  /** [examples]: columns (tokens, or steps of time) that each takes. */
  readonly lengths: ArrayLike<number>;
  /** The example of that number, from 0. */
  at(index: number): Example;
}

/** A tokenised example with its number in its set, by which what is known of it elsewhere is found. */
export interface NumberedExample extends EncodedExample {
  readonly index: number;
}

/** Tokenised texts as a set of examples. */
export function encodedExamples(set: EncodedSet): ExampleSet<NumberedExample> {
  return { lengths: lengthsOf(set), at: (index) => ({ ...exampleAt(set, index), index }) };
}
