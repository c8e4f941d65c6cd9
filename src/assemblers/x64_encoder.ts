/**
 * x86-64 instructions as bytes: the general-purpose ones kernels need, and AVX2, FMA and AVX-512 in VEX and EVEX form.
 *
 * One method per operand shape; the mnemonics of a shape are a table in `x64_instructions.ts`. Every operand is
 * checked, and a combination that has no encoding throws a TypeError. The bytes are those GNU `as` gives for the same
 * text (`tools/x64_golden.ts`), so the shortest form wherever there is a choice.
 * @module
 */
import {
  groupStores,
  loads,
  others,
  shifts,
  stores,
  threeOperand,
  threeOperandImmediate,
  twoOperand,
  twoOperandImmediate,
  type VectorInstruction,
} from "./x64_instructions.ts";
import type { AnyMemory, Gpr, ImageSection, MaskRegister, VectorRegister } from "./x64_operands.ts";

/** Arithmetic of two general-purpose registers, or of one and a constant. */
export const arithmetic = { add: 0, and: 4, sub: 5, xor: 6, cmp: 7 } as const;

/** When a jump is taken, signed comparisons, by the number in its opcode. */
export const conditions = {
  equal: 4,
  notEqual: 5,
  less: 12,
  greaterOrEqual: 13,
  lessOrEqual: 14,
  greater: 15,
} as const;

/** When a jump is taken. */
export type Condition = keyof typeof conditions;

/** A place in the code that jumps name before or after it is known. */
export interface Label {
  /** Bytes from the start of the code; absent until bound. */
  position?: number;
}

/** Four bytes that hold the distance to memory in another section, known when the image is laid out. */
export interface Fixup {
  /** Where the bytes are in the code. */
  readonly position: number;
  /** End of the instruction they belong to: distances count from there. */
  readonly end: number;
  /** The section the distance leads to. */
  readonly section: ImageSection;
  /** Bytes from the start of that section. */
  readonly offset: number;
}

/** Lanes an AVX-512 instruction touches; the others are kept, or zeroed. */
export interface Masking {
  /** The lanes to touch. */
  readonly mask: MaskRegister;
  /** Zero the lanes not in the mask: for registers only. */
  readonly zeroing?: boolean;
}

/** The parts of a VEX or EVEX instruction. */
interface VectorFields {
  readonly name: string;
  readonly instruction: VectorInstruction;
  readonly bits: 128 | 256 | 512;
  /** ModRM.reg */
  readonly register: number;
  /** VEX.vvvv */
  readonly second: number;
  readonly last: VectorRegister | Gpr | AnyMemory;
  readonly masking?: Masking;
  readonly immediate?: number;
}

