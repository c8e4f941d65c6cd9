import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { type ArgumentSpec, defineKernel, type Kernel } from "../kernels/kernel.ts";
import {
  availableMachines,
  createArenaMemory,
  fallbackReason,
  linkImage,
  selectMachine,
  wasmFeatures,
  wasmMachine,
} from "./mod.ts";

/** Stores a number at byte 128. */
function storing(value: number): Kernel {
  return defineKernel<ArgumentSpec>({
    key: `store_${value}`,
    arguments: {},
    emit(machine) {
      const base = machine.integer();
      const number = machine.integer();
      machine.setInteger(base, 0);
      machine.setInteger(number, value);
      machine.storeI32(base, 128, number);
      machine.free(base, number);
    },
  });
}

Deno.test("this runtime has the WebAssembly features lacuna builds on", () => {
  assert.deepEqual(wasmFeatures(), { simd: true, relaxedSimd: true, threads: true });
});

Deno.test("selectMachine takes the fastest, a family's best, or the named one", () => {
  const machines = availableMachines();
  assert.equal(selectMachine().isa, machines[0].isa);
  assert.equal(selectMachine("wasm").isa, "wasm-relaxed-simd");
  for (const { isa } of machines) assert.equal(selectMachine(isa).isa, isa);
});

Deno.test("selectMachine takes what LACUNA_ISA names, unless told", () => {
  const before = Deno.env.get("LACUNA_ISA");
  try {
    Deno.env.set("LACUNA_ISA", "wasm-simd");
    assert.equal(selectMachine().isa, "wasm-simd");
    assert.equal(selectMachine("wasm").isa, "wasm-relaxed-simd");
    assert.equal(fallbackReason(), undefined, "it was asked for");
    Deno.env.set("LACUNA_ISA", "sse2");
    assert.throws(() => selectMachine(), /Unknown or unavailable instruction set sse2/);
    Deno.env.set("LACUNA_ISA", "");
    assert.equal(selectMachine().isa, availableMachines()[0].isa);
  } finally {
    if (before === undefined) Deno.env.delete("LACUNA_ISA");
    else Deno.env.set("LACUNA_ISA", before);
  }
});

Deno.test("without --allow-ffi kernels run as WebAssembly, and one line says why", async () => {
  const code = `import { fallbackReason, selectMachine } from ${
    JSON.stringify(import.meta.resolve("./mod.ts"))
  };
    console.log(selectMachine().isa + ": " + fallbackReason());`;
  const script = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(script, code);
    const run = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", "--allow-read", script],
      stderr: "inherit",
    }).output();
    assert.match(
      new TextDecoder().decode(run.stdout).trim(),
      /^wasm-relaxed-simd: kernels run as WebAssembly: (loading native code needs --allow-ffi|this is .*, not x86_64 linux)$/,
    );
  } finally {
    await Deno.remove(script);
  }
});

Deno.test("selectMachine rejects an unknown instruction set and lists the known ones", () => {
  assert.throws(() => selectMachine("avx1024"), (error) => {
    assert.ok(error instanceof InputError);
    assert.match(error.message, /avx1024.*wasm, wasm-relaxed-simd, wasm-simd/);
    return true;
  });
  assert.throws(() => selectMachine("wasm-relaxed"), InputError);
  assert.throws(() => selectMachine(""), InputError);
});

Deno.test("linkImage gives the kernels in the order of the keys, against memories of any size", () => {
  for (const machine of [wasmMachine({ relaxed: false }), wasmMachine({ relaxed: true })]) {
    const image = machine.assemble([storing(7), storing(3), storing(7)]);
    assert.deepEqual(image.keys, ["store_7", "store_3"]);
    for (const bytes of [1, 65536, 10_000_000]) {
      const memory = createArenaMemory(bytes);
      const [seven, three] = linkImage(image, memory);
      const words = new Int32Array(memory.buffer);
      seven(0);
      assert.equal(words[32], 7);
      three(0);
      assert.equal(words[32], 3);
    }
  }
});

Deno.test("a compiled image crosses to a worker and writes the same memory", async () => {
  const memory = createArenaMemory(65536);
  const image = selectMachine("wasm").assemble([storing(99)]);
  const source = `import { linkImage } from ${JSON.stringify(import.meta.resolve("./mod.ts"))};
    self.onmessage = ({ data }) => { linkImage(data.image, data.memory)[0](0); self.postMessage("done"); };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  await new Promise((resolve, reject) => {
    worker.onmessage = resolve;
    worker.onerror = reject;
    worker.postMessage({ image, memory });
  });
  worker.terminate();
  URL.revokeObjectURL(url);
  assert.equal(new Int32Array(memory.buffer)[32], 99);
});

Deno.test("createArenaMemory rounds up to pages, is shared, and rejects what cannot be addressed", () => {
  const memory = createArenaMemory(65537);
  assert.ok(memory.buffer instanceof SharedArrayBuffer);
  assert.equal(memory.buffer.byteLength, 131072);
  for (const bytes of [2 ** 32 + 1, -1, NaN]) {
    assert.throws(() => createArenaMemory(bytes), (error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, new RegExp(`${bytes} bytes.*4294967296`));
      return true;
    });
  }
});
