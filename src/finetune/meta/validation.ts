/**
 * Examples of the training set that are held out for meta-updates. They are no part of training, and as they come from
 * the training set they are none of the development or test sets either, on which models are compared.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { randomKey, RandomStream } from "../../core/random.ts";

/** The two parts of a training set, as ascending numbers of examples. */
export interface MetaSplit {
  readonly training: Int32Array;
  readonly validation: Int32Array;
}

/** Holds a fraction out, at least one example; a function of count, fraction and seed. */
export function splitMetaValidation(count: number, fraction: number, seed: number): MetaSplit {
  const held = Math.max(1, Math.round(fraction * count));
  if (held >= count) {
    throw new InputError(
      `MetaAdamW holds ${held} of ${count} training examples out: wanted some to be left, take more examples`,
    );
  }
  const order = Array.from({ length: count }, (_, index) => index);
  new RandomStream(randomKey(seed, "meta validation")).shuffle(order);
  const sorted = (part: readonly number[]) => Int32Array.from(part).sort();
  return { training: sorted(order.slice(held)), validation: sorted(order.slice(0, held)) };
}

/** The held-out examples for a meta-update, counted from 0: `size` of them, in turn, in an order drawn for each round. */
export function metaValidationBatch(
  validation: ArrayLike<number>,
  size: number,
  update: number,
  seed: number,
): number[] {
  const length = Math.min(size, validation.length);
  const first = update * length;
  const chosen: number[] = [];
  for (let round = Math.floor(first / validation.length); chosen.length < length; round++) {
    const order = Array.from(validation);
    new RandomStream(randomKey(seed, "meta validation order", round)).shuffle(order);
    const begin = Math.max(0, first - round * validation.length);
    chosen.push(...order.slice(begin, begin + length - chosen.length));
  }
  return chosen;
}
