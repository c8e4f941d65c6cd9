import assert from "node:assert/strict";
import { assembleX64 } from "../assemblers/x64.ts";
import { type ArgumentSpec, defineKernel } from "../kernels/kernel.ts";
import { encodeSharedObject, symbolHash } from "./elf.ts";

const kernels = ["first_kernel", "second_kernel"].map((key) =>
  defineKernel<ArgumentSpec>({
    key,
    arguments: {},
    emit(machine) {
      const a = machine.vector();
      machine.constantF32(a, 0.5);
      machine.free(a);
    },
  })
);

function sample() {
  const code = assembleX64(kernels, { isa: "avx512", vnni: true });
  const file = encodeSharedObject(code);
  return { code, file, view: new DataView(file.buffer) };
}

interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly bytes: number;
}

function segments(view: DataView): Segment[] {
  return Array.from({ length: view.getUint16(56, true) }, (_, index) => {
    const at = 64 + 56 * index;
    const long = (offset: number) => Number(view.getBigUint64(at + offset, true));
    return {
      type: view.getUint32(at, true),
      flags: view.getUint32(at + 4, true),
      offset: long(8),
      address: long(16),
      bytes: long(32),
    };
  });
}

Deno.test("symbolHash is the function of the System V ABI", () => {
  // Values of the ABI's own C text.
  assert.equal(symbolHash(""), 0);
  assert.equal(symbolHash("printf"), 0x077905a6);
  assert.equal(symbolHash("exit"), 0x0006cf04);
  assert.equal(symbolHash("flapenguin.me"), 0x03987915);
});

Deno.test("no segment is writable and executable, none shares a page, and the stack is not executable", () => {
  const all = segments(sample().view);
  for (const { flags } of all) assert.notEqual(flags & 3, 3);
  const loads = all.filter(({ type }) => type === 1);
  assert.deepEqual(loads.map(({ flags }) => flags), [4, 5, 6]);
  for (const { offset, address } of loads) assert.equal(address, offset);
  for (const [index, { offset }] of loads.slice(1).entries()) {
    assert.equal(offset % 4096, 0);
    assert.ok(offset >= loads[index].offset + loads[index].bytes);
  }
  assert.equal(all.find(({ type }) => type === 0x6474e551)?.flags, 6);
});

Deno.test("references from the text reach the constants and the data", () => {
  const { code, file, view } = sample();
  const [readable, executable, writable] = segments(view);
  const targets = code.fixups.map(({ position, end, section }) => {
    const distance = view.getInt32(executable.offset + position, true);
    return { section, address: executable.offset + end + distance };
  });
  assert.equal(targets.length, 6);
  for (const { section, address } of targets) {
    if (section === "constants") {
      assert.ok(address < readable.bytes);
      assert.equal(view.getFloat32(address, true), 0.5);
    } else {
      assert.ok(address >= writable.offset && address + 8 <= writable.offset + writable.bytes);
      assert.equal(view.getBigUint64(address, true), 0n);
    }
  }
  assert.deepEqual([...file.subarray(executable.offset, executable.offset + 3)], [
    ...code.text.subarray(0, 3),
  ]);
});

async function output(program: string, args: string[]): Promise<string | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
    if (!success || stderr.length > 0) throw new Error(new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

Deno.test("binutils read the file without complaint and show the functions by name", async () => {
  const path = await Deno.makeTempFile({ suffix: ".so" });
  try {
    await Deno.writeFile(path, sample().file);
    const symbols = await output("readelf", ["--all", "--wide", path]);
    const listing = await output("objdump", ["-d", path]);
    if (symbols === undefined || listing === undefined) {
      return console.log("skipped: binutils are not on this machine");
    }
    assert.match(symbols, /FLAGS_1.*NODELETE/);
    for (const { key } of kernels) {
      assert.match(symbols, new RegExp(`FUNC +GLOBAL +DEFAULT +\\d+ ${key}`));
      assert.match(listing, new RegExp(`<${key}>:[^]*?add[^]*?vbroadcastss[^]*?vzeroupper[^]*?ret`));
    }
  } finally {
    await Deno.remove(path);
  }
});
