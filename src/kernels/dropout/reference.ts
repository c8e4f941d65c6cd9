/**
 * Dropout by its definition.
 * @module
 */
import { mix32, randomBits } from "../../core/random.ts";
import type { NumberArray } from "../../graph/operation.ts";

/** Which random numbers an application of dropout uses. */
export interface DropoutAttributes {
  /** Probability of a zero, in [0, 1). */
  readonly rate: number;
  /** Number of the application within the graph: each has its own random sequence. */
  readonly stream: number;
}

/** Whether the element with this random index is kept; `seed` holds the two words of the step's key. */
export function isKept({ rate, stream }: DropoutAttributes, seed: ArrayLike<number>, index: number): boolean {
  const bits = randomBits({ low: seed[0] ^ mix32(stream), high: seed[1] }, index);
  return (bits >>> 8) >= Math.round(rate * 2 ** 24);
}

/** y[f, c] = kept ? x[f, c] / (1 − rate) : 0, with random index c · features + f. */
export function dropoutReference(
  x: NumberArray,
  seed: NumberArray,
  attributes: DropoutAttributes,
  features: number,
  columns: number,
): NumberArray {
  const scale = 1 / (1 - attributes.rate);
  return x.map((value, i) => {
    const [feature, column] = [Math.floor(i / columns), i % columns];
    return isKept(attributes, seed, column * features + feature) ? value * scale : 0;
  });
}
