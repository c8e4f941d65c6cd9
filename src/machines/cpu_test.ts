import assert from "node:assert/strict";
import { type CpuidRegisters, type CpuQueries, describeCpu } from "./cpu.ts";

const zero: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
const bits = (...numbers: number[]) => numbers.reduce((sum, number) => sum | 1 << number, 0);
const word = (text: string) =>
  new DataView(new TextEncoder().encode(text.padEnd(4, "\0")).buffer).getUint32(0, true);

/** A processor with everything; `changes` replace answers by "leaf.subleaf" in hexadecimal. */
function processor(changes: Record<string, Partial<CpuidRegisters>> = {}, state = 0xe7): CpuQueries {
  const answers: Record<string, Partial<CpuidRegisters>> = {
    "0.0": { eax: 7, ebx: word("Genu"), edx: word("ineI"), ecx: word("ntel") },
    "1.0": { ecx: bits(12, 27, 28) },
    "4.0": { eax: 1 | 1 << 5, ebx: 11 << 22 | 63, ecx: 63 },
    "4.1": { eax: 2 | 1 << 5, ebx: 7 << 22 | 63, ecx: 63 },
    "4.2": { eax: 3 | 2 << 5, ebx: 15 << 22 | 63, ecx: 2047 },
    "4.3": { eax: 3 | 3 << 5, ebx: 19 << 22 | 63, ecx: 212991 },
    "7.0": { eax: 1, ebx: bits(5, 8, 16, 17, 30, 31), ecx: bits(11) },
    "7.1": { eax: bits(4) },
    "80000000.0": { eax: 0x80000004 | 0 },
    "80000002.0": { eax: word("A fa"), ebx: word("st p"), ecx: word("roce"), edx: word("ssor") },
    ...changes,
  };
  return {
    cpuid: (leaf, subleaf) => ({ ...zero, ...answers[`${leaf.toString(16)}.${subleaf}`] }),
    enabledState: () => state,
  };
}

Deno.test("describeCpu reads name, instruction sets and caches of a full processor", () => {
  assert.deepEqual(describeCpu(processor()), {
    name: "A fast processor",
    avx2: true,
    avxVnni: true,
    avx512: true,
    avx512Vnni: true,
    caches: [
      { level: 1, kind: "data", lineBytes: 64, sizeBytes: 48 * 1024 },
      { level: 1, kind: "instruction", lineBytes: 64, sizeBytes: 32 * 1024 },
      { level: 2, kind: "unified", lineBytes: 64, sizeBytes: 2 * 1024 ** 2 },
      { level: 3, kind: "unified", lineBytes: 64, sizeBytes: 260 * 1024 ** 2 },
    ],
  });
});

Deno.test("describeCpu claims nothing that the system does not keep state for", () => {
  const { avx2, avx512, avx512Vnni } = describeCpu(processor({}, 0x07));
  assert.deepEqual({ avx2, avx512, avx512Vnni }, { avx2: true, avx512: false, avx512Vnni: false });
  assert.equal(describeCpu(processor({}, 0x03)).avx2, false);
  const unasked = processor({ "1.0": { ecx: bits(12, 28) } });
  const neverRead: CpuQueries = {
    ...unasked,
    enabledState: () => assert.fail("xgetbv is no instruction here"),
  };
  assert.equal(describeCpu(neverRead).avx2, false);
});

Deno.test("describeCpu wants every part of an instruction set", () => {
  for (const missing of [8, 16, 17, 30, 31]) {
    const others = [5, 8, 16, 17, 30, 31].filter((bit) => bit !== missing);
    const cpu = describeCpu(processor({ "7.0": { eax: 1, ebx: bits(...others), ecx: bits(11) } }));
    assert.deepEqual([cpu.avx2, cpu.avx512, cpu.avx512Vnni], [true, false, false], `bit ${missing}`);
  }
  assert.equal(describeCpu(processor({ "1.0": { ecx: bits(27, 28) } })).avx2, false, "FMA");
  assert.equal(describeCpu(processor({ "7.0": { eax: 0, ebx: bits(5) } })).avxVnni, false);
  assert.equal(describeCpu(processor({ "0.0": { eax: 1 } })).avx2, false, "no leaf 7");
});

Deno.test("describeCpu reads AMD's leaf of caches and falls back to the maker's name", () => {
  const cpu = describeCpu(processor({
    "80000000.0": { eax: 0x8000001e | 0 },
    "80000001.0": { ecx: bits(22) },
    "8000001d.0": { eax: 1 | 1 << 5, ebx: 7 << 22 | 63, ecx: 63 },
  }));
  assert.deepEqual(cpu.caches, [{ level: 1, kind: "data", lineBytes: 64, sizeBytes: 32 * 1024 }]);
  assert.equal(describeCpu(processor({ "80000000.0": {} })).name, "GenuineIntel");
});