/** Longest instructions that do nothing, by length: the forms Intel recommends. */
// deno-fmt-ignore
const nops: readonly (readonly number[])[] = [
  [], [0x90], [0x66, 0x90], [0x0f, 0x1f, 0x00], [0x0f, 0x1f, 0x40, 0x00], [0x0f, 0x1f, 0x44, 0x00, 0x00],
  [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00], [0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
  [0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00], [0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

const stackPointer = 4;

/** Appends instructions to code that may be placed anywhere. */
export class X64Encoder {
  #bytes = new Uint8Array(256);
  #length = 0;
  readonly #fixups: Fixup[] = [];
  readonly #jumps: { readonly position: number; readonly label: Label }[] = [];

  /** Bytes so far. */
  get length(): number {
    return this.#length;
  }

  /** Distances to other sections that the image must fill in. */
  get fixups(): readonly Fixup[] {
    return this.#fixups;
  }

  /** The finished code. Throws when a jump names a label that was never bound. */
  finish(): Uint8Array<ArrayBuffer> {
    const code = this.#bytes.slice(0, this.#length);
    const view = new DataView(code.buffer);
    for (const { position, label } of this.#jumps) {
      if (label.position === undefined) {
        throw new TypeError("Cannot encode a jump: its label was never bound");
      }
      view.setInt32(position, label.position - (position + 4), true);
    }
    return code;
  }

  // Places ----------------------------------------------------------------------------------------------

  /** Binds a label to the end of the code so far. */
  bind(label: Label): void {
    if (label.position !== undefined) throw new TypeError("Cannot bind a label twice");
    label.position = this.#length;
  }

  /** Pads with instructions that do nothing until the length is a multiple of `boundary`. */
  align(boundary: number): void {
    let missing = (boundary - this.#length % boundary) % boundary;
    while (missing > 0) {
      const count = Math.min(missing, nops.length - 1);
      this.#append(...nops[count]);
      missing -= count;
    }
  }

  /** Jumps to a label, if the condition holds. Backward jumps take the short form where it reaches. */
  jump(label: Label, condition?: Condition): void {
    const distance = label.position === undefined ? undefined : label.position - (this.#length + 2);
    if (distance !== undefined && distance >= -128) {
      this.#append(condition === undefined ? 0xeb : 0x70 + conditions[condition], distance);
      return;
    }
    if (condition === undefined) this.#append(0xe9);
    else this.#append(0x0f, 0x80 + conditions[condition]);
    this.#jumps.push({ position: this.#length, label });
    this.#append32(0);
  }

  /** Returns to the caller. */
  ret(): void {
    this.#append(0xc3);
  }

  // General-purpose registers ---------------------------------------------------------------------------

  /** d = a */
  mov(d: Gpr, a: Gpr): void {
    this.#general(true, [0x89], a.number, d);
  }

  /** d = a, the low 32 bits; zero above */
  mov32(d: Gpr, a: Gpr): void {
    this.#general(false, [0x89], a.number, d);
  }

  /** d = value, a signed 32-bit number */
  movImmediate(d: Gpr, value: number): void {
    this.#checkImmediate("mov", value);
    this.#checkGpr("mov", d);
    if (value === 0) return this.#general(false, [0x31], d.number, d);
    if (value < 0) {
      this.#general(true, [0xc7], 0, d, 4);
    } else {
      if (d.number >= 8) this.#append(0x41);
      this.#append(0xb8 + (d.number & 7));
    }
    this.#append32(value);
  }

  /** d = 64 bits of memory */
  load64(d: Gpr, memory: AnyMemory): void {
    this.#general(true, [0x8b], d.number, memory);
  }

  /** d = 32 bits of memory, zero above */
  load32(d: Gpr, memory: AnyMemory): void {
    this.#general(false, [0x8b], d.number, memory);
  }

  /** d = 32 bits of memory, sign-extended */
  load32Signed(d: Gpr, memory: AnyMemory): void {
    this.#general(true, [0x63], d.number, memory);
  }

  /** d = 16 bits of memory, zero above */
  load16(d: Gpr, memory: AnyMemory): void {
    this.#general(false, [0x0f, 0xb7], d.number, memory);
  }

  /** Memory = 64 bits of a */
  store64(memory: AnyMemory, a: Gpr): void {
    this.#general(true, [0x89], a.number, memory);
  }

  /** Memory = the low 32 bits of a */
  store32(memory: AnyMemory, a: Gpr): void {
    this.#general(false, [0x89], a.number, memory);
  }

  /** Brings the cache line at memory into all levels of the cache. */
  prefetcht0(memory: AnyMemory): void {
    this.#general(false, [0x0f, 0x18], 1, memory);
  }

  /** d = address of memory */
  lea(d: Gpr, memory: AnyMemory): void {
    this.#general(true, [0x8d], d.number, memory);
  }

  /** d = d + b, d & b, d − b, d ^ b, or a comparison of d with b; b may be a signed 32-bit number. */
  arithmetic(name: keyof typeof arithmetic, d: Gpr, b: Gpr | AnyMemory | number): void {
    const operation = arithmetic[name];
    if (typeof b !== "number") {
      if (b.kind === "gpr") this.#general(true, [0x01 + 8 * operation], b.number, d);
      else this.#general(true, [0x03 + 8 * operation], d.number, b);
      return;
    }
    this.#checkImmediate(name, b);
    if (b >= -128 && b < 128) {
      this.#general(true, [0x83], operation, d, 1);
      this.#append(b);
    } else {
      if (d.number === 0) this.#append(0x48, 0x05 + 8 * operation);
      else this.#general(true, [0x81], operation, d, 4);
      this.#append32(b);
    }
  }

  /** Compares a with 0. */
  test(a: Gpr): void {
    this.#general(true, [0x85], a.number, a);
  }

  /** d = d · b */
  imul(d: Gpr, b: Gpr): void {
    this.#general(true, [0x0f, 0xaf], d.number, b);
  }

  /** d = a · value, a signed 32-bit number */
  imulImmediate(d: Gpr, a: Gpr, value: number): void {
    this.#checkImmediate("imul", value);
    const short = value >= -128 && value < 128;
    this.#general(true, [short ? 0x6b : 0x69], d.number, a, short ? 1 : 4);
    if (short) this.#append(value);
    else this.#append32(value);
  }

  /** d = d shifted left, or right without its sign, by 1 to 63 bits */
  shift(name: "shl" | "shr", d: Gpr, bits: number): void {
    if (!Number.isInteger(bits) || bits < 1 || bits > 63) this.#fail(name, `${bits} bits, wanted 1 to 63`);
    const extension = name === "shl" ? 4 : 5;
    if (bits === 1) return this.#general(true, [0xd1], extension, d);
    this.#general(true, [0xc1], extension, d, 1);
    this.#append(bits);
  }

  /** Saves a register on the stack. */
  push(a: Gpr): void {
    this.#checkGpr("push", a);
    if (a.number >= 8) this.#append(0x41);
    this.#append(0x50 + (a.number & 7));
  }

  /** Restores a register from the stack. */
  pop(d: Gpr): void {
    this.#checkGpr("pop", d);
    if (d.number >= 8) this.#append(0x41);
    this.#append(0x58 + (d.number & 7));
  }

  /** eax, ebx, ecx, edx = what the processor says about leaf eax, subleaf ecx */
  cpuid(): void {
    this.#append(0x0f, 0xa2);
  }

  /** edx:eax = the extended control register that ecx names */
  xgetbv(): void {
    this.#append(0x0f, 0x01, 0xd0);
  }

  /** d = the lowest `count` bits of a, 32 bits wide (BMI2) */
  bzhi(d: Gpr, a: Gpr, count: Gpr): void {
    this.#checkGpr("bzhi", d);
    this.#checkGpr("bzhi", count);
    this.#vector({
      name: "bzhi",
      instruction: others.bzhi,
      bits: 128,
      register: d.number,
      second: count.number,
      last: a,
    });
  }

  // Vectors ---------------------------------------------------------------------------------------------

  /** d = instruction(a, b) */
  three(
    name: keyof typeof threeOperand,
    d: VectorRegister,
    a: VectorRegister,
    b: VectorRegister | AnyMemory,
    masking?: Masking,
  ): void {
    this.#registers(name, threeOperand[name], d, a, b, { masking });
  }

  /** d = instruction(a) */
  two(name: keyof typeof twoOperand, d: VectorRegister, a: VectorRegister | AnyMemory): void {
    // The move has two opcodes. The other one saves a byte when only the source is a register above 7.
    if (
      name === "vmovaps" && d.bits !== 512 && d.number < 8 && a.kind === "vector register" && a.number >= 8
    ) {
      return this.#registers(name, { ...twoOperand.vmovaps, opcode: 0x29 }, a, undefined, d);
    }
    this.#registers(name, twoOperand[name], d, undefined, a);
  }

  /** d = memory */
  load(name: keyof typeof loads, d: VectorRegister, memory: AnyMemory, masking?: Masking): void {
    this.#registers(name, loads[name], d, undefined, memory, { masking });
  }

  /** memory = a */
  store(name: keyof typeof stores, memory: AnyMemory, a: VectorRegister, masking?: Masking): void {
    if (masking?.zeroing) this.#fail(name, "memory cannot be masked with zeroing");
    this.#registers(name, stores[name], a, undefined, memory, { masking });
  }

  /** memory = group number `group` of a */
  storeGroup(name: keyof typeof groupStores, memory: AnyMemory, a: VectorRegister, group: number): void {
    this.#registers(name, groupStores[name], a, undefined, memory, { immediate: group });
  }

  /** d = instruction(a, immediate) */
  twoImmediate(
    name: keyof typeof twoOperandImmediate,
    d: VectorRegister,
    a: VectorRegister | AnyMemory,
    immediate: number,
  ): void {
    this.#registers(name, twoOperandImmediate[name], d, undefined, a, { immediate });
  }

  /** d = instruction(a, b, immediate) */
  threeImmediate(
    name: keyof typeof threeOperandImmediate,
    d: VectorRegister,
    a: VectorRegister,
    b: VectorRegister | AnyMemory,
    immediate: number,
  ): void {
    this.#registers(name, threeOperandImmediate[name], d, a, b, { immediate });
  }

  /** d = a shifted by bits, 0 to 255 */
  shiftVector(name: keyof typeof shifts, d: VectorRegister, a: VectorRegister, bits: number): void {
    const instruction = shifts[name];
    this.#checkWidths(name, instruction, d, a);
    this.#vector({
      name,
      instruction,
      bits: d.bits,
      register: instruction.extension,
      second: d.number,
      last: a,
      immediate: bits,
    });
  }

  /** d = the lanes where comparison number `immediate` of a with b holds */
  compareToMask(d: MaskRegister, a: VectorRegister, b: VectorRegister | AnyMemory, immediate: number): void {
    this.#checkWidths("vcmpps", others.vcmpps, a, b);
    this.#vector({
      name: "vcmpps",
      instruction: others.vcmpps,
      bits: a.bits,
      register: d.number,
      second: a.number,
      last: b,
      immediate,
    });
  }

  /** d = the lanes of b where the sign of selector is set, else of a */
  vblendvps(
    d: VectorRegister,
    a: VectorRegister,
    b: VectorRegister | AnyMemory,
    selector: VectorRegister,
  ): void {
    this.#checkWidths("vblendvps", others.vblendvps, d, selector);
    if (selector.number > 15) this.#fail("vblendvps", "needs AVX-512, which has no such form");
    this.#registers("vblendvps", others.vblendvps, d, a, b, { immediate: selector.number << 4 });
  }

  /** d = memory where the sign of selector is set, else 0; no other byte is touched */
  vmaskmovpsLoad(d: VectorRegister, selector: VectorRegister, memory: AnyMemory): void {
    this.#registers("vmaskmovps", others.vmaskmovpsLoad, d, selector, memory);
  }

  /** memory = a where the sign of selector is set; no other byte is touched */
  vmaskmovpsStore(memory: AnyMemory, selector: VectorRegister, a: VectorRegister): void {
    this.#registers("vmaskmovps", others.vmaskmovpsStore, a, selector, memory);
  }

  /** Lane 0 of d = the low 32 bits of a; 0 in the others. */
  vmovd(d: VectorRegister, a: Gpr): void {
    this.#checkWidths("vmovd", others.vmovd, d);
    this.#vector({
      name: "vmovd",
      instruction: others.vmovd,
      bits: 128,
      register: d.number,
      second: 0,
      last: a,
    });
  }

  /** Every lane of d = lane 0 of a, a 128-bit register. */
  vpbroadcastdLane(d: VectorRegister, a: VectorRegister): void {
    const instruction = others.vpbroadcastdLane;
    this.#checkWidths("vpbroadcastd", instruction, d);
    if (a.bits !== 128) this.#fail("vpbroadcastd", `a source of ${a.bits} bits, wanted 128`);
    this.#vector({ name: "vpbroadcastd", instruction, bits: d.bits, register: d.number, second: 0, last: a });
  }

  /** Every lane of d = the low 32 bits of a. */
  vpbroadcastdGpr(d: VectorRegister, a: Gpr): void {
    const instruction = others.vpbroadcastdGpr;
    this.#checkWidths("vpbroadcastd", instruction, d);
    this.#vector({ name: "vpbroadcastd", instruction, bits: d.bits, register: d.number, second: 0, last: a });
  }

  /** d = the low 16 bits of a */
  kmovw(d: MaskRegister, a: Gpr): void {
    this.#vector({
      name: "kmovw",
      instruction: others.kmovw,
      bits: 128,
      register: d.number,
      second: 0,
      last: a,
    });
  }

  /** Zeroes the upper parts of all vector registers, so that SSE code of the caller runs at full speed. */
  vzeroupper(): void {
    this.#append(0xc5, 0xf8, 0x77);
  }

  // Encoding --------------------------------------------------------------------------------------------

  #fail(name: string, problem: string): never {
    throw new TypeError(`Cannot encode ${name}: ${problem}`);
  }

  #append(...bytes: readonly number[]): void {
    if (this.#length + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(2 * this.#bytes.length + bytes.length);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    for (const byte of bytes) this.#bytes[this.#length++] = byte;
  }

  #append32(value: number): void {
    this.#append(value, value >> 8, value >> 16, value >> 24);
  }

  #checkImmediate(name: string, value: number): void {
    if (value !== (value | 0)) this.#fail(name, `constant ${value} is not a signed 32-bit integer`);
  }

  #checkGpr(name: string, operand: { readonly kind: string }): void {
    if (operand.kind !== "gpr") {
      this.#fail(name, `a ${operand.kind} where a general-purpose register belongs`);
    }
  }

  #checkWidths(
    name: string,
    instruction: VectorInstruction,
    first: VectorRegister,
    ...rest: readonly (VectorRegister | AnyMemory | undefined)[]
  ): void {
    if (!instruction.widths.includes(first.bits)) {
      this.#fail(name, `registers of ${first.bits} bits, wanted ${instruction.widths.join(" or ")}`);
    }
    for (const operand of rest) {
      if (operand?.kind === "vector register" && operand.bits !== first.bits) {
        this.#fail(name, `registers of ${first.bits} and ${operand.bits} bits`);
      }
    }
  }

  /** A vector instruction whose operands are registers of one width, the last perhaps memory. */
  #registers(
    name: string,
    instruction: VectorInstruction,
    d: VectorRegister,
    a: VectorRegister | undefined,
    b: VectorRegister | AnyMemory,
    rest: { readonly masking?: Masking; readonly immediate?: number } = {},
  ): void {
    this.#checkWidths(name, instruction, d, a, b);
    this.#vector({
      name,
      instruction,
      bits: d.bits,
      register: d.number,
      second: a?.number ?? 0,
      last: b,
      ...rest,
    });
  }

  #vector(fields: VectorFields): void {
    const { name, instruction, bits, masking, immediate, last } = fields;
    if (immediate !== undefined && !(Number.isInteger(immediate) && immediate >= 0 && immediate < 256)) {
      this.#fail(name, `immediate ${immediate}, wanted a byte`);
    }
    const lastHigh = last.kind === "vector register" ? last.number >> 4 : 0;
    const hasHighRegister = (fields.register | fields.second) > 15 || lastHigh > 0;
    // 256-bit code is for processors without AVX-512; single elements may live in any register of those with it.
    const isExtended = bits === 512 || (bits === 128 && hasHighRegister);
    const broadcast = last.kind !== "gpr" && last.kind !== "vector register" && last.broadcast === true;
    if (!isExtended) {
      if (hasHighRegister) this.#fail(name, `registers above 15 need 512 bits`);
      if (masking) this.#fail(name, `masks need 512 bits`);
      if (broadcast) this.#fail(name, `a broadcast operand needs 512 bits`);
    }
    if (broadcast && (instruction.wholeVector || instruction.memoryBytes !== undefined)) {
      this.#fail(name, "has no form with a broadcast operand");
    }
    if (masking?.mask.number === 0) this.#fail(name, "mask register 0 means no mask");

    const [x, b] = extensionBits(last);
    const r = fields.register >> 3 & 1;
    const immediateBytes = immediate === undefined ? 0 : 1;
    if (isExtended) {
      const inverted = (bit: number, position: number) => (bit ^ 1) << position;
      this.#append(
        0x62,
        inverted(r, 7) | inverted(x | lastHigh, 6) | inverted(b, 5) | inverted(fields.register >> 4, 4) |
          instruction.map,
        (~fields.second & 15) << 3 | 4 | instruction.prefix,
        (masking?.zeroing ? 0x80 : 0) | (bits === 512 ? 2 : 0) << 5 | (broadcast ? 0x10 : 0) |
          inverted(fields.second >> 4, 3) | (masking?.mask.number ?? 0),
      );
    } else {
      const tail = (~fields.second & 15) << 3 | (bits === 256 ? 4 : 0) | instruction.prefix;
      if (instruction.map === 1 && !x && !b) this.#append(0xc5, (r ^ 1) << 7 | tail);
      else this.#append(0xc4, (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | instruction.map, tail);
    }
    this.#append(instruction.opcode);
    const unit = !isExtended ? 1 : broadcast ? 4 : instruction.memoryBytes ?? bits / 8;
    this.#operand(name, fields.register, last, unit, immediateBytes);
    if (immediate !== undefined) this.#append(immediate);
  }

  /** A general-purpose instruction: prefix, opcode, operands. */
  #general(
    wide: boolean,
    opcode: readonly number[],
    register: number,
    last: Gpr | AnyMemory,
    immediateBytes = 0,
  ): void {
    const [x, b] = extensionBits(last);
    const prefix = (wide ? 8 : 0) | (register >> 3) << 2 | x << 1 | b;
    if (prefix !== 0) this.#append(0x40 | prefix);
    this.#append(...opcode);
    this.#operand("instruction", register, last, 1, immediateBytes);
  }

  /**
   * ModRM and what follows. Displacements that are a multiple of `unit` and reach within 127 units take one byte; the
   * unit is 1 but for EVEX, where it is the size of what the instruction reads (disp8·N in the manual).
   */
  #operand(
    name: string,
    register: number,
    last: VectorRegister | Gpr | AnyMemory,
    unit: number,
    immediateBytes: number,
  ): void {
    const middle = (register & 7) << 3;
    if (last.kind === "gpr" || last.kind === "vector register") {
      this.#append(0xc0 | middle | last.number & 7);
      return;
    }
    if (last.kind === "image memory") {
      this.#append(middle | 5);
      const position = this.#length;
      this.#fixups.push({
        position,
        end: position + 4 + immediateBytes,
        section: last.section,
        offset: last.offset,
      });
      this.#append32(0);
      return;
    }
    const { base, index, displacement } = last;
    this.#checkGpr(name, base);
    this.#checkImmediate(name, displacement);
    if (index?.number === stackPointer) this.#fail(name, "the stack pointer cannot be an index");
    const low = base.number & 7;
    const units = displacement / unit;
    const isShort = Number.isInteger(units) && units >= -128 && units < 128;
    // Base rbp or r13 without a displacement would mean something else.
    const mode = displacement === 0 && low !== 5 ? 0 : isShort ? 1 : 2;
    if (index) this.#append(mode << 6 | middle | 4, (index.number & 7) << 3 | low);
    else if (low === stackPointer) this.#append(mode << 6 | middle | 4, 0x24);
    else this.#append(mode << 6 | middle | low);
    if (mode === 1) this.#append(units);
    if (mode === 2) this.#append32(displacement);
  }
}

/** The bits that make registers 8 to 15 of the last operand's index and base (or of the register itself). */
function extensionBits(last: VectorRegister | Gpr | AnyMemory): [x: number, b: number] {
  if (last.kind === "image memory") return [0, 0];
  if (last.kind === "memory") return [(last.index?.number ?? 0) >> 3, last.base.number >> 3];
  return [0, last.number >> 3 & 1];
}
