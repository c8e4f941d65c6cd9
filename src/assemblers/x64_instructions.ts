/**
 * The vector instructions in use, by the shape of their operands: what an encoder must know of each.
 *
 * All take 32-bit elements or whole registers (W = 0). 128- and 256-bit forms are encoded as VEX, 512-bit forms and
 * registers from 16 on as EVEX. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
 * @module
 */

/** One instruction: prefix, map and opcode byte as the manual writes them, and the widths in use. */
export interface VectorInstruction {
  /** Which escape the opcode follows: 1 is 0F, 2 is 0F 38, 3 is 0F 3A. */
  readonly map: 1 | 2 | 3;
  /** The implied legacy prefix: 0 is none, 1 is 66, 2 is F3. */
  readonly prefix: 0 | 1 | 2;
  readonly opcode: number;
  /** Widths of the destination. */
  readonly widths: readonly (128 | 256 | 512)[];
  /** Bytes of its memory operand when that is not a whole vector. AVX-512 scales short displacements by it. */
  readonly memoryBytes?: number;
  /** Its memory operand cannot be one element used in every lane, which other AVX-512 forms allow. */
  readonly wholeVector?: boolean;
}

/** A shift by a constant: the opcode goes on in the register field of ModRM. */
export interface ShiftInstruction extends VectorInstruction {
  readonly extension: number;
}

const avx = [256] as const;
const avx512 = [512] as const;
const both = [256, 512] as const;

type Encoding = readonly [prefix: "" | "66" | "F3", escape: "0F" | "0F38" | "0F3A", opcode: number];

function instruction(
  [prefix, escape, opcode]: Encoding,
  widths: VectorInstruction["widths"],
  rest: Partial<VectorInstruction> = {},
): VectorInstruction {
  return {
    prefix: prefix === "" ? 0 : prefix === "66" ? 1 : 2,
    map: escape === "0F" ? 1 : escape === "0F38" ? 2 : 3,
    opcode,
    widths,
    ...rest,
  };
}

/** d = instruction(a, b); b may be memory. */
export const threeOperand = {
  vaddps: instruction(["", "0F", 0x58], both),
  vsubps: instruction(["", "0F", 0x5c], both),
  vmulps: instruction(["", "0F", 0x59], both),
  vdivps: instruction(["", "0F", 0x5e], both),
  vminps: instruction(["", "0F", 0x5d], both),
  vmaxps: instruction(["", "0F", 0x5f], both),
  /** d += a · b */
  vfmadd231ps: instruction(["66", "0F38", 0xb8], both),
  /** d −= a · b */
  vfnmadd231ps: instruction(["66", "0F38", 0xbc], both),
  /** In each group of four lanes: a0 b0 a1 b1. */
  vunpcklps: instruction(["", "0F", 0x14], both),
  /** In each group of four lanes: a2 b2 a3 b3. */
  vunpckhps: instruction(["", "0F", 0x15], both),
  vpaddd: instruction(["66", "0F", 0xfe], both),
  vpsubd: instruction(["66", "0F", 0xfa], both),
  vpmulld: instruction(["66", "0F38", 0x40], both),
  /** Adds products of signed 16-bit neighbours. */
  vpmaddwd: instruction(["66", "0F", 0xf5], both, { wholeVector: true }),
  /** d += dot products of 4 unsigned bytes of a and 4 signed bytes of b (AVX-512 VNNI, AVX-VNNI). */
  vpdpbusd: instruction(["66", "0F38", 0x50], both),
  vpand: instruction(["66", "0F", 0xdb], avx),
  vpor: instruction(["66", "0F", 0xeb], avx),
  vpxor: instruction(["66", "0F", 0xef], avx),
  vpandd: instruction(["66", "0F", 0xdb], avx512),
  vpord: instruction(["66", "0F", 0xeb], avx512),
  vpxord: instruction(["66", "0F", 0xef], avx512),
  vpcmpgtd: instruction(["66", "0F", 0x66], avx),
  /** d = the lanes of b where the mask is set, else of a. */
  vblendmps: instruction(["66", "0F38", 0x65], avx512),
} as const satisfies Record<string, VectorInstruction>;

