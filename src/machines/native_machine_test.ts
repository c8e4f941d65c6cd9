import assert from "node:assert/strict";
import fc from "fast-check";
import type { Vector, VectorMachine } from "../assemblers/vector_machine.ts";
import { defineKernel, type Kernel } from "../kernels/kernel.ts";
import {
  createArenaMemory,
  linkImage,
  type Machine,
  nativeCpu,
  nativeMachine,
  nativeUnavailableReason,
} from "./mod.ts";

const reason = nativeUnavailableReason();
if (reason !== undefined) console.log(`skipped: native machines, ${reason}`);

/** Every way of assembling that this processor runs, also those a faster one would hide. */
const flavours: { readonly name: string; readonly machine: Machine }[] = reason !== undefined ? [] : [
  { isa: "avx512", vnni: false },
  { isa: "avx512", vnni: true },
  { isa: "avx2", vnni: false },
  { isa: "avx2", vnni: true },
].flatMap(({ isa, vnni }) => {
  if (isa !== "avx512" && isa !== "avx2") return [];
  const cpu = nativeCpu()!;
  const isRunnable = isa === "avx512"
    ? cpu.avx512 && (!vnni || cpu.avx512Vnni)
    : cpu.avx2 && (!vnni || cpu.avxVnni);
  return isRunnable
    ? [{ name: `${isa}${vnni ? " with VNNI" : ""}`, machine: nativeMachine({ isa, vnni }) }]
    : [];
});

function testOnFlavours(name: string, check: (machine: Machine) => void | Promise<void>): void {
  for (const flavour of flavours) Deno.test(`${flavour.name}: ${name}`, () => check(flavour.machine));
}

/** A kernel that is given the address of a block of memory. */
function kernel(emit: (machine: VectorMachine, block: ReturnType<VectorMachine["integer"]>) => void): Kernel {
  return defineKernel({
    key: "tested",
    arguments: { block: "pointer" },
    emit(machine, args) {
      const block = args.pointer("block");
      emit(machine, block);
      machine.free(block);
    },
  }) as unknown as Kernel;
}

const memory = createArenaMemory(65536);
const words = new Int32Array(memory.buffer);
const blockAddress = 4096;
words[0] = blockAddress;
const block = words.subarray(blockAddress / 4);

const byteLanes = (lanes: number) =>
  fc.array(fc.oneof(fc.constantFrom(0, 127, 128, 255), fc.integer({ min: 0, max: 255 })), {
    minLength: 4 * lanes,
    maxLength: 4 * lanes,
  });

testOnFlavours(
  "dotU8S8 is exact with the accumulator as an operand, and when every register is held",
  (machine) => {
    const { lanes } = machine;
    const bytes = 4 * lanes;
    for (const isFull of [false, true]) {
      for (const operand of [0, 1]) {
        const [run] = linkImage(
          machine.assemble([kernel((m, base) => {
            const [a, b, ...held] = Array.from({ length: isFull ? m.vectorRegisters : 2 }, () => m.vector());
            held.forEach((register, index) => m.constantI32(register, 1000 + index));
            m.load(a, base, 0);
            m.load(b, base, bytes);
            m.dotU8S8([a, b][operand], a, b);
            m.store(base, 2 * bytes, [a, b][operand]);
            held.forEach((register, index) => m.storeLane0(base, 3 * bytes + 4 * index, register));
            m.free(a, b, ...held);
          })]),
          memory,
        );
        fc.assert(fc.property(byteLanes(lanes), byteLanes(lanes), (a, b) => {
          block.set(new Int32Array(Uint8Array.from(a).buffer), 0);
          block.set(new Int32Array(Uint8Array.from(b).buffer), lanes);
          const sums = block.slice(operand * lanes, (operand + 1) * lanes);
          run(0);
          for (let lane = 0; lane < lanes; lane++) {
            for (let i = 4 * lane; i < 4 * lane + 4; i++) sums[lane] += a[i] * (b[i] << 24 >> 24);
          }
          assert.deepEqual(block.slice(2 * lanes, 3 * lanes), sums);
          if (!isFull) return;
          const held = Array.from(block.subarray(3 * lanes, 3 * lanes + machine.vectorRegisters - 2));
          assert.deepEqual(held, held.map((_, index) => 1000 + index));
        }));
      }
    }
  },
);

testOnFlavours(
  "instructions that need a register more give it back when every register is held",
  (machine) => {
    const { lanes } = machine;
    const bytes = 4 * lanes;
    const [run] = linkImage(
      machine.assemble([kernel((m, base) => {
        const registers: Vector[] = Array.from({ length: m.vectorRegisters }, () => m.vector());
        const [a, b, x, y, ...held] = registers;
        held.forEach((register, index) => m.constantI32(register, 1000 + index));
        const count = m.integer();
        m.setInteger(count, 3);
        m.constantF32(a, 1);
        m.constantF32(b, 2);
        m.constantF32(x, 3);
        m.constantF32(y, 4);
        m.selectLess(a, a, b, x, y);
        m.storeFirst(base, 0, a, count);
        m.sumLanes(a, a);
        m.store(base, bytes, a);
        held.forEach((register, index) => m.storeLane0(base, 2 * bytes + 4 * index, register));
        m.free(count, ...registers);
      })]),
      memory,
    );
    block.fill(7);
    run(0);
    const floats = new Float32Array(memory.buffer, blockAddress);
    assert.deepEqual([...floats.subarray(0, 3)], [3, 3, 3]);
    assert.equal(block[3], 7);
    assert.deepEqual([...floats.subarray(lanes, 2 * lanes)], Array(lanes).fill(3 * lanes));
    const held = Array.from(block.subarray(2 * lanes, 2 * lanes + machine.vectorRegisters - 4));
    assert.deepEqual(held, held.map((_, index) => 1000 + index));
  },
);

