/**
 * The one shared memory that holds weights, activations, gradients, optimiser state and programs.
 *
 * Allocation only moves forward; what a plan needs for a moment is placed by the plan itself in a region it is given.
 * @module
 */
import { createArenaMemory } from "../machines/mod.ts";
import { alignUp } from "./memory.ts";

/** Memory shared by every worker, and a cursor into it. */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly byteLength: number;
  #used = 64; // Address 0 stays unused, so that a forgotten address is noticed.

  /** Makes an arena of at least `bytes`. Throws when the size is beyond what a 32-bit memory can hold. */
  constructor(bytes: number) {
    this.memory = createArenaMemory(bytes + 64);
    this.byteLength = this.memory.buffer.byteLength;
  }

  /** Bytes handed out so far. */
  get usedBytes(): number {
    return this.#used;
  }

  /** The address of a new range of at least `bytes`, aligned to 64. `purpose` is for the error message. */
  allocate(bytes: number, purpose: string): number {
    const address = this.#used;
    const end = address + alignUp(bytes);
    if (end > this.byteLength) {
      throw new RangeError(
        `Cannot allocate ${bytes} bytes for ${purpose}: ${
          this.byteLength - address
        } bytes are left in the arena`,
      );
    }
    this.#used = end;
    return address;
  }

  /** A view of f32 elements. */
  float32(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length);
  }

  /** A view of i32 elements. */
  int32(address: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, length);
  }

  /** A view of bytes. */
  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length);
  }
}
