/**
 * The read-only constants of an image: each 32-bit value once, and the table of lane numbers.
 * @module
 */
import type { ImageMemory } from "./x64_operands.ts";

const maximumLanes = 16;

/** Collects the constants that the code of one image refers to. */
export class X64ConstantPool {
  readonly #words = Array.from({ length: maximumLanes }, (_, lane) => lane);
  readonly #offsets = new Map<number, number>();

  /** The numbers 0, 1, … of the lanes, as 32-bit integers, for any vector width. */
  readonly laneNumbers: ImageMemory = { kind: "image memory", section: "constants", offset: 0 };

  /** One 32-bit value, given as a number whose low 32 bits it is. */
  word(value: number): ImageMemory {
    let offset = this.#offsets.get(value | 0);
    if (offset === undefined) {
      offset = 4 * this.#words.length;
      this.#words.push(value | 0);
      this.#offsets.set(value | 0, offset);
    }
    return { kind: "image memory", section: "constants", offset };
  }

  /** The constants so far. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(Int32Array.from(this.#words).buffer);
  }
}