testOnFlavours("pointers and arguments beyond 2 GiB reach their memory", (machine) => {
  const large = createArenaMemory(2 ** 31 + 65536);
  const [run] = linkImage(
    machine.assemble([kernel((m, base) => {
      const value = m.integer();
      m.setInteger(value, 42);
      m.storeI32(base, 8, value);
      m.free(value);
    })]),
    large,
  );
  const view = new DataView(large.buffer);
  const argumentsAddress = 2 ** 31 + 128;
  view.setUint32(argumentsAddress, 2 ** 31 + 4096, true);
  run(argumentsAddress | 0);
  assert.equal(view.getInt32(2 ** 31 + 4096 + 8, true), 42);
});

testOnFlavours("an image is for one arena; a second is refused and harms nothing", (machine) => {
  const image = machine.assemble([kernel((m, base) => {
    const value = m.integer();
    m.setInteger(value, 5);
    m.storeI32(base, 0, value);
    m.free(value);
  })]);
  const [run] = linkImage(image, memory);
  const other = createArenaMemory(65536);
  assert.throws(() => linkImage(image, other), /second arena/);
  const [again] = linkImage(image, memory);
  for (const linked of [run, again]) {
    block[0] = 0;
    linked(0);
    assert.equal(block[0], 5);
  }
});

testOnFlavours("an image crosses to a worker and writes the same memory", async (machine) => {
  const image = machine.assemble([kernel((m, base) => {
    const value = m.integer();
    m.setInteger(value, 99);
    m.storeI32(base, 4, value);
    m.free(value);
  })]);
  const source = `import { linkImage } from ${JSON.stringify(import.meta.resolve("./mod.ts"))};
    self.onmessage = ({ data }) => { linkImage(data.image, data.memory)[0](0); self.postMessage("done"); };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  block[1] = 0;
  await new Promise((resolve, reject) => {
    worker.onmessage = resolve;
    worker.onerror = reject;
    worker.postMessage({ image, memory });
  });
  worker.terminate();
  URL.revokeObjectURL(url);
  assert.equal(block[1], 99);
});

testOnFlavours(
  "linked code outlives Deno's handle, the image and a collection of garbage",
  async (machine) => {
    const runs = Array.from({ length: 20 }, (_, number) => {
      const image = machine.assemble([kernel((m, base) => {
        const value = m.integer();
        m.setInteger(value, 100 + number);
        m.storeI32(base, 0, value);
        m.free(value);
      })]);
      return linkImage(image, memory)[0];
    });
    for (let round = 0; round < 20; round++) new Uint8Array(16 << 20).fill(round);
    await new Promise((resolve) => setTimeout(resolve));
    // Often enough for the engine to switch from its slow way of calling to the fast one.
    runs.forEach((run, number) => {
      for (let call = 0; call < 20_000; call++) run(0);
      assert.equal(block[0], 100 + number);
    });
  },
);

if (flavours.length > 0) {
  Deno.test({
    name: "linking leaves no resource open",
    sanitizeResources: true,
    fn() {
      for (const { machine } of flavours) linkImage(machine.assemble([kernel(() => {})]), memory);
    },
  });
}

/** Runs a script with these permissions and gives its standard output. */
async function run(source: string, ...flags: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...flags, `data:text/typescript,${encodeURIComponent(source)}`],
    env: { NO_COLOR: "1" },
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test("without the permission there are no native machines, and the reason says so", async () => {
  const printed = await run(`
    import { availableMachines, nativeUnavailableReason, selectMachine } from ${
    JSON.stringify(import.meta.resolve("./mod.ts"))
  };
    console.log(availableMachines().map(({ isa }) => isa).join());
    console.log(nativeUnavailableReason());
    try { selectMachine("avx2") } catch (error) { console.log(error.message) }
  `);
  const [machines, why, message] = printed.split("\n");
  assert.equal(machines, "wasm-relaxed-simd,wasm-simd");
  assert.match(
    why,
    Deno.build.os === "linux" && Deno.build.arch === "x86_64" ? /--allow-ffi/ : /not x86_64 linux/,
  );
  assert.ok(message.startsWith("Unknown or unavailable instruction set avx2: ") && message.endsWith(why));
});

Deno.test({
  name: "LACUNA_DUMP writes each image to its folder",
  ignore: reason !== undefined,
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      await run(
        `import { nativeMachines } from ${JSON.stringify(import.meta.resolve("./mod.ts"))};
        Deno.env.set("LACUNA_DUMP", ${JSON.stringify(folder)});
        nativeMachines().forEach((machine) => machine.assemble([]));`,
        "-A",
      );
      const names = Array.from(Deno.readDirSync(folder), ({ name }) => name.replace(/-\d+-\d+\.so$/, ""));
      assert.ok(names.includes("lacuna-avx2"), names.join());
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
