/**
 * The kernels one by one: rates at BERT's shapes beside what the machine can do, and where sparse ones begin to pay. Of
 * BERT-base also the two products that training adds to each layer.
 *
 * For a shape and a number of tokens all contestants take turns, one call a turn, on the same activations. Between two
 * calls of one pass all others with their weights, so weights come from beyond the L2 cache and branches are not learned
 * by heart, as when a model is served. The fastest turn counts. One core.
 * @module
 */
import type { SparsePattern } from "../src/kernels/sparse_matmul/pack.ts";
import { selectMachine } from "../src/machines/mod.ts";
import { measureReadBandwidth } from "./bandwidth.ts";
import { type Bandwidth, type KernelRow, type KernelShape, Round } from "./kernel_round.ts";
import { describeMachine, type MachineDescription } from "./machine.ts";

/** The matrices of BERT-base, MiniLM-L6 and BERT-tiny. */
export const kernelShapes: readonly KernelShape[] = ([["base", 768], ["minilm", 384], ["tiny", 128]] as const)
  .flatMap(([model, hidden]) => [
    { name: `${model} attention`, outputs: hidden, inputs: hidden },
    { name: `${model} up`, outputs: 4 * hidden, inputs: hidden },
    { name: `${model} down`, outputs: hidden, inputs: 4 * hidden },
  ]);

const baseShapes = kernelShapes.filter(({ name }) => name.startsWith("base"));

/** What to measure. */
export interface KernelBenchOptions {
  /** As `selectMachine` takes it. */
  readonly isa?: string;
  readonly shapes?: readonly KernelShape[];
  readonly tokens?: readonly number[];
  readonly sparsities?: readonly number[];
  /** Shapes whose gradients are measured too, at the most tokens. */
  readonly trainingShapes?: readonly KernelShape[];
  /** Seconds of each contestant, on average. */
  readonly seconds?: number;
  readonly onProgress?: (text: string) => void;
}

/** Where a pattern begins to pay in inference. */
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
  readonly bandwidth: Bandwidth;
  readonly rows: readonly KernelRow[];
  readonly break_even: readonly BreakEven[];
}

/** Runs the benchmark. Throws when a kernel's answer is wrong. */
export async function benchKernels(options: KernelBenchOptions = {}): Promise<KernelBenchResult> {
  const { isa, shapes = kernelShapes, tokens = [16, 128, 512], onProgress } = options;
  const { sparsities = [0.5, 0.7, 0.8, 0.9, 0.95], trainingShapes = baseShapes, seconds = 0.15 } = options;
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
  const longest = Math.max(...tokens);
  for (const shape of trainingShapes) {
    onProgress?.(`gradients of ${shape.name}, ${longest} tokens`);
    const round = new Round(machine, longest);
    round.addGradients(shape, sparsities);
    kernelRows.push(...await round.run(shape.name, seconds, description.peak_gflops, bandwidth));
  }
  const patterns = ["unstructured", "4x1"] as const;
  return {
    machine: description,
    bandwidth,
    rows: kernelRows,
    break_even: sparsities.length > 1 ? patterns.map((pattern) => breakEven(kernelRows, pattern)) : [],
  };
}

/** Where a pattern begins to pay, from rows at two sparsities at least. */
export function breakEven(kernelRows: readonly KernelRow[], pattern: SparsePattern): BreakEven {
  const mine = kernelRows.filter(({ kernel, product }) => kernel === pattern && product === "forward");
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
