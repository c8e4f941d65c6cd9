import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../core/random.ts";
import golden from "./golden/x64.json" with { type: "json" };
import { type EncoderCase, encoderCases } from "./x64_cases.ts";
import { X64Encoder } from "./x64_encoder.ts";
import { assembleText, binutilsVersion } from "./x64_gnu.ts";
import { at, gpr, gprs, mask, xmm, ymm, zmm } from "./x64_operands.ts";

function bytesOf(emit: EncoderCase["emit"]): string {
  const encoder = new X64Encoder();
  emit(encoder);
  return encoder.finish().toHex();
}

Deno.test("every instruction form has the bytes GNU as gave it", () => {
  const wanted: Readonly<Record<string, string>> = golden.cases;
  const seen = new Set<string>();
  for (const { text, emit } of encoderCases(new RandomStream(randomKey(1, "x64 golden")), 8)) {
    assert.ok(text in wanted, `${text} is not in the golden file: run tools/x64_golden.ts`);
    assert.equal(bytesOf(emit), wanted[text], text);
    seen.add(text);
  }
  assert.equal(seen.size, Object.keys(wanted).length);
});

const version = await binutilsVersion();
if (version === undefined) {
  console.log("skipped: comparison of random instructions, GNU as is not on this machine");
}
Deno.test({
  name: "random instructions have the bytes GNU as gives them",
  ignore: version === undefined,
  async fn() {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const cases = encoderCases(new RandomStream(randomKey(seed, "x64 random")), 20);
    const wanted = await assembleText(cases.map(({ text }) => text));
    cases.forEach(({ text, emit }, index) => {
      assert.equal(bytesOf(emit), wanted[index].toHex(), `${text}, seed ${seed}`);
    });
  },
});

Deno.test("image memory leaves four zero bytes and says where the instruction ends", () => {
  const encoder = new X64Encoder();
  encoder.load("vbroadcastss", zmm(20), { kind: "image memory", section: "constants", offset: 68 });
  encoder.threeImmediate("vcmpps", ymm(1), ymm(2), { kind: "image memory", section: "data", offset: 0 }, 17);
  encoder.arithmetic("add", gpr.r9, { kind: "image memory", section: "data", offset: 8 });
  // As `as` writes [rip+0].
  assert.equal(encoder.finish().toHex(), "62e27d48182500000000" + "c5ecc20d0000000011" + "4c030d00000000");
  assert.deepEqual(encoder.fixups, [
    { position: 6, end: 10, section: "constants", offset: 68 },
    { position: 14, end: 19, section: "data", offset: 0 },
    { position: 22, end: 26, section: "data", offset: 8 },
  ]);
});

Deno.test("align pads with whole instructions that do nothing", () => {
  for (let before = 0; before < 33; before++) {
    const encoder = new X64Encoder();
    for (let i = 0; i < before; i++) encoder.ret();
    encoder.align(32);
    assert.equal(encoder.length, Math.ceil(before / 32) * 32);
  }
  assert.equal(bytesOf((e) => (e.ret(), e.align(4))), "c30f1f00");
  assert.equal(bytesOf((e) => (e.ret(), e.align(16))), "c3" + "660f1f840000000000" + "660f1f440000");
});

Deno.test("operands without an encoding are rejected", () => {
  const memory = at(gpr.rcx);
  const rejected: [problem: RegExp, emit: (encoder: X64Encoder) => void][] = [
    [/vaddps: registers of 128 bits, wanted 256 or 512/, (e) => e.three("vaddps", xmm(1), xmm(2), xmm(3))],
    [/vaddps: registers of 512 and 256 bits/, (e) => e.three("vaddps", zmm(1), ymm(2), zmm(3))],
    [/vaddps: registers of 512 and 256 bits/, (e) => e.three("vaddps", zmm(1), zmm(2), ymm(3))],
    [/vpand: registers of 512 bits/, (e) => e.three("vpand", zmm(1), zmm(2), zmm(3))],
    [/vpandd: registers of 256 bits/, (e) => e.three("vpandd", ymm(1), ymm(2), ymm(3))],
    [/vaddps: registers above 15/, (e) => e.three("vaddps", ymm(16), ymm(2), ymm(3))],
    [/vpslld: registers above 15/, (e) => e.shiftVector("vpslld", ymm(16), ymm(2), 3)],
    [/vblendvps: .*AVX-512/, (e) => e.vblendvps(ymm(1), ymm(2), ymm(3), ymm(16))],
    [/vaddps: masks/, (e) => e.three("vaddps", ymm(1), ymm(2), ymm(3), { mask: mask(1) })],
    [/mask register 0/, (e) => e.three("vaddps", zmm(1), zmm(2), zmm(3), { mask: mask(0) })],
    [
      /vmovups: memory cannot be masked with zeroing/,
      (e) => e.store("vmovups", memory, zmm(1), { mask: mask(1), zeroing: true }),
    ],
    [/vaddps: a broadcast operand/, (e) => e.three("vaddps", ymm(1), ymm(2), { ...memory, broadcast: true })],
    [/vpmaddwd: .*broadcast/, (e) => e.three("vpmaddwd", zmm(1), zmm(2), { ...memory, broadcast: true })],
    [/vpermilps: immediate 256/, (e) => e.twoImmediate("vpermilps", zmm(1), zmm(2), 256)],
    [/vpbroadcastd: a source of 256 bits/, (e) => e.vpbroadcastdLane(ymm(1), ymm(2))],
    [/add: constant 2147483648/, (e) => e.arithmetic("add", gpr.rcx, 2 ** 31)],
    [/mov: constant 0.5/, (e) => e.movImmediate(gpr.rcx, 0.5)],
    [/shl: 64 bits/, (e) => e.shift("shl", gpr.rcx, 64)],
    [/constant 2147483648/, (e) => e.load32(gpr.rcx, at(gpr.rax, 2 ** 31))],
    [/stack pointer/, (e) => e.lea(gpr.rcx, { ...memory, index: gpr.rsp })],
  ];
  for (const [problem, emit] of rejected) {
    assert.throws(() => bytesOf(emit), (error) => {
      assert.ok(error instanceof TypeError);
      assert.match(error.message, problem);
      return true;
    });
  }
  for (const number of [-1, 32, 1.5]) assert.throws(() => zmm(number), RangeError);
  for (const number of [-1, 8, 1.5]) assert.throws(() => mask(number), RangeError);
});

Deno.test("labels are bound once, and before the code is finished", () => {
  assert.throws(() => bytesOf((e) => e.jump({})), /never bound/);
  assert.throws(() =>
    bytesOf((e) => {
      const label = {};
      e.bind(label);
      e.bind(label);
    }), /twice/);
});

Deno.test("registers are numbered as the processor numbers them", () => {
  assert.deepEqual(gprs.map(({ number }) => number), Array.from({ length: 16 }, (_, number) => number));
  assert.deepEqual([gpr.rsp.number, gpr.r15.number], [4, 15]);
});
