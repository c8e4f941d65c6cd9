/**
 * Kernels as x86-64 code: AVX-512 (16 lanes, 32 registers) or AVX2 with FMA (8 lanes, 16 registers).
 *
 * Each kernel becomes a function of the System V convention that takes the byte offset of its argument words in the
 * arena. Integers are 64-bit registers and pointers absolute addresses: the arena's own address lies in the image's
 * data, where `bind` puts it once.
 *
 * Emission is pure: the same kernels in the same order give the same bytes.
 * @module
 */
import type { Kernel } from "../kernels/kernel.ts";
import { Avx2Emitter } from "./x64_avx2.ts";
import { Avx512Emitter } from "./x64_avx512.ts";
import { X64ConstantPool } from "./x64_constants.ts";
import { arenaSlot, type X64Emitter } from "./x64_emitter.ts";
import { type Fixup, X64Encoder } from "./x64_encoder.ts";
import { gpr } from "./x64_operands.ts";

/** The instruction sets there is an emitter for. */
export type X64Isa = "avx512" | "avx2";

/** How to assemble. */
export interface X64Options {
  /** Instruction set. */
  readonly isa: X64Isa;
  /** The processor multiplies bytes in one instruction: AVX-512 VNNI, or AVX-VNNI beside AVX2. */
  readonly vnni: boolean;
}

/** What a kernel may count on in vectors of an instruction set. */
export const x64Vectors: Readonly<
  Record<X64Isa, { readonly lanes: number; readonly vectorRegisters: number }>
> = {
  avx512: { lanes: 16, vectorRegisters: 32 },
  avx2: { lanes: 8, vectorRegisters: 16 },
};

/** A function in the text of an image. */
export interface X64Symbol {
  /** The kernel's key, or `bindSymbol`. */
  readonly name: string;
  /** Bytes from the start of the text. */
  readonly offset: number;
  /** Length of its code. */
  readonly byteLength: number;
}

/** Assembled functions and what they refer to, not yet placed in memory. */
export interface X64Code {
  /** The functions' instructions. */
  readonly text: Uint8Array<ArrayBuffer>;
  /** The functions, in order of position. */
  readonly symbols: readonly X64Symbol[];
  /** Positions and ends count from the start of the text. */
  readonly fixups: readonly Fixup[];
  /** Read-only data. */
  readonly constants: Uint8Array<ArrayBuffer>;
  /** Bytes of writable data, zero at first. */
  readonly dataBytes: number;
}

/** Exported function `(arena: pointer) → pointer`: stores the arena's address and gives the one stored before. */
export const bindSymbol = "lacuna.bind";

/** Loops start at a multiple of this, so that their first instructions are fetched in one piece. */
const textAlignment = 64;

/** The arena's address is all there is. */
const dataBytes = 8;

/**
 * Assembles kernels into the code of one image: a function per key, in order of appearance, and `bindSymbol`. Kernels
 * that share a key must be the same code. Throws a TypeError that names the kernel when one breaks a rule of the
 * vector machine.
 */
export function assembleX64(kernels: readonly Kernel[], options: X64Options): X64Code {
  const constants = new X64ConstantPool();
  const text = new TextWriter();
  const bind = new X64Encoder();
  bind.load64(gpr.rax, arenaSlot);
  bind.store64(arenaSlot, gpr.rdi);
  bind.ret();
  text.add(bindSymbol, [bind]);
  const emitted = new Map<string, X64Emitter>();
  for (const kernel of new Set(kernels)) {
    const emitter = assembleKernel(kernel, options, constants);
    const known = emitted.get(kernel.key);
    if (known && !known.equals(emitter)) {
      throw new TypeError(`Cannot assemble ${kernel.key}: two different kernels have this key`);
    }
    if (known) continue;
    emitted.set(kernel.key, emitter);
    text.add(kernel.key, [emitter.prologue, emitter.body]);
  }
  return { ...text.finish(), constants: constants.bytes, dataBytes };
}

function assembleKernel(kernel: Kernel, { isa, vnni }: X64Options, constants: X64ConstantPool): X64Emitter {
  if (!/^[A-Za-z_]\w*$/.test(kernel.key)) {
    throw new TypeError(`Cannot assemble kernel "${kernel.key}": wanted an identifier as its key`);
  }
  const emitter = isa === "avx512"
    ? new Avx512Emitter(kernel, constants, vnni)
    : new Avx2Emitter(kernel, constants, vnni);
  kernel.emit(emitter, emitter.argumentReader);
  emitter.finish();
  return emitter;
}

/** Lays functions out one after another. The last part of each, its body, begins at the alignment. */
class TextWriter {
  readonly #parts: { readonly offset: number; readonly code: Uint8Array }[] = [];
  readonly #symbols: X64Symbol[] = [];
  readonly #fixups: Fixup[] = [];
  #length = 0;

  add(name: string, parts: readonly X64Encoder[]): void {
    const body = parts.at(-1)!;
    const lead = parts.reduce((sum, part) => sum + part.length, 0) - body.length;
    const start = Math.ceil((this.#length + lead) / textAlignment) * textAlignment - lead;
    let offset = start;
    for (const part of parts) {
      this.#parts.push({ offset, code: part.finish() });
      for (const fixup of part.fixups) {
        this.#fixups.push({ ...fixup, position: offset + fixup.position, end: offset + fixup.end });
      }
      offset += part.length;
    }
    this.#symbols.push({ name, offset: start, byteLength: offset - start });
    this.#length = offset;
  }

  finish(): Pick<X64Code, "text" | "symbols" | "fixups"> {
    // Between functions lies int3: running off an end traps.
    const text = new Uint8Array(this.#length).fill(0xcc);
    for (const { offset, code } of this.#parts) text.set(code, offset);
    return { text, symbols: this.#symbols, fixups: this.#fixups };
  }
}
