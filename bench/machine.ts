/**
 * Describes the machine a benchmark ran on, because a latency means nothing without it.
 *
 * On Linux the processor and its caches are read from `/proc` and `/sys`; elsewhere they are "unknown" and say why.
 * The peak is measured, not computed: a kernel of nothing but independent fused multiply-adds, assembled by the same
 * machine that assembles the kernels under test, so that "share of peak" compares like with like.
 * @module
 */
import type { Vector } from "../src/assemblers/vector_machine.ts";
import { usableCores } from "../src/core/cores.ts";
import { errorMessage } from "../src/core/errors.ts";
import { defineKernel, type Kernel } from "../src/kernels/kernel.ts";
import { createArenaMemory, linkImage, type Machine, selectMachine } from "../src/machines/mod.ts";

/** A cache as the first core sees it. */
export interface Cache {
  /** 1 is nearest to the core. */
  readonly level: number;
  /** Unified caches hold instructions too. */
  readonly kind: "data" | "unified";
  /** Capacity. */
  readonly bytes: number;
}

/** The machine, in the keys of the JSON result. */
export interface MachineDescription {
  /** Model name, or "unknown: reason". */
  readonly cpu: string;
  /** Instruction set lacuna's kernels were assembled for. */
  readonly isa: string;
  /** Processors this process may use. */
  readonly cores: number;
  /** Data and unified caches, nearest first, or "unknown: reason". */
  readonly caches: readonly Cache[] | string;
  /** fp32 multiply-adds of one core with this instruction set, 2 operations each, in 10⁹ operations a second. */
  readonly peak_gflops: number;
}

/** Describes this machine. `isa` chooses the instruction set as `selectMachine` does. Takes about half a second. */
export async function describeMachine(isa?: string): Promise<MachineDescription> {
  const machine = selectMachine(isa);
  return {
    cpu: await describe(readCpu),
    isa: machine.isa,
    cores: usableCores().count,
    caches: await describe(() => readCaches()),
    peak_gflops: measurePeak(machine),
  };
}

/** The value, or why there is none. */
async function describe<T>(read: () => Promise<T>): Promise<T | string> {
  if (Deno.build.os !== "linux") {
    return `unknown: read from /proc and /sys, which ${Deno.build.os} does not have`;
  }
  try {
    return await read();
  } catch (error) {
    return `unknown: ${errorMessage(error)}`;
  }
}

async function readCpu(): Promise<string> {
  return parseCpuModel(await Deno.readTextFile("/proc/cpuinfo"));
}

/** The model name in the text of `/proc/cpuinfo`, or "unknown: reason". */
export function parseCpuModel(cpuinfo: string): string {
  const model = cpuinfo.match(/^model name\s*:\s*(\S.*)$/m)?.[1].trim();
  return model ?? "unknown: /proc/cpuinfo has no model name";
}

/** Reads the caches of the first core from a folder laid out as `/sys/devices/system/cpu/cpu0/cache`. */
export async function readCaches(folder = "/sys/devices/system/cpu/cpu0/cache"): Promise<readonly Cache[]> {
  const caches: Cache[] = [];
  for await (const entry of Deno.readDir(folder)) {
    if (!/^index\d+$/.test(entry.name)) continue;
    const read = async (name: string) => (await Deno.readTextFile(`${folder}/${entry.name}/${name}`)).trim();
    const [level, kind, size] = await Promise.all(["level", "type", "size"].map(read));
    if (kind === "Instruction") continue;
    caches.push({ level: Number(level), kind: kind === "Data" ? "data" : "unified", bytes: parseSize(size) });
  }
  return caches.sort((a, b) => a.level - b.level);
}

/** `48K` and `32M` in bytes. */
function parseSize(text: string): number {
  const [, digits, unit] = text.match(/^(\d+)([KMG]?)$/) ?? [];
  if (digits === undefined) {
    throw new RangeError(`Cannot read cache size "${text}", wanted digits and K, M or G`);
  }
  return Number(digits) * 1024 ** "_KMG".indexOf(unit || "_");
}

/** Enough independent sums to hide the latency of a multiply-add: 4 cycles on 2 ports need 8. */
const sums = 12;
/** Multiply-adds of each sum between two loop tests, so that the loop itself costs nothing. */
const unrolled = 8;

/** result[lanes] = the sum of `sums` registers that each added a·b `unrolled · repeats` times. */
function peakKernel(machine: Machine): Kernel {
  const spec = { result: "pointer", repeats: "integer" } as const;
  return defineKernel({
    key: `peak_f32_${machine.lanes}`,
    arguments: spec,
    emit(m, args) {
      const result = args.pointer("result");
      const repeats = args.integer("repeats");
      const [a, b] = [m.vector(), m.vector()];
      m.constantF32(a, 1);
      m.constantF32(b, 2 ** -20);
      const totals: Vector[] = Array.from({ length: sums }, () => m.vector());
      totals.forEach((total) => m.constantF32(total, 0));
      m.repeat(repeats, () => {
        for (let i = 0; i < unrolled; i++) totals.forEach((total) => m.fma(total, a, b));
      });
      for (const total of totals.slice(1)) m.add(totals[0], totals[0], total);
      m.store(result, 0, totals[0]);
      m.free(result, repeats, a, b, ...totals);
    },
  }) as unknown as Kernel;
}

/** Best of many short runs on this thread, in 10⁹ operations a second: interruptions only ever lower a run. */
export function measurePeak(machine: Machine, seconds = 0.4): number {
  const kernel = peakKernel(machine);
  const memory = createArenaMemory(65536);
  const [run] = linkImage(machine.assemble([kernel]), memory);
  const words = new Int32Array(memory.buffer);
  const repeats = 20_000;
  const operations = 2 * machine.lanes * sums * unrolled * repeats;
  let best = 0;
  const end = performance.now() + seconds * 1000;
  for (let start = performance.now(); start < end;) {
    words.set([1024, repeats]);
    run(0);
    const now = performance.now();
    best = Math.max(best, operations / (now - start) / 1e6);
    start = now;
  }
  const expected = sums * unrolled * repeats * 2 ** -20;
  const sum = new Float32Array(memory.buffer)[256];
  if (Math.abs(sum - expected) > 1e-3 * expected) {
    throw new Error(`The peak kernel of ${machine.isa} summed to ${sum}, wanted ${expected}`);
  }
  return best;
}
