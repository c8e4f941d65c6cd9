/**
 * Instructions of every form, as text and as calls of the encoder: the material of its tests.
 *
 * The text is in the Intel syntax of GNU `as`. Operands are drawn from a stream, with the borders of the encoding
 * (register numbers that need another prefix bit, displacements that just do or do not shrink to a byte) drawn often.
 * @module
 */
import type { RandomStream } from "../core/random.ts";
import { arithmetic, conditions, type Label, type X64Encoder } from "./x64_encoder.ts";
import {
  groupStores,
  loads,
  shifts,
  stores,
  threeOperand,
  threeOperandImmediate,
  twoOperand,
  twoOperandImmediate,
  type VectorInstruction,
} from "./x64_instructions.ts";
import {
  type Gpr,
  gprNames,
  gprs,
  mask,
  type MaskRegister,
  type Memory,
  type VectorRegister,
  xmm,
  ymm,
  zmm,
} from "./x64_operands.ts";

/** One piece of code. */
export interface EncoderCase {
  /** Instructions in Intel syntax, one a line. */
  readonly text: string;
  /** The same through the encoder. */
  emit(encoder: X64Encoder): void;
}

// Text --------------------------------------------------------------------------------------------------------

function name64(register: Gpr): string {
  return gprNames[register.number];
}

function name32(register: Gpr): string {
  const name = name64(register);
  return register.number >= 8 ? `${name}d` : name.replace("r", "e");
}

function vectorName({ bits, number }: VectorRegister): string {
  return `${bits === 512 ? "zmm" : bits === 256 ? "ymm" : "xmm"}${number}`;
}

function memoryText({ base, index, displacement, broadcast }: Memory): string {
  const sum = [name64(base), ...(index ? [name64(index)] : [])].join("+");
  const offset = displacement === 0 ? "" : displacement < 0 ? `${displacement}` : `+${displacement}`;
  return `[${sum}${offset}]${broadcast ? "{1to16}" : ""}`;
}

function text(operand: VectorRegister | MaskRegister | Memory): string {
  if (operand.kind === "memory") return memoryText(operand);
  return operand.kind === "mask register" ? `k${operand.number}` : vectorName(operand);
}

// Operands ----------------------------------------------------------------------------------------------------

class Operands {
  constructor(readonly random: RandomStream) {}

  pick<T>(choices: readonly T[]): T {
    return choices[this.random.below(choices.length)];
  }

  gpr(): Gpr {
    return this.pick(gprs);
  }

  vector(bits: 128 | 256 | 512): VectorRegister {
    const low = this.pick([0, 1, 7, 8, 9, 15]);
    if (bits === 256) return ymm(low);
    const any = this.pick([low, 16, 20, 23, 24, 31]);
    return bits === 128 ? xmm(any) : zmm(any);
  }

  /** Memory whose displacement is near a border for short displacements in units of `unit` bytes. */
  memory(unit: number, broadcast?: boolean): Memory {
    const base = this.gpr();
    const index = this.pick([undefined, this.pick(gprs.filter((register) => register.number !== 4))]);
    const displacement = this.pick([
      0,
      0,
      4,
      1,
      unit,
      -unit,
      127 * unit,
      128 * unit,
      -128 * unit,
      -129 * unit,
      1e6,
    ]);
    // `as` may exchange base and index; both orders mean the same, but only one is ours.
    return { kind: "memory", base, displacement, ...(index && { index }), ...(broadcast && { broadcast }) };
  }

  word(): number {
    const { random } = this;
    return this.pick([0, 1, 127, 128, -1, -128, -129, 2 ** 31 - 1, -(2 ** 31), random.below(2 ** 31)]);
  }
}

// Forms -------------------------------------------------------------------------------------------------------

type Form = (operands: Operands) => EncoderCase;

/** A vector register, memory, or (AVX-512) one element in memory for every lane. */
function lastOperand(
  o: Operands,
  instruction: VectorInstruction,
  bits: 128 | 256 | 512,
): VectorRegister | Memory {
  const choice = o.random.below(3);
  if (choice === 0) return o.vector(bits);
  if (choice === 1 && bits === 512 && !instruction.wholeVector) return o.memory(4, true);
  return o.memory(instruction.memoryBytes ?? bits / 8);
}

