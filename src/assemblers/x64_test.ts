import assert from "node:assert/strict";
import { type ArgumentSpec, defineKernel, type Kernel } from "../kernels/kernel.ts";
import type { VectorMachine } from "./vector_machine.ts";
import { assembleX64, bindSymbol, type X64Code, type X64Options, x64Vectors } from "./x64.ts";

const flavours: X64Options[] = (["avx512", "avx2"] as const).flatMap((isa) =>
  [false, true].map((vnni) => ({ isa, vnni }))
);

/** A kernel without arguments. */
function kernel(emit: (machine: VectorMachine) => void, key = "tested"): Kernel {
  return defineKernel<ArgumentSpec>({ key, arguments: {}, emit });
}

function codeOf({ text, symbols }: X64Code, name: string): string {
  const { offset, byteLength } = symbols.find((symbol) => symbol.name === name)!;
  return text.subarray(offset, offset + byteLength).toHex();
}

/** Asserts that assembling fails in every flavour, with the kernel's key and this in the message. */
function assertRejected(problem: RegExp, emit: (machine: VectorMachine) => void): void {
  for (const options of flavours) {
    assert.throws(() => assembleX64([kernel(emit, "suspect")], options), (error) => {
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /suspect/);
      assert.match(error.message, problem);
      return true;
    });
  }
}

Deno.test("a kernel is a function from the offset of its arguments, and clears the vectors' upper halves", () => {
  const scale = defineKernel({
    key: "scale",
    arguments: { x: "pointer", factor: "float" },
    emit(machine, args) {
      const x = args.pointer("x");
      const factor = args.float("factor");
      const value = machine.vector();
      machine.load(value, x, 64);
      machine.multiply(value, value, factor);
      machine.store(x, 64, value);
      machine.free(x, factor, value);
    },
  }) as unknown as Kernel;
  const code = assembleX64([scale], { isa: "avx512", vnni: true });
  // deno-fmt-ignore
  assert.equal(codeOf(code, "scale"), [
    "89ff", // mov edi, edi
    "48033d00000000", // add rdi, [rip+arena]
    "8b0f", // mov ecx, [rdi]
    "48030d00000000", // add rcx, [rip+arena]
    "62f27d48184701", // vbroadcastss zmm0, [rdi+4]
    "62f17c48104901", // vmovups zmm1, [rcx+64]
    "62f1744859c8", // vmulps zmm1, zmm1, zmm0
    "62f17c48114901", // vmovups [rcx+64], zmm1
    "c5f877", // vzeroupper
    "c3",
  ].join(""));
  assert.equal(codeOf(code, bindSymbol), "488b0500000000" + "48893d00000000" + "c3");
  assert.equal(code.fixups.length, 4);
});

Deno.test("only the registers a caller wants back and a kernel uses are saved", () => {
  const holding = (count: number) =>
    codeOf(
      assembleX64([kernel((machine) => {
        const registers = Array.from({ length: count }, () => machine.integer());
        machine.free(...registers);
      })], flavours[0]),
      "tested",
    );
  const frame = "89ff" + "48033d00000000" + "c5f877";
  assert.equal(holding(7), frame + "c3");
  assert.equal(holding(9), "53" + "55" + frame + "5d" + "5b" + "c3");
  assert.equal(
    holding(13),
    "53" + "55" + "4154" + "4155" + "4156" + "4157" + frame + "415f" + "415e" + "415d" + "415c" + "5d" +
      "5b" + "c3",
  );
});

