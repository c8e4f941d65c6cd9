/**
 * What the processor of this host is: name, vector instruction sets that also the operating system allows, caches.
 *
 * Decoding is pure; `probeCpu` asks the processor through a function assembled for the purpose.
 * Sources: Intel Software Developer's Manual volume 2, CPUID; AMD64 Programmer's Manual volume 3, appendix E.
 * @module
 */
import { X64Encoder } from "../assemblers/x64_encoder.ts";
import { at, gpr } from "../assemblers/x64_operands.ts";
import { encodeSharedObject } from "./elf.ts";
import { openSharedObject, publishSharedObject } from "./native_loader.ts";

/** What `cpuid` answers. */
export interface CpuidRegisters {
  /** First word of the answer. */
  readonly eax: number;
  /** Second word. */
  readonly ebx: number;
  /** Third word. */
  readonly ecx: number;
  /** Fourth word. */
  readonly edx: number;
}

/** Ways to ask a processor. */
export interface CpuQueries {
  /** The `cpuid` instruction. */
  cpuid(leaf: number, subleaf: number): CpuidRegisters;
  /** Low word of the register that says which processor state the operating system keeps for each thread. */
  enabledState(): number;
}

/** One cache. */
export interface Cache {
  /** 1 is nearest to the core. */
  readonly level: number;
  /** What it holds. */
  readonly kind: "data" | "instruction" | "unified";
  /** Its capacity, which cores may share. */
  readonly sizeBytes: number;
  /** What it fetches at once. */
  readonly lineBytes: number;
}

/** A processor. */
export interface Cpu {
  /** Maker and model in its own words. */
  readonly name: string;
  /** AVX2 and FMA. */
  readonly avx2: boolean;
  /** 256-bit `vpdpbusd` in VEX form. */
  readonly avxVnni: boolean;
  /** AVX-512 F, BW, DQ and VL, with BMI2. */
  readonly avx512: boolean;
  /** 512-bit `vpdpbusd`. */
  readonly avx512Vnni: boolean;
  /** From the first level outwards. */
  readonly caches: readonly Cache[];
}

const has = (register: number, bit: number): boolean => (register >>> bit & 1) === 1;

/** State of the lower halves of the vector registers, and of ymm. */
const ymmState = 0x06;
/** Also mask registers, upper halves of zmm0–15, and zmm16–31. */
const zmmState = 0xe6;

/** Reads a processor's description. */
export function describeCpu(queries: CpuQueries): Cpu {
  const { cpuid } = queries;
  const highestLeaf = cpuid(0, 0).eax;
  const basic = cpuid(1, 0);
  const extended = highestLeaf >= 7 ? cpuid(7, 0) : { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const extended1 = highestLeaf >= 7 && extended.eax >= 1 ? cpuid(7, 1) : { eax: 0 };
  // Without OSXSAVE the state register cannot be read: the system keeps no vector state.
  const state = has(basic.ecx, 27) ? queries.enabledState() : 0;
  const avx2 = (state & ymmState) === ymmState && has(basic.ecx, 28) && has(basic.ecx, 12) &&
    has(extended.ebx, 5);
  // Foundation, DQ, BW, VL; BMI2.
  const avx512 = avx2 && (state & zmmState) === zmmState &&
    [16, 17, 30, 31, 8].every((bit) => has(extended.ebx, bit));
  return {
    name: processorName(queries),
    avx2,
    avxVnni: avx2 && has(extended1.eax, 4),
    avx512,
    avx512Vnni: avx512 && has(extended.ecx, 11),
    caches: caches(queries, highestLeaf),
  };
}

function text(registers: readonly number[]): string {
  return new TextDecoder().decode(Uint32Array.from(registers)).replaceAll("\0", "").trim();
}

function processorName({ cpuid }: CpuQueries): string {
  if (cpuid(0x80000000, 0).eax >>> 0 >= 0x80000004) {
    const parts = [0x80000002, 0x80000003, 0x80000004].map((leaf) => cpuid(leaf, 0));
    return text(parts.flatMap(({ eax, ebx, ecx, edx }) => [eax, ebx, ecx, edx]));
  }
  const { ebx, ecx, edx } = cpuid(0, 0);
  return text([ebx, edx, ecx]);
}

/** Intel lists caches in leaf 4, AMD in leaf 8000001D when it has topology extensions, in the same form. */
function caches({ cpuid }: CpuQueries, highestLeaf: number): Cache[] {
  const highestExtended = cpuid(0x80000000, 0).eax >>> 0;
  const isAmd = highestExtended >= 0x8000001d && has(cpuid(0x80000001, 0).ecx, 22);
  const leaf = isAmd ? 0x8000001d : 4;
  if (!isAmd && highestLeaf < 4) return [];
  const found: Cache[] = [];
  for (let index = 0; index < 16; index++) {
    const { eax, ebx, ecx } = cpuid(leaf, index);
    const kind = ([undefined, "data", "instruction", "unified"] as const)[eax & 31];
    if (kind === undefined) break;
    const lineBytes = (ebx & 0xfff) + 1;
    const partitions = (ebx >>> 12 & 0x3ff) + 1;
    const ways = (ebx >>> 22) + 1;
    const sets = (ecx >>> 0) + 1;
    found.push({ level: eax >>> 5 & 7, kind, lineBytes, sizeBytes: ways * partitions * lineBytes * sets });
  }
  return found.sort((a, b) => a.level - b.level);
}

/** Asks this host's processor. Needs x86-64 Linux and the permission to load code. */
export function probeCpu(): Cpu {
  const cpuid = new X64Encoder();
  // (leaf: edi, subleaf: esi, result: rdx); rbx belongs to the caller.
  cpuid.push(gpr.rbx);
  cpuid.mov(gpr.r8, gpr.rdx);
  cpuid.mov32(gpr.rax, gpr.rdi);
  cpuid.mov32(gpr.rcx, gpr.rsi);
  cpuid.cpuid();
  [gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx].forEach((register, index) =>
    cpuid.store32(at(gpr.r8, 4 * index), register)
  );
  cpuid.pop(gpr.rbx);
  cpuid.ret();
  const xgetbv = new X64Encoder();
  xgetbv.movImmediate(gpr.rcx, 0);
  xgetbv.xgetbv();
  xgetbv.ret();
  const image = encodeSharedObject({
    text: new Uint8Array([...cpuid.finish(), ...xgetbv.finish()]),
    symbols: [
      { name: "cpuid", offset: 0, byteLength: cpuid.length },
      { name: "xgetbv", offset: cpuid.length, byteLength: xgetbv.length },
    ],
    fixups: [],
    constants: new Uint8Array(0),
    dataBytes: 0,
  });
  const functions = openSharedObject(publishSharedObject("lacuna-cpu", image), {
    cpuid: { parameters: ["u32", "u32", "buffer"], result: "void" },
    xgetbv: { parameters: [], result: "u32" },
  });
  return describeCpu({
    cpuid(leaf, subleaf) {
      const result = new Uint32Array(4);
      functions.cpuid(leaf, subleaf, result);
      const [eax, ebx, ecx, edx] = result;
      return { eax, ebx, ecx, edx };
    },
    enabledState: () => functions.xgetbv(),
  });
}
