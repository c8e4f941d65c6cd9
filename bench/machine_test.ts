import assert from "node:assert/strict";
import { availableMachines } from "../src/machines/mod.ts";
import { describeMachine, measurePeak, parseCpuModel, readCaches } from "./machine.ts";

Deno.test("describeMachine: fills every key of the JSON result", async () => {
  const machine = await describeMachine();
  assert.deepEqual(Object.keys(machine), ["cpu", "isa", "cores", "caches", "peak_gflops"]);
  assert.equal(machine.isa, availableMachines()[0].isa);
  assert(machine.cores >= 1);
  assert(machine.cpu.length > 0);
});

Deno.test("parseCpuModel: takes the first model name, or says that there is none", () => {
  const x86 = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) Gold\nmodel name\t: other\n";
  assert.equal(parseCpuModel(x86), "Intel(R) Xeon(R) Gold");
  assert.equal(
    parseCpuModel("processor\t: 0\nBogoMIPS\t: 50.00\n"),
    "unknown: /proc/cpuinfo has no model name",
  );
});

Deno.test("readCaches: data and unified caches, nearest first, in bytes", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const files: Record<string, string[]> = {
      index0: ["1", "Data", "48K"],
      index1: ["1", "Instruction", "32K"],
      index2: ["3", "Unified", "1G"],
      index3: ["2", "Unified", "2048K"],
      power: ["9", "Unified", "1K"],
    };
    for (const [name, values] of Object.entries(files)) {
      await Deno.mkdir(`${folder}/${name}`);
      for (const [i, file] of ["level", "type", "size"].entries()) {
        await Deno.writeTextFile(`${folder}/${name}/${file}`, `${values[i]}\n`);
      }
    }
    assert.deepEqual(await readCaches(folder), [
      { level: 1, kind: "data", bytes: 48 * 1024 },
      { level: 2, kind: "unified", bytes: 2 * 2 ** 20 },
      { level: 3, kind: "unified", bytes: 2 ** 30 },
    ]);
    await Deno.writeTextFile(`${folder}/index0/size`, "many");
    await assert.rejects(readCaches(folder), /Cannot read cache size "many"/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

for (const machine of availableMachines()) {
  Deno.test(`measurePeak: ${machine.isa} runs the kernel, whose sum is checked, at some rate`, () => {
    const rate = measurePeak(machine, 0.02);
    assert(Number.isFinite(rate) && rate > 0);
  });
}
