/**
 * The kernels one by one: rates at BERT's shapes beside what the machine can do, and where sparse ones begin to pay.
 *
 * For a shape and a number of tokens all contestants take turns, one call a turn, on the same activations. Between two
 * calls of one pass all others with their weights, so weights come from beyond the L2 cache and branches are not learned
 * by heart, as when a model is served. The fastest turn counts. One core.
 * @module
 */
import { randomKey, RandomStream } from "../src/core/random.ts";
import { byteLength, Graph, rows, tiled, type Value, type ValueType } from "../src/graph/graph.ts";
import { packTiled, tiledIndex } from "../src/graph/layout.ts";
import type { NumberArray, Operation } from "../src/graph/operation.ts";
import { chooseBlocking } from "../src/kernels/sparse_matmul/blocking.ts";
import { attention } from "../src/kernels/attention/operation.ts";
import { gelu } from "../src/kernels/gelu/operation.ts";
import { layerNorm } from "../src/kernels/layer_norm/operation.ts";
import { matmul } from "../src/kernels/matmul/operation.ts";
import { sparseMatmul } from "../src/kernels/sparse_matmul/operation.ts";
import { packSparse, type SparsePattern } from "../src/kernels/sparse_matmul/pack.ts";
import { packedTypes } from "../src/kernels/sparse_matmul/types.ts";
import { levelOneBytes, type Machine, selectMachine } from "../src/machines/mod.ts";
import { Arena } from "../src/plan/arena.ts";
import { InlineExecutor, prepare } from "../src/plan/executor.ts";
import { planBytes, planGraph, usualTile } from "../src/plan/plan.ts";
import { programBytes } from "../src/plan/program.ts";
import { measureReadBandwidth } from "./bandwidth.ts";
import { describeMachine, type MachineDescription } from "./machine.ts";

/** A matrix of a model. */
export interface KernelShape {
  readonly name: string;
  /** Output features. */
  readonly outputs: number;
  /** Input features. */
  readonly inputs: number;
}

/** The matrices of BERT-base, MiniLM-L6 and BERT-tiny. */
export const kernelShapes: readonly KernelShape[] = ([["base", 768], ["minilm", 384], ["tiny", 128]] as const)
  .flatMap(([model, hidden]) => [
    { name: `${model} attention`, outputs: hidden, inputs: hidden },
    { name: `${model} up`, outputs: 4 * hidden, inputs: hidden },
    { name: `${model} down`, outputs: hidden, inputs: 4 * hidden },
  ]);

/** What to measure. */
export interface KernelBenchOptions {
  /** As `selectMachine` takes it. */
  readonly isa?: string;
  readonly shapes?: readonly KernelShape[];
  readonly tokens?: readonly number[];
  readonly sparsities?: readonly number[];
  /** Seconds of each contestant, on average. */
  readonly seconds?: number;
  readonly onProgress?: (text: string) => void;
}

/** One kernel at one shape. Rates in 10⁹ a second. */
export interface KernelRow {
  readonly kernel: "dense" | SparsePattern | "attention" | "layerNorm" | "gelu";
  readonly shape: string;
  readonly tokens: number;
  /** Share of zeros, counted; 0 for kernels without weights to leave out. */
  readonly sparsity: number;
  readonly time_us: number;
  /** Operations done, 2 for a multiply-add; of layerNorm and gelu a nominal 1 for each element. */
  readonly gflops: number;
  /** What a dense kernel would have to do in the same time. */
  readonly dense_equivalent_gflops: number;
  readonly share_of_peak: number;
  readonly weight_bytes: number;
  /** The weights as the kernel reads them, once for each tile of tokens. */
  readonly weight_gb_s: number;
  /** Of the rate at which a buffer in the L2 cache is read. */
  readonly share_of_l2: number;
  /** The weights read once, of the rate at which a buffer larger than the L2 cache is read. */
  readonly share_of_memory: number;
  /** Time of the dense twin over this time; 1 for those that have none. */
  readonly speedup_vs_dense: number;
  /** Largest difference from sums in float64, over the largest of the sums. */
  readonly error: number;
}

/** Where a pattern begins to pay. */
export interface BreakEven {
  readonly pattern: SparsePattern;
  /** First of the measured sparsities from which on the pattern is faster than dense at every shape and length. */
  readonly always_faster_from: number | null;
  /** For half of the shapes and lengths the pattern is faster below this density, by a line through the times. */
  readonly median_density: number;
  /** For all. */
  readonly least_density: number;
}