function forms<T extends string>(
  table: Readonly<Record<T, VectorInstruction>>,
  form: (name: T, instruction: VectorInstruction, bits: 128 | 256 | 512) => Form,
): Form[] {
  return Object.entries<VectorInstruction>(table).flatMap(([name, instruction]) =>
    instruction.widths.map((bits) => form(name as T, instruction, bits))
  );
}

const vectorForms: readonly Form[] = [
  ...forms(threeOperand, (name, instruction, bits) => (o) => {
    const [d, a, b] = [o.vector(bits), o.vector(bits), lastOperand(o, instruction, bits)];
    const masking = bits === 512 && o.random.below(3) === 0
      ? { mask: mask(1 + o.random.below(7)), zeroing: o.pick([true, false]) }
      : undefined;
    const decoration = masking ? `{k${masking.mask.number}}${masking.zeroing ? "{z}" : ""}` : "";
    // `as` knows the 256-bit dot product in two encodings.
    const prefix = name === "vpdpbusd" && bits === 256 ? "{vex} " : "";
    return {
      text: `${prefix}${name} ${text(d)}${decoration}, ${text(a)}, ${text(b)}`,
      emit: (e) => e.three(name, d, a, b, masking),
    };
  }),
  ...forms(twoOperand, (name, instruction, bits) => (o) => {
    const [d, a] = [o.vector(bits), lastOperand(o, instruction, bits)];
    return { text: `${name} ${text(d)}, ${text(a)}`, emit: (e) => e.two(name, d, a) };
  }),
  ...forms(loads, (name, { memoryBytes }, bits) => (o) => {
    const [d, memory] = [o.vector(bits), o.memory(memoryBytes ?? bits / 8)];
    const isMasked = bits === 512 && o.pick([true, false]);
    const masking = isMasked ? { mask: mask(1 + o.random.below(7)), zeroing: true } : undefined;
    const decoration = masking ? `{k${masking.mask.number}}{z}` : "";
    return {
      text: `${name} ${text(d)}${decoration}, ${text(memory)}`,
      emit: (e) => e.load(name, d, memory, masking),
    };
  }),
  ...forms(stores, (name, { memoryBytes }, bits) => (o) => {
    const [a, memory] = [o.vector(bits), o.memory(memoryBytes ?? bits / 8)];
    const masking = bits === 512 && o.pick([true, false]) ? { mask: mask(1 + o.random.below(7)) } : undefined;
    const decoration = masking ? `{k${masking.mask.number}}` : "";
    return {
      text: `${name} ${text(memory)}${decoration}, ${text(a)}`,
      emit: (e) => e.store(name, memory, a, masking),
    };
  }),
  ...forms(groupStores, (name, _, bits) => (o) => {
    const [a, memory, group] = [o.vector(bits), o.memory(16), o.random.below(bits / 128)];
    return {
      text: `${name} ${text(memory)}, ${text(a)}, ${group}`,
      emit: (e) => e.storeGroup(name, memory, a, group),
    };
  }),
  ...forms(twoOperandImmediate, (name, instruction, bits) => (o) => {
    const [d, a, immediate] = [o.vector(bits), lastOperand(o, instruction, bits), o.random.below(256)];
    return {
      text: `${name} ${text(d)}, ${text(a)}, ${immediate}`,
      emit: (e) => e.twoImmediate(name, d, a, immediate),
    };
  }),
  ...forms(threeOperandImmediate, (name, instruction, bits) => (o) => {
    const [d, a, b] = [o.vector(bits), o.vector(bits), lastOperand(o, instruction, bits)];
    const immediate = o.random.below(256);
    return {
      text: `${name} ${text(d)}, ${text(a)}, ${text(b)}, ${immediate}`,
      emit: (e) => e.threeImmediate(name, d, a, b, immediate),
    };
  }),
  ...forms(shifts, (name, _, bits) => (o) => {
    const [d, a, count] = [o.vector(bits), o.vector(bits), o.random.below(32)];
    return {
      text: `${name} ${text(d)}, ${text(a)}, ${count}`,
      emit: (e) => e.shiftVector(name, d, a, count),
    };
  }),
  (o) => {
    const [d, a, b] = [mask(o.random.below(8)), o.vector(512), o.vector(512)];
    return {
      text: `vcmpps ${text(d)}, ${text(a)}, ${text(b)}, 17`,
      emit: (e) => e.compareToMask(d, a, b, 17),
    };
  },
  (o) => {
    const [d, a, b, selector] = [o.vector(256), o.vector(256), o.vector(256), o.vector(256)];
    return {
      text: `vblendvps ${text(d)}, ${text(a)}, ${text(b)}, ${text(selector)}`,
      emit: (e) => e.vblendvps(d, a, b, selector),
    };
  },
  (o) => {
    const [d, selector, memory] = [o.vector(256), o.vector(256), o.memory(32)];
    return {
      text: `vmaskmovps ${text(d)}, ${text(selector)}, ${text(memory)}`,
      emit: (e) => e.vmaskmovpsLoad(d, selector, memory),
    };
  },
  (o) => {
    const [a, selector, memory] = [o.vector(256), o.vector(256), o.memory(32)];
    return {
      text: `vmaskmovps ${text(memory)}, ${text(selector)}, ${text(a)}`,
      emit: (e) => e.vmaskmovpsStore(memory, selector, a),
    };
  },
  (o) => {
    const [d, a] = [o.vector(128), o.gpr()];
    return { text: `vmovd ${text(d)}, ${name32(a)}`, emit: (e) => e.vmovd(d, a) };
  },
  (o) => {
    const [d, a] = [o.vector(256), xmm(o.vector(256).number)];
    return { text: `vpbroadcastd ${text(d)}, ${text(a)}`, emit: (e) => e.vpbroadcastdLane(d, a) };
  },
  (o) => {
    const [d, a] = [o.vector(512), o.gpr()];
    return { text: `vpbroadcastd ${text(d)}, ${name32(a)}`, emit: (e) => e.vpbroadcastdGpr(d, a) };
  },
  (o) => {
    const [d, a] = [mask(o.random.below(8)), o.gpr()];
    return { text: `kmovw ${text(d)}, ${name32(a)}`, emit: (e) => e.kmovw(d, a) };
  },
];