Deno.test("loop bodies begin at a fetch window, functions do not overlap, and gaps trap", () => {
  for (const options of flavours) {
    const code = assembleX64(
      [
        kernel((machine) => {
          const count = machine.integer();
          machine.setInteger(count, 3);
          machine.repeat(count, () => machine.setInteger(count, 77));
          machine.free(count);
        }, "looping"),
        kernel(() => {}, "empty"),
      ],
      options,
    );
    const spans = code.symbols.map(({ offset, byteLength }) => [offset, offset + byteLength]);
    for (let index = 1; index < spans.length; index++) {
      assert.ok(spans[index - 1][1] <= spans[index][0]);
      for (let at = spans[index - 1][1]; at < spans[index][0]; at++) assert.equal(code.text[at], 0xcc);
    }
    // mov ecx, 77
    const body = [...code.text].findIndex((_, at) => code.text[at] === 0xb9 && code.text[at + 1] === 77);
    assert.equal(body % 32, 0);
  }
});

Deno.test("equal constants are stored once", () => {
  const code = assembleX64([
    kernel((machine) => {
      const a = machine.vector();
      machine.constantF32(a, 1);
      machine.constantI32(a, 0x3f800000);
      machine.constantF32(a, 2);
      machine.constantF32(a, 0);
      machine.free(a);
    }),
  ], flavours[0]);
  assert.deepEqual([...new Int32Array(code.constants.buffer, 64)], [0x3f800000, 0x40000000]);
});

Deno.test("the same kernels give the same code, each key once, in order of appearance", () => {
  const first = kernel((machine) => machine.free(machine.integer()), "first");
  const second = kernel(() => {}, "second");
  for (const options of flavours) {
    const code = assembleX64([second, first, second], options);
    assert.deepEqual(code.symbols.map(({ name }) => name), [bindSymbol, "second", "first"]);
    assert.deepEqual(assembleX64([second, first, second], options), code);
  }
});

Deno.test("two different kernels with one key are rejected, equal ones are merged", () => {
  const storing = (value: number) =>
    kernel((machine) => {
      const a = machine.vector();
      machine.constantI32(a, value);
      machine.free(a);
    });
  for (const options of flavours) {
    assert.throws(() => assembleX64([storing(1), storing(2)], options), /two different kernels/);
    assert.equal(assembleX64([storing(1), storing(1)], options).symbols.length, 2);
  }
  assert.throws(() => assembleX64([kernel(() => {}, "not an identifier")], flavours[0]), /identifier/);
});

Deno.test("broken rules of the vector machine are rejected with the kernel's name", () => {
  assertRejected(/1 vector and 2 integer registers were never freed/, (m) => {
    m.vector();
    m.integer();
    m.integer();
  });
  assertRejected(/more than \d+ vector registers/, (m) => {
    for (let i = 0; i <= m.vectorRegisters; i++) m.vector();
  });
  assertRejected(/more than 13 integer registers/, (m) => {
    for (let i = 0; i <= m.integerRegisters; i++) m.integer();
  });
  assertRejected(/vector register freed twice/, (m) => {
    const a = m.vector();
    m.free(a, a);
  });
  assertRejected(/vector register used after it was freed/, (m) => {
    const a = m.vector();
    m.free(a);
    m.constantF32(a, 1);
  });
  assertRejected(
    /vector register read before it was written/,
    (m) => m.add(m.vector(), m.vector(), m.vector()),
  );
  assertRejected(/integer register read before it was written/, (m) => m.repeat(m.integer(), () => {}));
  assertRejected(/constant 4294967296 is not a 32-bit integer/, (m) => m.setInteger(m.integer(), 2 ** 32));
  assertRejected(/loop step 0/, (m) => m.forRange(m.integer(), 0, 1, 0, () => {}));
  assertRejected(/shift by 32 bits/, (m) => {
    const a = m.vector();
    m.constantI32(a, 1);
    m.shiftLeftI32(a, a, 32);
  });
  assertRejected(/memory offset -4/, (m) => {
    const base = m.integer();
    m.setInteger(base, 0);
    m.load(m.vector(), base, -4);
  });
});

Deno.test("vector widths are those of the instruction sets", () => {
  for (const options of flavours) {
    assembleX64([kernel(({ lanes, vectorRegisters, isa }) => {
      assert.deepEqual({ lanes, vectorRegisters }, x64Vectors[options.isa]);
      assert.equal(isa, options.isa);
    })], options);
  }
});
