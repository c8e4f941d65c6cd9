import assert from "node:assert/strict";
import { type ArgumentSpec, defineKernel, type Kernel } from "../kernels/kernel.ts";
import type { VectorMachine } from "./vector_machine.ts";
import { assembleWasm, type WasmOptions } from "./wasm.ts";
import { ByteWriter, encodeModule, opcode, valueType } from "./wasm_encoder.ts";

const memory = { initialPages: 0, maximumPages: 65536 };
const flavours: WasmOptions[] = [{ relaxed: false, memory }, { relaxed: true, memory }];

/** A kernel without arguments. */
function kernel(emit: (machine: VectorMachine) => void, key = "tested"): Kernel {
  return defineKernel<ArgumentSpec>({ key, arguments: {}, emit });
}

/** Asserts that assembling fails in both flavours, with the kernel's key and this in the message. */
function assertRejected(problem: RegExp, emit: (machine: VectorMachine) => void): void {
  for (const options of flavours) {
    assert.throws(() => assembleWasm([kernel(emit, "suspect")], options), (error) => {
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /suspect/);
      assert.match(error.message, problem);
      return true;
    });
  }
}

Deno.test("ByteWriter writes LEB128 as the specification's examples and at the borders of a byte", () => {
  const unsigned = (value: number) => [...new ByteWriter().unsigned(value).bytes];
  const signed = (value: number) => [...new ByteWriter().signed(value).bytes];
  assert.deepEqual(unsigned(0), [0x00]);
  assert.deepEqual(unsigned(127), [0x7f]);
  assert.deepEqual(unsigned(128), [0x80, 0x01]);
  assert.deepEqual(unsigned(624485), [0xe5, 0x8e, 0x26]);
  assert.deepEqual(unsigned(2 ** 32 - 1), [0xff, 0xff, 0xff, 0xff, 0x0f]);
  assert.deepEqual(signed(63), [0x3f]);
  assert.deepEqual(signed(64), [0xc0, 0x00]);
  assert.deepEqual(signed(-1), [0x7f]);
  assert.deepEqual(signed(-64), [0x40]);
  assert.deepEqual(signed(-65), [0xbf, 0x7f]);
  assert.deepEqual(signed(-123456), [0xc0, 0xbb, 0x78]);
  assert.deepEqual(signed(-(2 ** 31)), [0x80, 0x80, 0x80, 0x80, 0x78]);
});

Deno.test("encodeModule writes exactly these bytes for one empty function", () => {
  const found = encodeModule([{ exportName: "f", locals: [], code: [] }], {
    initialPages: 1,
    maximumPages: 256,
  });
  // deno-fmt-ignore
  const wanted = [
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic, version
    0x01, 0x05, 0x01, 0x60, 0x01, 0x7f, 0x00, // type: (i32) → ()
    0x02, 0x11, 0x01, 0x03, 0x65, 0x6e, 0x76, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, // import env.memory:
    0x02, 0x03, 0x01, 0x80, 0x02, // shared, 1 to 256 pages
    0x03, 0x02, 0x01, 0x00, // function 0 has type 0
    0x07, 0x05, 0x01, 0x01, 0x66, 0x00, 0x00, // export "f"
    0x0a, 0x04, 0x01, 0x02, 0x00, 0x0b, // body: no locals, end
  ];
  assert.deepEqual([...found], wanted);
});

Deno.test("encodeModule writes locals as runs of equal types", () => {
  const { i32, v128 } = valueType;
  const locals = [i32, i32, v128, i32];
  const code = [opcode.localGet, 4, opcode.localSet, 1];
  const bytes = encodeModule([{ exportName: "f", locals, code }], memory);
  assert.deepEqual([...bytes.slice(-12)], [3, 2, i32, 1, v128, 1, i32, ...code, opcode.end]);
  assert.ok(WebAssembly.validate(bytes));
});