const generalForms: readonly Form[] = [
  (o) => {
    const [d, a] = [o.gpr(), o.gpr()];
    return { text: `mov ${name64(d)}, ${name64(a)}`, emit: (e) => e.mov(d, a) };
  },
  (o) => {
    const [d, a] = [o.gpr(), o.gpr()];
    return { text: `mov ${name32(d)}, ${name32(a)}`, emit: (e) => e.mov32(d, a) };
  },
  (o) => {
    const [d, value] = [o.gpr(), o.word()];
    const zero = `xor ${name32(d)}, ${name32(d)}`;
    const line = `mov ${value < 0 ? name64(d) : name32(d)}, ${value}`;
    return { text: value === 0 ? zero : line, emit: (e) => e.movImmediate(d, value) };
  },
  (o) => {
    const [d, memory] = [o.gpr(), o.memory(1)];
    return { text: `mov ${name64(d)}, ${text(memory)}`, emit: (e) => e.load64(d, memory) };
  },
  (o) => {
    const [d, memory] = [o.gpr(), o.memory(1)];
    return { text: `mov ${name32(d)}, ${text(memory)}`, emit: (e) => e.load32(d, memory) };
  },
  (o) => {
    const [d, memory] = [o.gpr(), o.memory(1)];
    return { text: `movsxd ${name64(d)}, dword ptr ${text(memory)}`, emit: (e) => e.load32Signed(d, memory) };
  },
  (o) => {
    const [d, memory] = [o.gpr(), o.memory(1)];
    return { text: `movzx ${name32(d)}, word ptr ${text(memory)}`, emit: (e) => e.load16(d, memory) };
  },
  (o) => {
    const [a, memory] = [o.gpr(), o.memory(1)];
    return { text: `mov ${text(memory)}, ${name64(a)}`, emit: (e) => e.store64(memory, a) };
  },
  (o) => {
    const [a, memory] = [o.gpr(), o.memory(1)];
    return { text: `mov ${text(memory)}, ${name32(a)}`, emit: (e) => e.store32(memory, a) };
  },
  (o) => {
    const memory = o.memory(1);
    return { text: `prefetcht0 ${text(memory)}`, emit: (e) => e.prefetcht0(memory) };
  },
  (o) => {
    const [d, memory] = [o.gpr(), o.memory(1)];
    return { text: `lea ${name64(d)}, ${text(memory)}`, emit: (e) => e.lea(d, memory) };
  },
  ...(Object.keys(arithmetic) as (keyof typeof arithmetic)[]).flatMap((name): Form[] => [
    (o) => {
      const [d, b] = [o.gpr(), o.gpr()];
      return { text: `${name} ${name64(d)}, ${name64(b)}`, emit: (e) => e.arithmetic(name, d, b) };
    },
    (o) => {
      const [d, value] = [o.gpr(), o.word()];
      return { text: `${name} ${name64(d)}, ${value}`, emit: (e) => e.arithmetic(name, d, value) };
    },
    (o) => {
      const [d, memory] = [o.gpr(), o.memory(1)];
      return { text: `${name} ${name64(d)}, ${text(memory)}`, emit: (e) => e.arithmetic(name, d, memory) };
    },
  ]),
  (o) => {
    const a = o.gpr();
    return { text: `test ${name64(a)}, ${name64(a)}`, emit: (e) => e.test(a) };
  },
  (o) => {
    const [d, b] = [o.gpr(), o.gpr()];
    return { text: `imul ${name64(d)}, ${name64(b)}`, emit: (e) => e.imul(d, b) };
  },
  (o) => {
    const [d, a, value] = [o.gpr(), o.gpr(), o.word()];
    return { text: `imul ${name64(d)}, ${name64(a)}, ${value}`, emit: (e) => e.imulImmediate(d, a, value) };
  },
  (o) => {
    const [name, d, bits] = [o.pick(["shl", "shr"] as const), o.gpr(), o.pick([1, 2, 31, 32, 63])];
    return { text: `${name} ${name64(d)}, ${bits}`, emit: (e) => e.shift(name, d, bits) };
  },
  (o) => {
    const a = o.gpr();
    return { text: `push ${name64(a)}`, emit: (e) => e.push(a) };
  },
  (o) => {
    const d = o.gpr();
    return { text: `pop ${name64(d)}`, emit: (e) => e.pop(d) };
  },
  (o) => {
    const [d, a, count] = [o.gpr(), o.gpr(), o.gpr()];
    return { text: `bzhi ${name32(d)}, ${name32(a)}, ${name32(count)}`, emit: (e) => e.bzhi(d, a, count) };
  },
  // Jumps over a distance on both sides of what a byte reaches.
  ...[undefined, ...Object.keys(conditions) as (keyof typeof conditions)[]].map((condition): Form => (o) => {
    const mnemonics = {
      equal: "je",
      notEqual: "jne",
      less: "jl",
      greaterOrEqual: "jge",
      lessOrEqual: "jle",
      greater: "jg",
    };
    const mnemonic = condition === undefined ? "jmp" : mnemonics[condition];
    const [before, after] = [o.pick([0, 1, 125, 126, 127, 128, 200]), o.pick([0, 3, 150])];
    return {
      text:
        `7: .fill ${before}, 1, 0xc3\n${mnemonic} 7b\n{disp32} ${mnemonic} 8f\n.fill ${after}, 1, 0xc3\n8:`,
      emit(e) {
        const [back, forward]: Label[] = [{}, {}];
        e.bind(back);
        for (let i = 0; i < before; i++) e.ret();
        e.jump(back, condition);
        e.jump(forward, condition);
        for (let i = 0; i < after; i++) e.ret();
        e.bind(forward);
      },
    };
  }),
];

const plainCases: readonly EncoderCase[] = [
  { text: "ret", emit: (e) => e.ret() },
  { text: "cpuid", emit: (e) => e.cpuid() },
  { text: "xgetbv", emit: (e) => e.xgetbv() },
  { text: "vzeroupper", emit: (e) => e.vzeroupper() },
];

/** `count` cases of every form. */
export function encoderCases(random: RandomStream, count: number): EncoderCase[] {
  const operands = new Operands(random);
  const drawn = [...vectorForms, ...generalForms].flatMap((form) =>
    Array.from({ length: count }, () => form(operands))
  );
  return [...plainCases, ...drawn];
}
