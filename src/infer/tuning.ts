/**
 * Measured choices: a short search at load for how each kind of matrix runs fastest on this very processor.
 *
 * Of the matrices of a model those of one shape, pattern and density (in steps of 5 %) are one kind. For each kind the
 * rule's cut, some beside it, and the dense kernel where the density leaves that open, take turns on one worker for a few
 * milliseconds. The rule stays unless another is clearly faster, so that noise decides nothing. What was found is kept in
 * the user's cache folder and shared by all models with such matrices; later loads measure nothing.
 *
 * Cuts change no bit of a result. Whether a matrix runs dense or sparse does, in the last places.
 * @module
 */
import type { StoredMatrix } from "../checkpoint/sparse_bitmask.ts";
import { byteLength, Graph, rows, tiled, type Value } from "../graph/graph.ts";
import type { Target } from "../graph/operation.ts";
import { matmul } from "../kernels/matmul/operation.ts";
import { sparseMatmul } from "../kernels/sparse_matmul/operation.ts";
import { packedTypes } from "../kernels/sparse_matmul/types.ts";
import { type PackedStructure, structureOfBitmask, writePacked } from "../kernels/sparse_matmul/pack.ts";
import type { Machine } from "../machines/machine.ts";
import { type Allocator, Arena, ArenaSize } from "../plan/arena.ts";
import { type Executor, type ExecutorFactory, prepare } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes, planGraph } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import type { Blocking, CacheTarget } from "../kernels/sparse_matmul/blocking.ts";
import { chooseByRule, type KernelChoice, type MatrixProfile, type PrunedMatrix } from "./choice.ts";
import type { TuningStore } from "./tuning_store.ts";

/** Where and for what to measure. */
export interface TuningOptions {
  readonly machine: Machine;
  readonly target: CacheTarget;
  readonly createExecutor: ExecutorFactory;
  readonly store: TuningStore;
  /** Time for measuring, all kinds together; default 250 ms. One kind is measured in any case; the others that find no
   *  time left run by rule, this time. */
  readonly budgetMs?: number;
}

/** A way of running a matrix. */
type Candidate = Omit<KernelChoice, "reason">;

/** The way found for a kind. */
export interface TunedChoice extends Candidate {
  /** What was measured, for the reader. */
  readonly evidence: string;
}

/** Kinds measured in one load: what is packed for them lies in memory together. A plain BERT has three. */
const mostKinds = 6;

/** How much faster than the rule's choice another must be: less is noise, and plans should not change with it. */
const clearlyFaster = 0.95;

/** Densities at which a dense kernel may be the faster one; outside, it is not even tried. */
const openDensities = { least: 0.25, most: 0.9 } as const;

/** Columns that a matrix is timed on: a usual text (128 tokens on AVX-512), and the shortest. */
const usualColumns = ({ tile }: CacheTarget) => ({ columns: 2 * tile, tile });
const fewestColumns = ({ lanes }: CacheTarget) => ({ columns: lanes, tile: lanes });

/** Chooses by what was measured, now or on an earlier load. */
export async function chooseByMeasuring(
  matrices: readonly PrunedMatrix[],
  options: TuningOptions,
): Promise<KernelChoice[]> {
  const { store, target, machine } = options;
  const tuned = new Map(Object.entries(await store.read(machine)));
  const kinds = new Map(matrices.map((matrix) => [kindOf(matrix.profile, target), matrix]));
  const unknown = [...kinds].filter(([kind]) => !tuned.has(kind)).slice(0, mostKinds);
  if (unknown.length > 0) {
    const found = await measureKinds(unknown, options);
    for (const [kind, choice] of found) tuned.set(kind, choice);
    await store.write(machine, Object.fromEntries(found));
  }
  return matrices.map(({ profile }) => {
    const choice = tuned.get(kindOf(profile, target));
    const byRule = chooseByRule(profile, target);
    if (!choice) return { ...byRule, reason: `${byRule.reason}; not measured: no time left` };
    const { kernel, blocking, evidence } = choice;
    return { kernel, blocking, reason: `density ${profile.density.toFixed(3)}; measured ${evidence}` };
  });
}

function kindOf({ pattern, rows, depth, density }: MatrixProfile, { workers }: CacheTarget): string {
  return `${rows}x${depth} ${pattern} density ${
    (Math.round(density * 20) / 20).toFixed(2)
  } workers ${workers}`;
}