Deno.test("assembleWasm gives the same bytes for the same kernels, and a valid module in both flavours", () => {
  const add = kernel((m) => {
    const a = m.vector();
    const i = m.integer();
    m.constantF32(a, 1);
    m.fma(a, a, a);
    m.setInteger(i, 64);
    m.store(i, 16, a);
    m.free(a, i);
  }, "add");
  const empty = kernel(() => {}, "empty");
  const [plain, relaxed] = flavours.map((options) => assembleWasm([add, empty], options));
  assert.ok(WebAssembly.validate(plain));
  assert.ok(WebAssembly.validate(relaxed));
  assert.notDeepEqual(plain, relaxed);
  assert.deepEqual(assembleWasm([add, empty], flavours[0]), plain);
  assert.deepEqual(assembleWasm([add, empty, add], flavours[0]), plain);
  const names = WebAssembly.Module.exports(new WebAssembly.Module(plain)).map((entry) => entry.name);
  assert.deepEqual(names, ["add", "empty"]);
});

Deno.test("assembleWasm accepts two equal kernels of one key and rejects two different ones", () => {
  const one = (value: number) =>
    kernel((m) => {
      const i = m.integer();
      m.setInteger(i, value);
      m.free(i);
    }, "one");
  assert.equal(
    WebAssembly.Module.exports(new WebAssembly.Module(assembleWasm([one(1), one(1)], flavours[0]))).length,
    1,
  );
  assert.throws(
    () => assembleWasm([one(1), one(2)], flavours[0]),
    /one: two different kernels have this key/,
  );
});

Deno.test("freed registers are reused: a thousand takes make one local", () => {
  const thousand = assembleWasm([kernel((m) => {
    for (let i = 0; i < 1000; i++) m.free(m.vector());
  })], flavours[0]);
  const one = assembleWasm([kernel((m) => m.free(m.vector()))], flavours[0]);
  assert.deepEqual(thousand, one);
});

Deno.test("assembleWasm rejects a kernel that misuses its registers", () => {
  assertRejected(/1 vector and 2 integer registers were never freed/, (m) => {
    m.vector();
    m.integer();
    m.integer();
  });
  assertRejected(/vector register used after it was freed/, (m) => {
    const a = m.vector();
    m.constantF32(a, 0);
    m.free(a);
    m.add(a, a, a);
  });
  assertRejected(/integer register used after it was freed/, (m) => {
    const i = m.integer();
    m.free(i);
    m.setInteger(i, 1);
  });
  assertRejected(/integer register freed twice/, (m) => {
    const i = m.integer();
    m.free(i);
    m.free(i);
  });
  assertRejected(/vector register read before it was written/, (m) => {
    const a = m.vector();
    m.fma(a, a, a);
  });
  assertRejected(/more than 16 vector registers held at once/, (m) => {
    for (let i = 0; i < 17; i++) m.vector();
  });
  assertRejected(/more than 12 integer registers held at once/, (m) => {
    for (let i = 0; i < 13; i++) m.integer();
  });
});

Deno.test("assembleWasm rejects constants no instruction can hold", () => {
  const withRegisters =
    (use: (m: VectorMachine, i: ReturnType<VectorMachine["integer"]>) => void) => (m: VectorMachine) => {
      const i = m.integer();
      m.setInteger(i, 0);
      use(m, i);
      m.free(i);
    };
  assertRejected(/memory offset -4/, withRegisters((m, i) => m.loadI32(i, i, -4)));
  assertRejected(/memory offset 0.5/, withRegisters((m, i) => m.loadI32(i, i, 0.5)));
  assertRejected(
    /constant 4294967296 is not a 32-bit integer/,
    withRegisters((m, i) => m.setInteger(i, 2 ** 32)),
  );
  assertRejected(/constant 1.5 is not a 32-bit integer/, withRegisters((m, i) => m.addInteger(i, i, 1.5)));
  assertRejected(/shift by 32 bits/, withRegisters((m, i) => m.shiftLeftInteger(i, i, 32)));
  assertRejected(/loop step 0/, withRegisters((m, i) => m.forRange(i, 0, 4, 0, () => {})));
});

Deno.test("assembleWasm rejects keys that are no identifiers and arguments that were not declared", () => {
  assert.throws(() => assembleWasm([kernel(() => {}, "two words")], flavours[0]), /"two words".*identifier/);
  const wrongKind: Kernel = {
    key: "wrong_kind",
    arguments: { n: "integer" },
    emit: (_m, args) => args.pointer("n" as never),
  };
  assert.throws(
    () => assembleWasm([wrongKind], flavours[0]),
    /wrong_kind.*argument n is not a declared pointer/,
  );
});