/** The result. */
export interface KernelBenchResult {
  readonly machine: MachineDescription;
  /** 10⁹ bytes a second that one core reads from a buffer of half an L2 cache, and from one of 64 MiB. */
  readonly bandwidth: { readonly l2_gb_s: number; readonly memory_gb_s: number };
  readonly rows: readonly KernelRow[];
  readonly break_even: readonly BreakEven[];
}

/** Runs the benchmark. Throws when a kernel's answer is wrong. */
export async function benchKernels(options: KernelBenchOptions = {}): Promise<KernelBenchResult> {
  const { isa, shapes = kernelShapes, tokens = [16, 128, 512], onProgress } = options;
  const { sparsities = [0.5, 0.7, 0.8, 0.9, 0.95], seconds = 0.15 } = options;
  const machine = selectMachine(isa);
  onProgress?.("peak and bandwidth");
  const description = await describeMachine(isa);
  const level2 = typeof description.caches === "string"
    ? undefined
    : description.caches.find(({ level }) => level === 2)?.bytes;
  const bandwidth = {
    l2_gb_s: measureReadBandwidth(machine, (level2 ?? 2 ** 20) / 2),
    memory_gb_s: measureReadBandwidth(machine, 2 ** 26),
  };
  const kernelRows: KernelRow[] = [];
  for (const count of tokens) {
    for (const shape of shapes) {
      onProgress?.(`${shape.name}, ${count} tokens`);
      const round = new Round(machine, count);
      round.addMatrix(shape, sparsities);
      kernelRows.push(...await round.run(shape.name, seconds, description.peak_gflops, bandwidth));
    }
    onProgress?.(`other kernels, ${count} tokens`);
    const round = new Round(machine, count);
    round.addOthers();
    kernelRows.push(...await round.run("base", seconds, description.peak_gflops, bandwidth));
  }
  const patterns = ["unstructured", "4x1"] as const;
  return {
    machine: description,
    bandwidth,
    rows: kernelRows,
    break_even: sparsities.length > 1 ? patterns.map((pattern) => breakEven(kernelRows, pattern)) : [],
  };
}

/** Most error that is rounding: a sum of thousands of products in f32 is off by some parts in a million. */
const tolerance = 2e-5;

interface Contestant {
  readonly kernel: KernelRow["kernel"];
  readonly sparsity: number;
  /** Operations of a call, and of its dense twin. */
  readonly operations: number;
  readonly denseOperations: number;
  readonly weightBytes: number;
  readonly operation: Operation<unknown>;
  readonly attributes: unknown;
  readonly inputs: readonly ({ readonly type: ValueType; readonly data: NumberArray } | undefined)[];
  /** The right value of some elements of the result. */
  readonly expected: readonly { readonly feature: number; readonly column: number; readonly value: number }[];
}

/** Kernels that take turns on one shape. */
class Round {
  readonly #machine: Machine;
  readonly #tokens: number;
  readonly #tile: number;
  readonly #contestants: Contestant[] = [];
  readonly #random = new RandomStream(randomKey(1, "kernels"));

  constructor(machine: Machine, tokens: number) {
    this.#machine = machine;
    this.#tile = Math.min(usualTile(machine.lanes), tokens);
    this.#tokens = tokens;
  }

  #numbers(length: number): Float32Array {
    return Float32Array.from({ length }, () => this.#random.uniform() - 0.5);
  }

