/**
 * The one shared memory that holds weights, activations, gradients, optimiser state and programs.
 *
 * Allocation only moves forward; what a plan needs for a moment is placed by the plan itself in a region it is given.
 * @module
 */
import { createArenaMemory } from "../machines/mod.ts";
import { alignUp, bufferAlignment } from "./memory.ts";

/** Address 0 stays unused, so that a forgotten address is noticed. */
const firstAddress = 64;

/** Hands out addresses. */
export interface Allocator {
  /**
   * The address of a new range of at least `bytes`. It is a multiple of `alignment`, itself a multiple of 64.
   * `purpose` is for the error message.
   */
  allocate(bytes: number, purpose: string, alignment?: number): number;
}

/** Gives the addresses an arena would give, to learn how large it must be. */
export class ArenaSize implements Allocator {
  #used = firstAddress;

  /** Size of an arena that can hand out the same. */
  get byteLength(): number {
    return this.#used;
  }

  allocate(bytes: number, _purpose: string, alignment: number = bufferAlignment): number {
    const address = alignUp(this.#used, alignment);
    this.#used = address + alignUp(bytes);
    return address;
  }
}

/** Memory shared by every worker, and a cursor into it. */
export class Arena implements Allocator {
  readonly memory: WebAssembly.Memory;
  readonly byteLength: number;
  #used = firstAddress;

  /** Makes an arena of at least `bytes`. Throws when the size is beyond what a 32-bit memory can hold. */
  constructor(bytes: number) {
    this.memory = createArenaMemory(bytes + firstAddress);
    this.byteLength = this.memory.buffer.byteLength;
  }

  /** Bytes handed out so far. */
  get usedBytes(): number {
    return this.#used;
  }

  /** See `Allocator`. Throws a RangeError when the arena is full. */
  allocate(bytes: number, purpose: string, alignment: number = bufferAlignment): number {
    const address = alignUp(this.#used, alignment);
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

/** A part of an arena whose content can be forgotten to make room. */
export class Region implements Allocator {
  readonly #begin: number;
  readonly #end: number;
  #used: number;

  /** The bytes from `begin`, a multiple of 64. */
  constructor(begin: number, bytes: number) {
    this.#begin = this.#used = begin;
    this.#end = begin + bytes;
  }

  /** Whether there is room for so many bytes more. */
  fits(bytes: number): boolean {
    return this.#used + alignUp(bytes) <= this.#end;
  }

  /** See `Allocator`. Throws a RangeError when the region is full. */
  allocate(bytes: number, purpose: string, alignment: number = bufferAlignment): number {
    const address = alignUp(this.#used, alignment);
    if (address + alignUp(bytes) > this.#end) {
      throw new RangeError(
        `Cannot allocate ${bytes} bytes for ${purpose}: ${this.#end - address} bytes are left of the region`,
      );
    }
    this.#used = address + alignUp(bytes);
    return address;
  }

  /** Makes room again. */
  clear(): void {
    this.#used = this.#begin;
  }
}
