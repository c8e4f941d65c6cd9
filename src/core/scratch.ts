/**
 * Memory used again for one array after the other: fresh pages cost more than writing over old ones.
 * @module
 */

/** Lends one array at a time. */
export class Scratch {
  #memory = new Float32Array(0);

  /** An array of that length with whatever the one before left in it, which must not be used any more. */
  take(length: number): Float32Array {
    if (this.#memory.length < length) this.#memory = new Float32Array(length);
    return this.#memory.subarray(0, length);
  }

  /** A private copy. */
  copy(source: Float32Array): Float32Array {
    const copy = this.take(source.length);
    copy.set(source);
    return copy;
  }
}
