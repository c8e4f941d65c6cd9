/**
 * What x86-64 instructions operate on: general-purpose, vector and mask registers, and memory.
 * @module
 */

/** A 64-bit general-purpose register; 32-bit instructions use its low half. */
export interface Gpr {
  /** Tells operands apart. */
  readonly kind: "gpr";
  /** 0 to 15, as encoded. */
  readonly number: number;
}

/** A vector register at one of its widths. */
export interface VectorRegister {
  /** Tells operands apart. */
  readonly kind: "vector register";
  /** 0 to 31, as encoded. Only AVX-512 has 16 and above. */
  readonly number: number;
  /** 128 (xmm), 256 (ymm) or 512 (zmm). */
  readonly bits: 128 | 256 | 512;
}

/** An AVX-512 mask register. */
export interface MaskRegister {
  /** Tells operands apart. */
  readonly kind: "mask register";
  /** 0 to 7, as encoded. 0 means "no mask" where it guards an instruction. */
  readonly number: number;
}

/** Memory at base + index + displacement. */
export interface Memory {
  /** Tells operands apart. */
  readonly kind: "memory";
  /** Register that is added. */
  readonly base: Gpr;
  /** Another register that is added. Any but rsp. */
  readonly index?: Gpr;
  /** Signed 32-bit number of bytes that is added. */
  readonly displacement: number;
  /** The instruction reads one 32-bit element and uses it in every lane (AVX-512). */
  readonly broadcast?: boolean;
}

/** Where an image keeps what code refers to by name: read-only constants, or writable data. */
export type ImageSection = "constants" | "data";

/** Memory in another section of the image, addressed relative to the instruction. */
export interface ImageMemory {
  /** Tells operands apart. */
  readonly kind: "image memory";
  /** Where it lies. */
  readonly section: ImageSection;
  /** Bytes from the start of the section. */
  readonly offset: number;
  /** As in `Memory`. */
  readonly broadcast?: boolean;
}

/** Either kind of memory operand. */
export type AnyMemory = Memory | ImageMemory;

/** Names of the general-purpose registers, in the order of their numbers. */
export const gprNames = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** The general-purpose registers, in the order of their numbers. */
export const gprs: readonly Gpr[] = gprNames.map((_, number) => ({ kind: "gpr", number }));

/** The general-purpose registers by name. */
export const gpr: Readonly<Record<typeof gprNames[number], Gpr>> = Object.fromEntries(
  gprNames.map((name, number) => [name, gprs[number]]),
) as Record<typeof gprNames[number], Gpr>;

const vectorRegisters = ([128, 256, 512] as const).map((bits) =>
  Array.from({ length: 32 }, (_, number): VectorRegister => ({ kind: "vector register", number, bits }))
);

/** The 128-bit register of that number. */
export function xmm(number: number): VectorRegister {
  return vectorRegister(0, number);
}

/** The 256-bit register of that number. */
export function ymm(number: number): VectorRegister {
  return vectorRegister(1, number);
}

/** The 512-bit register of that number. */
export function zmm(number: number): VectorRegister {
  return vectorRegister(2, number);
}

function vectorRegister(width: number, number: number): VectorRegister {
  const register = vectorRegisters[width][number];
  if (!register) throw new RangeError(`No vector register ${number}: wanted 0 to 31`);
  return register;
}

/** The mask register of that number. */
export function mask(number: number): MaskRegister {
  if (!Number.isInteger(number) || number < 0 || number > 7) {
    throw new RangeError(`No mask register ${number}: wanted 0 to 7`);
  }
  return { kind: "mask register", number };
}

/** Memory at base + displacement. */
export function at(base: Gpr, displacement = 0): Memory {
  return { kind: "memory", base, displacement };
}
