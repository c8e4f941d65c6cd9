/**
 * Texts disturbed in ways that do not change what they mean to a reader.
 * @module
 */
import { randomKey, RandomStream } from "../core/random.ts";

/** A way to disturb a text; the same text and index always give the same result. */
export interface Perturbation {
  readonly name: string;
  /** The disturbed text. `index` is the example's number. */
  apply(text: string, index: number): string;
}

/** Letters of one word in six swapped with their neighbour: not the first and the last, which readers go by. */
function withTypos(text: string, index: number): string {
  const random = new RandomStream(randomKey(0, "typos", index));
  return text.replace(/\p{L}{4,}/gu, (word) => {
    if (random.below(6) !== 0) return word;
    const letters = [...word];
    const at = 1 + random.below(letters.length - 3);
    [letters[at], letters[at + 1]] = [letters[at + 1], letters[at]];
    return letters.join("");
  });
}

/** The perturbations of the robustness report. */
export const perturbations: readonly Perturbation[] = [
  { name: "upper case", apply: (text) => text.toUpperCase() },
  { name: "no punctuation", apply: (text) => text.replace(/\p{P}+/gu, " ") },
  { name: "typos in one word of six", apply: withTypos },
];