/** Ways worth trying; the rule's first. */
function candidatesFor(profile: MatrixProfile, target: CacheTarget): Candidate[] {
  const { pattern, depth, density } = profile;
  const { kernel, blocking } = chooseByRule(profile, target);
  const { panelInputs, blockRows } = blocking;
  const isOpen = density >= openDensities.least && density <= openDensities.most;
  const cuts: Blocking[] = [
    blocking,
    { panelInputs: Math.ceil(panelInputs / 2), blockRows },
    { panelInputs: Math.min(depth, 2 * panelInputs), blockRows },
    { panelInputs, blockRows: Math.max(4, alignUp(Math.floor(blockRows / 2), 4)) },
  ];
  const isNew = (cut: Blocking, index: number) =>
    cuts.findIndex((other) => other.panelInputs === cut.panelInputs && other.blockRows === cut.blockRows) ===
      index;
  const sparse = cuts.filter(isNew).map((blocking) => ({ kernel: pattern, blocking }));
  const dense = { kernel: "dense" as const, blocking };
  if (kernel === "dense") return isOpen ? [dense, ...sparse] : [dense];
  return isOpen ? [...sparse, dense] : sparse;
}

/** Measures as many kinds as the budget allows, one after the other in one arena. */
async function measureKinds(
  kinds: readonly (readonly [string, PrunedMatrix])[],
  { machine, target, createExecutor, budgetMs = 250 }: TuningOptions,
): Promise<Map<string, TunedChoice>> {
  const end = performance.now() + budgetMs;
  const contests = kinds.map(([kind, matrix]) => {
    const candidates = candidatesFor(matrix.profile, target);
    const [dense] = candidates.filter(({ kernel }) => kernel === "dense");
    const [sparse] = candidates.filter(({ kernel }) => kernel !== "dense");
    const at = (size: TimedSize) => (choice: Candidate) => new Entry(choice, matrix, machine, size);
    return {
      kind,
      entries: candidates.map(at(usualColumns(target))),
      // Few tokens ask for more weights each, where dense kernels have the fewer bytes to read from a half-full matrix.
      short: dense && sparse ? [dense, sparse].map(at(fewestColumns(target))) : [],
    };
  });
  const size = new ArenaSize();
  for (const { entries, short } of contests) for (const entry of [...entries, ...short]) entry.place(size);
  const arena = new Arena(size.byteLength);
  const executor = await createExecutor({ machine, threads: 1, arena });
  const found = new Map<string, TunedChoice>();
  try {
    for (const [index, { kind, entries, short }] of contests.entries()) {
      const left = end - performance.now();
      if (left <= 0 && found.size > 0) break;
      const share = left / (contests.length - index);
      const choice = await compete(entries, executor, performance.now() + share * 3 / 4);
      if (choice.kernel === "dense" || short.length === 0) {
        found.set(kind, choice);
        continue;
      }
      // Sparse only where it is faster for any text.
      const atShort = await compete(short, executor, performance.now() + share / 4);
      const { kernel } = atShort.kernel === "dense" ? atShort : choice;
      found.set(kind, {
        ...choice,
        kernel,
        evidence: `${choice.evidence}; on few tokens ${atShort.evidence}`,
      });
    }
  } finally {
    await executor.dispose();
  }
  return found;
}

/** Turns of each entry; more make the least time no surer. */
const leastTurns = 3;
const mostTurns = 10;

/** Lets entries take turns until then, and gives the fastest: the first, unless another is clearly faster. */
async function compete(entries: readonly Entry[], executor: Executor, end: number): Promise<TunedChoice> {
  const runs: { readonly program: Program; readonly entry: Entry; milliseconds: number }[] = [];
  for (const entry of entries) {
    const plan = entry.place(executor.arena);
    entry.fill(executor.arena);
    const program = await prepare(executor, plan);
    await executor.run(program); // Warms up.
    runs.push({ program, entry, milliseconds: Infinity });
  }
  for (let turn = 0; turn < mostTurns && (turn < leastTurns || performance.now() < end); turn++) {
    for (const run of runs) {
      const start = performance.now();
      await executor.run(run.program);
      run.milliseconds = Math.min(run.milliseconds, (performance.now() - start) / run.entry.repeats);
    }
  }
  const [rule, ...others] = runs;
  const best = others.reduce((a, b) => b.milliseconds < a.milliseconds ? b : a, rule);
  const chosen = best.milliseconds < clearlyFaster * rule.milliseconds ? best : rule;
  const { kernel, blocking } = chosen.entry.choice;
  return {
    kernel,
    blocking,
    evidence: [chosen, ...runs.filter((run) => run !== chosen)].map(({ entry, milliseconds }) =>
      `${entry.describe()} ${(1000 * milliseconds).toFixed(0)} µs`
    ).join(", "),
  };
}