/** d = instruction(a); a may be memory. */
export const twoOperand = {
  vmovaps: instruction(["", "0F", 0x28], both, { wholeVector: true }),
  vsqrtps: instruction(["", "0F", 0x51], both),
  vcvtdq2ps: instruction(["", "0F", 0x5b], both),
  vcvtps2dq: instruction(["66", "0F", 0x5b], both),
} as const satisfies Record<string, VectorInstruction>;

/** d = memory */
export const loads = {
  vmovups: instruction(["", "0F", 0x10], both, { wholeVector: true }),
  vbroadcastss: instruction(["66", "0F38", 0x18], both, { memoryBytes: 4 }),
} as const satisfies Record<string, VectorInstruction>;

/** memory = a */
export const stores = {
  vmovups: instruction(["", "0F", 0x11], both, { wholeVector: true }),
  vmovss: instruction(["F3", "0F", 0x11], [128], { memoryBytes: 4 }),
} as const satisfies Record<string, VectorInstruction>;

/** d = instruction(a, immediate byte) */
export const twoOperandImmediate = {
  vpermilps: instruction(["66", "0F3A", 0x04], both),
} as const satisfies Record<string, VectorInstruction>;

/** d = instruction(a, b, immediate byte); b may be memory. */
export const threeOperandImmediate = {
  vperm2f128: instruction(["66", "0F3A", 0x06], avx),
  /** In each group of four lanes: two lanes of a, then two of b. */
  vshufps: instruction(["", "0F", 0xc6], both),
  vshuff32x4: instruction(["66", "0F3A", 0x23], avx512),
  vcmpps: instruction(["", "0F", 0xc2], avx),
} as const satisfies Record<string, VectorInstruction>;

/** memory = the group of four lanes of a with the number in the immediate byte */
export const groupStores = {
  vextractf128: instruction(["66", "0F3A", 0x19], avx, { memoryBytes: 16 }),
  vextractf32x4: instruction(["66", "0F3A", 0x19], avx512, { memoryBytes: 16 }),
} as const satisfies Record<string, VectorInstruction>;

/** d = a shifted by a number of bits */
export const shifts = {
  vpslld: { ...instruction(["66", "0F", 0x72], both), extension: 6 },
  vpsrld: { ...instruction(["66", "0F", 0x72], both), extension: 2 },
  vpsllw: { ...instruction(["66", "0F", 0x71], both), extension: 6 },
  vpsraw: { ...instruction(["66", "0F", 0x71], both), extension: 4 },
  vpsrlw: { ...instruction(["66", "0F", 0x71], both), extension: 2 },
} as const satisfies Record<string, ShiftInstruction>;

/** Instructions whose operands have a shape of their own; the encoder has a method for each. */
export const others = {
  /** Mask register = comparison of two vectors. */
  vcmpps: instruction(["", "0F", 0xc2], avx512),
  vblendvps: instruction(["66", "0F3A", 0x4a], avx),
  vmaskmovpsLoad: instruction(["66", "0F38", 0x2c], avx),
  vmaskmovpsStore: instruction(["66", "0F38", 0x2e], avx),
  vmovd: instruction(["66", "0F", 0x6e], [128]),
  /** Every lane = lane 0 of a 128-bit register. */
  vpbroadcastdLane: instruction(["66", "0F38", 0x58], avx),
  /** Every lane = a general-purpose register. */
  vpbroadcastdGpr: instruction(["66", "0F38", 0x7c], avx512),
  kmovw: instruction(["", "0F", 0x92], [128]),
  bzhi: instruction(["", "0F38", 0xf5], [128]),
} as const satisfies Record<string, VectorInstruction>;
