/**
 * The one source of randomness: a counter-based generator. A number depends on (key, index) only, so any worker
 * can make any part of a sequence and the thread count never changes a result.
 *
 * The mixer is the 32-bit finaliser `lowbias32` found by Chris Wellons' hash prospector (bias 0.17), applied
 * twice with a key word in between. Kernels compute the same bits (`src/kernels/dropout`).
 * @module
 */

/** Two 32-bit words that name one random sequence. */
export interface RandomKey {
  readonly low: number;
  readonly high: number;
}

/** lowbias32: a bijection of 32-bit integers that scatters every input bit. */
export function mix32(value: number): number {
  let x = value | 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  x ^= x >>> 16;
  return x >>> 0;
}

/** 32 random bits for (key, index). */
export function randomBits(key: RandomKey, index: number): number {
  return mix32(mix32(index ^ key.low) + key.high);
}

/** A key for a named purpose, derived from a seed: `randomKey(42, "shuffle", epoch)`. */
export function randomKey(seed: number, ...path: (string | number)[]): RandomKey {
  let low = mix32(seed);
  let high = mix32(low ^ 0x9e3779b9 ^ Math.floor(seed / 2 ** 32));
  for (const part of path) {
    for (const word of typeof part === "number" ? [part] : Array.from(part, (c) => c.codePointAt(0)!)) {
      low = mix32(low + Math.imul(word, 0x85ebca6b));
      high = mix32(high ^ low);
    }
    low = mix32(low ^ 0xff51afd7);
  }
  return { low, high };
}

/** A stream of numbers for one key, for code that wants them one after the other. */
export class RandomStream {
  readonly #key: RandomKey;
  #index = 0;

  constructor(key: RandomKey) {
    this.#key = key;
  }

  /** A number in [0, 1) with 24 random bits. */
  uniform(): number {
    return (randomBits(this.#key, this.#index++) >>> 8) / 2 ** 24;
  }

  /** An integer in [0, bound). */
  below(bound: number): number {
    return Math.floor((randomBits(this.#key, this.#index++) / 2 ** 32) * bound);
  }

  /** A standard normal number, by the Box–Muller transform. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Shuffles in place (Fisher–Yates). */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j], items[i]];
    }
    return items;
  }
}