/** Least time of a run, at a guess: the call of an executor costs some 20 µs. */
const leastRunMs = 0.3;
const assumedOperationsPerMs = 50e6;

/** How many columns of activations there are, and how many to a tile. */
interface TimedSize {
  readonly columns: number;
  readonly tile: number;
}

/** A way of running a matrix, taking part in a contest. */
class Entry {
  readonly choice: Candidate;
  /** Times the product is repeated in a run. */
  readonly repeats: number;
  readonly #stored: StoredMatrix;
  readonly #structure: PackedStructure | undefined;
  readonly #graph = new Graph();
  readonly #target: Target;
  readonly #addresses = new Map<string, number>();

  constructor(
    choice: Candidate,
    { profile, stored }: PrunedMatrix,
    machine: Machine,
    { columns, tile }: TimedSize,
  ) {
    this.choice = choice;
    this.#stored = stored;
    this.#target = { lanes: machine.lanes, vectorRegisters: machine.vectorRegisters, tile, workers: 1 };
    const { rows: features, depth, pattern } = profile;
    const graph = this.#graph;
    const activation = "none";
    const x = graph.input("x", tiled(depth, columns));
    if (choice.kernel === "dense") {
      const weight = graph.input("weight", rows(features, depth));
      const [y] = graph.apply(matmul, { transposed: false, activation }, [x, weight, undefined, undefined]);
      graph.output("y", y);
    } else {
      const structure = structureOfBitmask(stored, { pattern, ...choice.blocking });
      const types = packedTypes(structure);
      const values = graph.input("weight", types.values);
      const indices = graph.input("indices", types.indices);
      const [y] = graph.apply(sparseMatmul, { structure, activation }, [
        x,
        values,
        indices,
        undefined,
        undefined,
      ]);
      graph.output("y", y);
      this.#structure = structure;
    }
    const weights = this.#structure?.storedBlocks ?? features * depth;
    this.repeats = Math.ceil(leastRunMs * assumedOperationsPerMs / (2 * weights * columns));
  }

  /** Takes memory and gives what to run there. */
  place(allocator: Allocator): Plan {
    const bindings = new Map<Value, number>();
    for (const [name, value] of this.#graph.inputs) {
      const address = allocator.allocate(byteLength(value.type), name);
      this.#addresses.set(name, address);
      bindings.set(value, address);
    }
    const planAt = (base: number) => planGraph(this.#graph, { target: this.#target, bindings, base });
    const plan = planAt(allocator.allocate(planBytes(planAt(0)), "plan"));
    const repeated = { ...plan, phases: Array.from({ length: this.repeats }, () => plan.phases).flat() };
    // `prepare` takes this much of the arena; only a size has to be told.
    if (allocator instanceof ArenaSize) allocator.allocate(programBytes(repeated), "program");
    return repeated;
  }

  /** Fills the operands with ones, whose sums overflow nothing, and the indices with the matrix's own. */
  fill(arena: Arena): void {
    const ones = (name: string) => {
      const { type } = this.#graph.inputs.get(name)!;
      return arena.float32(this.#addresses.get(name)!, byteLength(type) / 4).fill(1);
    };
    ones("x");
    const weight = ones("weight");
    if (!this.#structure) return;
    const packed = new Uint8Array(this.#structure.byteLength);
    writePacked(
      this.#structure,
      { ...this.#stored, values: new Float32Array(this.#stored.nonZeros) },
      packed,
    );
    arena.bytes(this.#addresses.get("indices")!, packed.length - weight.byteLength)
      .set(packed.subarray(weight.byteLength));
  }

  describe(): string {
    const { kernel, blocking: { panelInputs, blockRows } } = this.choice;
    return kernel === "dense" ? "dense" : `panels of ${panelInputs}, blocks of ${blockRows}`;
  }
}
