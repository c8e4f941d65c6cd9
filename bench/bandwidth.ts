/**
 * How fast one core reads memory: what a kernel that streams its weights cannot outrun.
 * @module
 */
import { defineKernel, type Kernel } from "../src/kernels/kernel.ts";
import { createArenaMemory, linkImage, type Machine } from "../src/machines/mod.ts";

/** Vectors read in a turn of the loop, into as many sums, so that no load waits for an addition. */
const unrolled = 8;

/** Adds up a buffer and stores the sums, so that every byte is needed. */
function readKernel(): Kernel {
  const spec = { source: "pointer", turns: "integer", result: "pointer" } as const;
  return defineKernel({
    key: "read_bandwidth",
    arguments: spec,
    emit(vm, args) {
      const source = args.pointer("source");
      const turns = args.integer("turns");
      const sums = Array.from({ length: unrolled }, () => vm.vector());
      const value = vm.vector();
      for (const sum of sums) vm.constantF32(sum, 0);
      vm.repeat(turns, () => {
        sums.forEach((sum, i) => {
          vm.load(value, source, i * vm.lanes * 4);
          vm.add(sum, sum, value);
        });
        vm.addInteger(source, source, unrolled * vm.lanes * 4);
      });
      const result = args.pointer("result");
      sums.forEach((sum, i) => vm.store(result, i * vm.lanes * 4, sum));
      vm.free(source, turns, value, result, ...sums);
    },
  }) as unknown as Kernel;
}

/**
 * Reads a buffer of that size again and again on this thread: the best rate in 10⁹ bytes a second. A buffer smaller
 * than a cache tells the rate of that cache.
 */
export function measureReadBandwidth(machine: Machine, bytes: number, seconds = 0.2): number {
  const turnBytes = unrolled * machine.lanes * 4;
  const turns = Math.floor(bytes / turnBytes);
  const source = 8192;
  const memory = createArenaMemory(source + turns * turnBytes);
  // Fresh pages all stand for one page of zeros; written ones are memory.
  new Float32Array(memory.buffer, source, turns * turnBytes / 4).fill(1);
  const [run] = linkImage(machine.assemble([readKernel()]), memory);
  const words = new Int32Array(memory.buffer);
  words.set([source, turns, 4096], 16);
  const repeats = Math.max(1, Math.round(2 ** 22 / bytes));
  let best = 0;
  const end = performance.now() + seconds * 1000;
  for (let start = performance.now(); start < end;) {
    for (let i = 0; i < repeats; i++) run(64);
    const now = performance.now();
    best = Math.max(best, repeats * turns * turnBytes / (now - start) / 1e6);
    start = now;
  }
  const sum = new Float32Array(memory.buffer)[1024];
  if (sum !== Math.min(turns, 2 ** 24)) {
    throw new Error(`The reading kernel of ${machine.isa} summed to ${sum}, wanted ${turns}`);
  }
  return best;
}