  /** The dense kernel and each pattern at each sparsity. */
  addMatrix({ outputs, inputs }: KernelShape, sparsities: readonly number[]): void {
    const columns = this.#tokens;
    const x = { type: tiled(inputs, columns), data: this.#numbers(inputs * columns) };
    const weight = this.#numbers(outputs * inputs);
    const operations = 2 * outputs * inputs * columns;
    const activation = "none" as const;
    this.#add(matmul, { transposed: false, activation }, {
      kernel: "dense",
      sparsity: 0,
      operations,
      denseOperations: operations,
      weightBytes: weight.byteLength,
      inputs: [x, { type: rows(outputs, inputs), data: weight }, undefined, undefined],
      expected: this.#products(weight, x.data, outputs, inputs),
    });
    for (const pattern of ["unstructured", "4x1"] as const) {
      for (const sparsity of sparsities) {
        const pruned = this.#prune(weight, inputs, sparsity, pattern === "4x1" ? 4 : 1);
        const cuts = chooseBlocking({ pattern, rows: outputs, depth: inputs }, {
          lanes: this.#machine.lanes,
          tile: usualTile(this.#machine.lanes),
          workers: 1,
          levelOneBytes: levelOneBytes(),
        });
        const { bytes, structure } = packSparse(pruned, [outputs, inputs], { pattern, ...cuts });
        const types = packedTypes(structure);
        const [indicesOffset] = structure.indexOffsets;
        this.#add(sparseMatmul, { structure, activation }, {
          kernel: pattern,
          sparsity: 1 - structure.nnz / (outputs * inputs),
          operations: 2 * structure.nnz * columns,
          denseOperations: operations,
          weightBytes: bytes.length,
          inputs: [
            x,
            { type: types.values, data: new Float32Array(bytes.buffer, 0, indicesOffset / 4) },
            { type: types.indices, data: bytes.subarray(indicesOffset) },
            undefined,
            undefined,
          ],
          expected: this.#products(pruned, x.data, outputs, inputs),
        });
      }
    }
  }

  /** What a layer does beside its matrices, at the sizes of BERT-base; sequences of at most 128 tokens. */
  addOthers(): void {
    const [heads, hidden, columns] = [12, 768, this.#tokens];
    const matrix = (features: number) => ({
      type: tiled(features, columns),
      data: this.#numbers(features * columns),
    });
    const length = Math.min(128, columns);
    const offsets = Int32Array.from({ length: columns / length + 1 }, (_, i) => i * length);
    const list: ValueType = { dtype: "i32", layout: "rows", shape: [offsets.length] };
    const vector = () => ({ type: rows(hidden), data: this.#numbers(hidden) });
    const addPlain = <A>(
      operation: Operation<A>,
      attributes: A,
      operations: number,
      inputs: Contestant["inputs"],
    ) =>
      this.#add(operation, attributes, {
        kernel: operation.name as KernelRow["kernel"],
        sparsity: 0,
        operations,
        denseOperations: operations,
        weightBytes: 0,
        inputs,
        expected: this.#fromReference(operation, attributes, inputs),
      });
    addPlain(attention, { heads, dropout: 0, stream: 0, training: false }, 4 * length * columns * hidden, [
      matrix(hidden),
      matrix(hidden),
      matrix(hidden),
      { type: list, data: offsets },
      undefined,
    ]);
    addPlain(layerNorm, { epsilon: 1e-12, training: false }, hidden * columns, [
      matrix(hidden),
      matrix(hidden),
      vector(),
      vector(),
    ]);
    addPlain(gelu, {}, 4 * hidden * columns, [matrix(4 * hidden)]);
  }

  #add<A>(
    operation: Operation<A>,
    attributes: A,
    contestant: Omit<Contestant, "operation" | "attributes">,
  ): void {
    this.#contestants.push({ ...contestant, operation: operation as Operation<unknown>, attributes });
  }

  /** Zeros in that share of the blocks of `height` rows. */
  #prune(weight: Float32Array, inputs: number, sparsity: number, height: number): Float32Array {
    const pruned = weight.slice();
    for (let block = 0; block < weight.length; block += height * inputs) {
      for (let input = 0; input < inputs; input++) {
        if (this.#random.uniform() >= sparsity) continue;
        for (let row = 0; row < height; row++) pruned[block + row * inputs + input] = 0;
      }
    }
    return pruned;
  }

  /** Some elements of weight · x, in float64. */
  #products(weight: Float32Array, x: Float32Array, outputs: number, inputs: number): Contestant["expected"] {
    return Array.from({ length: 64 }, () => {
      const feature = Math.floor(this.#random.uniform() * outputs);
      const column = Math.floor(this.#random.uniform() * this.#tokens);
      let value = 0;
      for (let k = 0; k < inputs; k++) value += weight[feature * inputs + k] * x[k * this.#tokens + column];
      return { feature, column, value };
    });
  }

  /** All elements, from the operation's reference. */
  #fromReference<A>(
    operation: Operation<A>,
    attributes: A,
    inputs: Contestant["inputs"],
  ): Contestant["expected"] {
    const inputTypes = inputs.map((input) => input?.type);
    const outputTypes = operation.infer(inputTypes, attributes);
    const [result] = operation.reference(inputs.map((input) => input?.data), {
      attributes,
      inputTypes,
      outputTypes,
    });
    return Array.from(result, (value, i) => ({
      feature: Math.floor(i / this.#tokens),
      column: i % this.#tokens,
      value,
    }));
  }

  /** Measures all. */
  async run(
    shape: string,
    seconds: number,
    peak: number,
    bandwidth: KernelBenchResult["bandwidth"],
  ): Promise<KernelRow[]> {
    const runs = await this.#prepare();
    const best = runs.map(() => Infinity);
    // Calls too short for the clock are repeated.
    const repeats = runs.map(() => 1);
    const end = performance.now() + seconds * 1000 * runs.length;
    for (let turn = 0; turn < 5 || performance.now() < end; turn++) {
      for (const [i, { call }] of runs.entries()) {
        const start = performance.now();
        for (let repeat = 0; repeat < repeats[i]; repeat++) await call();
        const passed = performance.now() - start;
        // The first turn warms up, and the second tells how long a call takes.
        if (turn === 1) repeats[i] = Math.max(1, Math.ceil(0.05 / Math.max(passed, 1e-4)));
        if (turn > 1) best[i] = Math.min(best[i], passed / 1000 / repeats[i]);
      }
      // Lets an engine that optimises code in the background swap it in.
      await new Promise((resolve) => setTimeout(resolve));
    }
    return this.#contestants.map((contestant, i): KernelRow => {
      const { kernel, sparsity, operations, denseOperations, weightBytes } = contestant;
      const { error } = runs[i];
      if (!(error <= tolerance)) {
        throw new Error(
          `${kernel} at ${shape}, ${this.#tokens} tokens, is wrong by ${error} of its largest value`,
        );
      }
      const rate = (amount: number) => amount / best[i] / 1e9;
      const weightRate = rate(weightBytes * this.#tokens / this.#tile);
      const denseTime = this.#contestants[0].kernel === "dense" ? best[0] : best[i];
      return {
        kernel,
        shape,
        tokens: this.#tokens,
        sparsity,
        time_us: best[i] * 1e6,
        gflops: rate(operations),
        dense_equivalent_gflops: rate(denseOperations),
        share_of_peak: rate(operations) / peak,
        weight_bytes: weightBytes,
        weight_gb_s: weightRate,
        share_of_l2: weightRate / bandwidth.l2_gb_s,
        share_of_memory: rate(weightBytes) / bandwidth.memory_gb_s,
        speedup_vs_dense: denseTime / best[i],
        error,
      };
    });
  }

  /**
   * Plans every contestant into one arena, where they share operands they have in common and the place of the result,
   * runs each once and checks its answer.
   */
  async #prepare(): Promise<{ readonly call: () => Promise<void>; readonly error: number }[]> {
    const { lanes, vectorRegisters } = this.#machine;
    const target = { lanes, vectorRegisters, tile: this.#tile, workers: 1 };
    const graphs = this.#contestants.map(({ operation, attributes, inputs }) => {
      const graph = new Graph();
      const values = inputs.map((input, index) => input && graph.input(`input${index}`, input.type));
      graph.output("result", graph.apply(operation, attributes, values)[0]);
      return { graph, values };
    });
    const plan = (index: number, addresses: ReadonlyMap<NumberArray, number>, base: number) => {
      const bindings = new Map<Value, number>();
      graphs[index].values.forEach((value, i) => {
        if (value) bindings.set(value, addresses.get(this.#contestants[index].inputs[i]!.data)!);
      });
      return planGraph(graphs[index].graph, { target, bindings, base });
    };
    const operands = new Map<NumberArray, ValueType>();
    for (const { inputs } of this.#contestants) {
      for (const input of inputs) if (input) operands.set(input.data, input.type);
    }
    // Planned once at made-up addresses to learn how much memory they take.
    const nowhere = new Map(Array.from(operands.keys(), (data) => [data, 64]));
    const dry = this.#contestants.map((_, index) => plan(index, nowhere, 64));
    const resultBytes = Math.max(...dry.map(planBytes));
    const arena = new Arena(
      operands.values().reduce((sum, type) => sum + byteLength(type) + 64, resultBytes) +
        dry.reduce((sum, each) => sum + programBytes(each) + 64, 4096),
    );
    const addresses = new Map<NumberArray, number>();
    for (const [data, type] of operands) {
      const address = arena.allocate(byteLength(type), "an operand");
      addresses.set(data, address);
      write(arena, type, address, data, this.#tile);
    }
    const base = arena.allocate(resultBytes, "the result");
    const executor = new InlineExecutor(this.#machine, 1, arena);
    const runs = [];
    for (const [index, { expected }] of this.#contestants.entries()) {
      const placed = plan(index, addresses, base);
      const program = await prepare(executor, placed);
      await executor.run(program);
      const { address, type: { shape: [features, columns] } } = placed.outputs.get("result")!;
      const found = arena.float32(address, features * columns);
      let [largest, worst] = [0, 0];
      for (const { feature, column, value } of expected) {
        const difference = Math.abs(found[tiledIndex(feature, column, features, this.#tile)] - value);
        largest = Math.max(largest, Math.abs(value));
        worst = Math.max(worst, difference);
      }
      runs.push({ call: () => executor.run(program), error: worst / largest });
    }
    return runs;
  }
}

/** Writes an operand as kernels read it. */
function write(arena: Arena, type: ValueType, address: number, source: NumberArray, tile: number): void {
  if (type.layout === "tiled") {
    packTiled(source, arena.float32(address, source.length), type.shape[0], type.shape[1], tile);
  } else if (type.dtype === "u8") arena.bytes(address, source.length).set(source);
  else if (type.dtype === "i32") arena.int32(address, source.length).set(source);
  else arena.float32(address, source.length).set(source);
}

/** Where a pattern begins to pay, from rows at two sparsities at least. */
export function breakEven(kernelRows: readonly KernelRow[], pattern: SparsePattern): BreakEven {
  const mine = kernelRows.filter(({ kernel }) => kernel === pattern);
  const groups = Map.groupBy(mine, ({ shape, tokens }) => `${shape} ${tokens}`);
  const densities = Array.from(groups.values(), breakEvenDensity).sort((a, b) => a - b);
  // Sparsities as asked for: those counted differ a little from matrix to matrix.
  const levels = [...new Set(mine.map(({ sparsity }) => Math.round(sparsity * 20) / 20))].sort((a, b) =>
    b - a
  );
  let from: number | null = null;
  for (const level of levels) {
    const all = mine.filter(({ sparsity }) => Math.round(sparsity * 20) / 20 === level);
    if (!all.every(({ speedup_vs_dense }) => speedup_vs_dense > 1)) break;
    from = level;
  }
  return {
    pattern,
    always_faster_from: from,
    median_density: densities[densities.length >> 1],
    least_density: densities[0],
  };
}

/** The density at which a line through the times, relative to the dense kernel's, reaches 1; at most 1. */
function breakEvenDensity(group: readonly KernelRow[]): number {
  const points = group.map(({ sparsity, speedup_vs_dense }) => [1 - sparsity, 1 / speedup_vs_dense]);
  const mean = (index: number) => points.reduce((sum, point) => sum + point[index], 0) / points.length;
  const [density, time] = [mean(0), mean(1)];
  const slope = points.reduce((sum, [d, t]) => sum + (d - density) * (t - time), 0) /
    points.reduce((sum, [d]) => sum + (d - density) ** 2, 0);
  return slope > 0 ? Math.max(0, Math.min(1, density + (1 - time) / slope)) : 1;
}

/** The result as text. */
export function formatKernels({ machine, bandwidth, rows, break_even }: KernelBenchResult): string {
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const heading = [
    "kernel",
    "shape",
    "tokens",
    "zeros",
    "time",
    "GFLOP/s",
    "dense-eq.",
    "of peak",
    "weights",
    "of L2",
    "of memory",
    "× dense",
  ];
  const lines = rows.map((row) => [
    row.kernel,
    row.shape,
    `${row.tokens}`,
    percent(row.sparsity),
    `${row.time_us.toFixed(1)} µs`,
    row.gflops.toFixed(1),
    row.dense_equivalent_gflops.toFixed(0),
    percent(row.share_of_peak),
    row.weight_bytes > 0 ? `${row.weight_gb_s.toFixed(1)} GB/s` : "–",
    row.weight_bytes > 0 ? percent(row.share_of_l2) : "–",
    row.weight_bytes > 0 ? percent(row.share_of_memory) : "–",
    row.weight_bytes > 0 ? row.speedup_vs_dense.toFixed(2) : "–",
  ]);
  const widths = heading.map((text, i) => Math.max(text.length, ...lines.map((line) => line[i].length)));
  const format = (line: readonly string[]) =>
    line.map((cell, i) => i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ");
  return [
    `${machine.cpu}; ${machine.isa}, one core: ${machine.peak_gflops.toFixed(0)} GFLOP/s fp32, reads ` +
    `${bandwidth.l2_gb_s.toFixed(0)} GB/s from L2, ${bandwidth.memory_gb_s.toFixed(0)} GB/s from beyond`,
    "",
    format(heading),
    widths.map((width) => "─".repeat(width)).join("──"),
    ...lines.map(format),
    "",
    ...break_even.map(({ pattern, always_faster_from, median_density, least_density }) =>
      `${pattern} beats dense ${
        always_faster_from === null
          ? "not everywhere"
          : `everywhere from ${percent(always_faster_from)} zeros`
      }; below a density of ${median_density.toFixed(2)} at half of the shapes, of ${
        least_density.toFixed(2)
      } at all`
    ),
  ].join("\n");
}
