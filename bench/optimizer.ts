/**
 * The optimisers beside the machine's memory: AdamW moves 28 bytes a parameter and should run as fast as they can move.
 *
 * Contestants take turns in one run: a plain copy, AdamW's loads and stores without its arithmetic, every optimiser, and
 * AdamW with a mask. Rates count what the program asks for (a copy: 4 bytes read and 4 written an element); the
 * processor also reads the lines that a copy only writes, which optimisers, updating in place, have read anyway.
 *
 *     deno run -A bench/optimizer.ts [parameters] [isa] [threads]
 * @module
 */
import { chooseThreads } from "../src/core/cores.ts";
import { Graph } from "../src/graph/graph.ts";
import { splitRange, type Step } from "../src/graph/operation.ts";
import { callKernel, defineKernel, type Kernel } from "../src/kernels/kernel.ts";
import { optimizerDefaults, updateRule } from "../src/kernels/optimizer/optimizers.ts";
import type { OptimizerSettings, UpdateRule } from "../src/kernels/optimizer/rule.ts";
import { updateSteps } from "../src/kernels/optimizer/steps.ts";
import { selectMachine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { prepare } from "../src/plan/executor.ts";
import { planGraph } from "../src/plan/plan.ts";
import type { Program } from "../src/plan/program.ts";
import { WorkerPool } from "../workers/pool.ts";

/** What to measure. */
export interface OptimizerBenchOptions {
  /** Parameters, rounded up to whole worker shares; beyond the last cache at 20 bytes each for a true answer. */
  readonly parameters: number;
  /** As `selectMachine` takes it. */
  readonly isa?: string;
  /** Workers; default: one per usable core. */
  readonly threads?: number;
  /** Turns of each contestant. */
  readonly turns?: number;
}

/** One contestant. Rates in 10⁹ bytes a second. */
export interface OptimizerRow {
  /** `copy`, `traffic`, or the key of an `UpdateRule`, with `masked` where it runs with a mask. */
  readonly pass: string;
  /** Bytes read and written per parameter. */
  readonly bytes_per_parameter: number;
  readonly median_ms: number;
  readonly best_ms: number;
  /** At the median. */
  readonly gb_s: number;
  /** Median rate over that of the copy. */
  readonly share_of_copy: number;
}

/** Rates of all contestants. */
export interface OptimizerBenchResult {
  readonly isa: string;
  readonly threads: number;
  readonly parameters: number;
  readonly rows: readonly OptimizerRow[];
}

/** Elements that a worker's share and a turn of the loops below are multiples of, on every machine. */
const grain = 64;

/** Every optimiser, and those of its forms that remember more. */
const optimizers = [
  optimizerDefaults("adamw"),
  { ...optimizerDefaults("adamw"), amsgrad: true },
  optimizerDefaults("adam"),
  optimizerDefaults("sgd"),
  { ...optimizerDefaults("sgd"), momentum: 0.9 },
  { ...optimizerDefaults("sgd"), momentum: 0.9, nesterov: true },
  optimizerDefaults("rmsprop"),
  { ...optimizerDefaults("rmsprop"), centered: true, momentum: 0.9 },
] as OptimizerSettings[];

/** Arguments of the two reference kernels. */
const streamArguments = { a: "pointer", b: "pointer", c: "pointer", d: "pointer", turns: "integer" } as const;

/** b = a, four vectors a turn. */
const copyKernel: Kernel<typeof streamArguments> = defineKernel({
  key: "bench_copy",
  arguments: streamArguments,
  emit(vm, args) {
    const [source, target, turns] = [args.pointer("a"), args.pointer("b"), args.integer("turns")];
    const values = Array.from({ length: 4 }, () => vm.vector());
    vm.repeat(turns, () => {
      values.forEach((value, i) => vm.load(value, source, 4 * vm.lanes * i));
      values.forEach((value, i) => vm.store(target, 4 * vm.lanes * i, value));
      for (const pointer of [source, target]) vm.addInteger(pointer, pointer, 4 * vm.lanes * values.length);
    });
    vm.free(source, target, turns, ...values);
  },
});

/** Reads a, b, c and d, and writes a, c and d in place: what AdamW does to memory, one vector a turn. */
const trafficKernel: Kernel<typeof streamArguments> = defineKernel({
  key: "bench_adamw_traffic",
  arguments: streamArguments,
  emit(vm, args) {
    const pointers = [args.pointer("a"), args.pointer("b"), args.pointer("c"), args.pointer("d")];
    const turns = args.integer("turns");
    const values = pointers.map(() => vm.vector());
    vm.repeat(turns, () => {
      pointers.forEach((pointer, i) => vm.load(values[i], pointer, 0));
      // The gradient is used too: without that the processor need not wait for it.
      for (const i of [0, 2, 3]) vm.or(values[i], values[i], values[1]);
      for (const i of [0, 2, 3]) vm.store(pointers[i], 0, values[i]);
      for (const pointer of pointers) vm.addInteger(pointer, pointer, 4 * vm.lanes);
    });
    vm.free(turns, ...pointers, ...values);
  },
});

/** Bytes that a step reads and writes per parameter: weight, gradient and states in, weight and states out. */
function stepBytes({ states }: UpdateRule): number {
  return 4 * (3 + 2 * states.length);
}

/** Times every contestant on one arena of 20 bytes a parameter. */
export async function benchOptimizer(options: OptimizerBenchOptions): Promise<OptimizerBenchResult> {
  const machine = selectMachine(options.isa);
  const threads = chooseThreads(options.threads).count;
  const count = Math.ceil(options.parameters / grain) * grain;
  const rules = optimizers.map(updateRule);
  const [adamw] = rules;
  const arena = new Arena(20 * count + count / 8 + 2 ** 16);
  const [w, g, ...states] = ["w", "g", "state 0", "state 1", "state 2"].map((name) => {
    const address = arena.allocate(4 * count, name);
    arena.float32(address, count).fill(2 ** -10); // Fresh pages all stand for one page of zeros; written ones are memory.
    return address;
  });
  const mask = arena.allocate(count / 8, "mask");
  arena.bytes(mask, count / 8).fill(255);
  const scalars = new Map(rules.map((rule) => {
    const address = arena.allocate(4 * rule.scalars.length, `scalars of ${rule.key}`);
    const group = { learningRate: 1e-5, weightDecay: 0.01 };
    arena.float32(address, rule.scalars.length).set(rule.scalarsOf(group, 10));
    return [rule, address];
  }));
  const clip = arena.allocate(4, "clip");
  arena.float32(clip, 1)[0] = 1;

  const stream = (kernel: Kernel<typeof streamArguments>, vectors: number, elements: number): Step[] => [{
    name: kernel.key,
    calls: splitRange(elements, threads, grain).map(({ begin, end }) => [callKernel(kernel, {
      // The copy goes from the first half of the arrays to the second.
      a: w + 4 * begin,
      b: (kernel === copyKernel ? states[0] : g) + 4 * begin,
      c: states[0] + 4 * begin,
      d: states[1] + 4 * begin,
      turns: (end - begin) / (vectors * machine.lanes),
    })]),
  }];
  const update = (rule: UpdateRule, mask?: number) => {
    const range = {
      weights: w,
      gradients: g,
      states: states.slice(0, rule.states.length),
      scalars: scalars.get(rule)!,
      mask,
      count,
    };
    return updateSteps({ rule, ranges: [range], clip, workers: threads });
  };
  const contestants: { pass: string; bytes: number; steps: Step[] }[] = [
    { pass: "copy", bytes: 16, steps: stream(copyKernel, 4, 2 * count) },
    { pass: "traffic", bytes: stepBytes(adamw), steps: stream(trafficKernel, 1, count) },
    ...rules.map((rule) => ({ pass: rule.key, bytes: stepBytes(rule), steps: update(rule) })),
    { pass: "adamw masked", bytes: stepBytes(adamw) + 1 / 8, steps: update(adamw, mask) },
  ];

  const executor = await WorkerPool.create({ machine, threads, arena });
  try {
    const { lanes, vectorRegisters } = machine;
    const target = { lanes, vectorRegisters, tile: lanes, workers: threads };
    const runs: { program: Program; times: number[] }[] = [];
    for (const { steps } of contestants) {
      const plan = planGraph(new Graph(), { target, bindings: new Map(), base: 0, epilogue: steps });
      runs.push({ program: await prepare(executor, plan), times: [] });
    }
    // One turn to warm up.
    for (let turn = -1; turn < (options.turns ?? 9); turn++) {
      for (const { program, times } of runs) {
        const start = performance.now();
        await executor.run(program);
        if (turn >= 0) times.push(performance.now() - start);
      }
    }
    checkDone(arena.float32(w, count), machine.isa);
    const medians = runs.map(({ times }) => times.sort((a, b) => a - b)[times.length >> 1]);
    const rate = (index: number) => contestants[index].bytes * count / medians[index] / 1e6;
    const rows = contestants.map(({ pass, bytes }, index): OptimizerRow => ({
      pass,
      bytes_per_parameter: bytes,
      median_ms: medians[index],
      best_ms: runs[index].times[0],
      gb_s: rate(index),
      share_of_copy: rate(index) / rate(0),
    }));
    return { isa: machine.isa, threads, parameters: count, rows };
  } finally {
    await executor.dispose();
  }
}

/** All parameters started alike and had like gradients, so they end alike, and elsewhere. */
function checkDone(weights: Float32Array, isa: string): void {
  const [first] = weights;
  if (Number.isFinite(first) && first !== 2 ** -10 && weights.every((weight) => weight === first)) return;
  throw new Error(
    `Optimisers on ${isa} left weights of ${first} and others: wanted one value, and not the first`,
  );
}

/** The result as a table. */
export function formatOptimizer({ isa, threads, parameters, rows }: OptimizerBenchResult): string {
  return [
    `${isa}, ${threads} threads, ${(parameters / 1e6).toFixed(1)} million parameters`,
    "pass                       bytes/parameter   median ms     best ms      GB/s   of copy",
    ...rows.map(({ pass, bytes_per_parameter, median_ms, best_ms, gb_s, share_of_copy }) =>
      pass.padEnd(27) + bytes_per_parameter.toFixed(2).padStart(15) + median_ms.toFixed(1).padStart(12) +
      best_ms.toFixed(1).padStart(12) + gb_s.toFixed(2).padStart(10) +
      `${(100 * share_of_copy).toFixed(0)} %`.padStart(10)
    ),
  ].join("\n");
}

if (import.meta.main) {
  const [parameters, isa, threads] = Deno.args;
  const result = await benchOptimizer({
    parameters: Number(parameters ?? 100e6),
    isa,
    threads: threads === undefined ? undefined : Number(threads),
  });
  console.log(formatOptimizer(result));
}
