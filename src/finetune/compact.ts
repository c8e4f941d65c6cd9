/**
 * Pruned matrices in training: dense with zeros while masks are chosen, saved or compared, compact while steps run.
 *
 * Below a density at which the sparse kernels win, a matrix is brought into their order (`compact_task.ts`): its weights
 * and moments move to the front of their places, gradients come out in the same order, and the optimiser passes over
 * what is left alone. Only the representation changes back and forth, never a number.
 * @module
 */
import { chooseBlocking } from "../kernels/sparse_matmul/blocking.ts";
import { type SparsePattern, valueCount } from "../kernels/sparse_matmul/pack.ts";
import type { Cut } from "../kernels/sparse_matmul/training_structure.ts";
import type { Machine } from "../machines/machine.ts";
import type { Allocator } from "../plan/arena.ts";
import type { Executor } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { usualTile } from "../plan/plan.ts";
import { popcount } from "../pruning/bitset.ts";
import { blockShape, type Pattern } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { type CompactMatrix, type CompactRequest, roomFor, task as compactMatrix } from "./compact_task.ts";
import { task as expandMatrix } from "./expand_task.ts";
import type { ParameterLayout } from "./parameters.ts";

/**
 * Share of weights left below which a matrix trains sparse. A step's three products together, 768 × 3072, 512 columns, one
 * core with AVX-512: of single weights a fifth takes 1 / 2.3 of the dense time and a half all of it; of blocks a fifth takes
 * 1 / 3.1 and a half 1 / 1.4. On AVX2 and WebAssembly sparse products gain more, so that these values are safe there.
 */
const trainingBreakEven = { "unstructured": 0.35, "4x1": 0.5 } as const satisfies Record<
  SparsePattern,
  number
>;

/** Where the long-lived arrays begin, in bytes from the arena's start. */
export interface StateAddresses {
  readonly weights: number;
  /** The optimiser's. */
  readonly states: readonly number[];
  readonly mask: number;
}

/**
 * What sparse kernels know of patterns: `4x1` where all of them prune whole groups of four outputs, which a kernel reads once
 * for the four; single weights otherwise.
 */
export function sparsePatternOf(...patterns: readonly Pattern[]): SparsePattern {
  return patterns.length > 0 && patterns.every((pattern) => blockShape(pattern).rows % 4 === 0)
    ? "4x1"
    : "unstructured";
}

/** What compact matrices are made for. */
export interface CompactOptions {
  /** What masks prune together; see `sparsePatternOf`. */
  readonly pattern: Pattern;
  readonly machine: Machine;
  readonly at: StateAddresses;
}

/** The prunable matrices of a model in training. */
export class CompactMatrices {
  readonly #requests = new Map<string, CompactRequest>();
  /** Of the present mask, by weight name; undefined when it has changed. */
  #matrices: ReadonlyMap<string, CompactMatrix> | undefined;
  #isCompact = false;

  /** Reserves memory. With a made-up allocator, to learn how much that takes, nothing else may be called. */
  constructor({ slots }: ParameterLayout, options: CompactOptions, allocator: Allocator) {
    const { machine, at } = options;
    const pattern = sparsePatternOf(options.pattern);
    for (const { name, shape: [rows, depth], offset, length } of slots) {
      if (!isPrunable(name)) continue;
      const cuts = {
        cut: cutOf(pattern, rows, depth, machine),
        transposedCut: cutOf(pattern, depth, rows, machine),
      };
      const roomBytes = roomFor({ rows, depth }, trainingBreakEven[pattern] * length, cuts);
      this.#requests.set(name, {
        rows,
        depth,
        pattern,
        ...cuts,
        states: [at.weights, ...at.states].map((address) => address + 4 * offset),
        mask: at.mask + offset / 8,
        room: allocator.allocate(roomBytes, `compact ${name}`),
        roomBytes,
      });
    }
  }

  /** Most bytes that a step's plan takes for compact matrices on top: values in the order of the transposes. */
  get planBytes(): number {
    return this.#requests.values().reduce(
      (sum, { rows, depth, pattern }) =>
        sum + (pattern === "unstructured" ? alignUp(4 * trainingBreakEven[pattern] * rows * depth) : 0),
      0,
    );
  }

  /** Places of the matrices by weight name, for tasks about them. */
  get places(): ReadonlyMap<string, CompactRequest> {
    return this.#requests;
  }

  /** The matrices that are compact now, by weight name. */
  get compacted(): ReadonlyMap<string, CompactMatrix> {
    return this.#isCompact && this.#matrices || new Map();
  }

  /** To be called when masks have changed, while all matrices are dense. */
  maskChanged(): void {
    this.#matrices = undefined;
    this.#isCompact = false;
  }

  /** Makes sparse matrices compact. True when they are so in another way than before: plans no longer hold then. */
  async compact(executor: Executor): Promise<boolean> {
    if (this.#isCompact) return false;
    const known = this.#matrices;
    const names = [...this.#requests.keys()].filter((name) =>
      known ? known.has(name) : this.#isSparse(name, executor.arena.memory)
    );
    const found = await executor.perform(compactMatrix, names.map((name) => this.#requests.get(name)!));
    this.#matrices = new Map(names.map((name, index) => [name, found[index]]));
    this.#isCompact = true;
    return known === undefined;
  }

  /** Makes all matrices dense again. */
  async expand(executor: Executor): Promise<void> {
    if (!this.#isCompact) return;
    const requests = Array.from(this.#matrices!, ([name, { structure, positions }]) => {
      const { rows, depth, states } = this.#requests.get(name)!;
      return { rows, depth, states, positions, count: valueCount(structure) };
    });
    await executor.perform(expandMatrix, requests);
    this.#isCompact = false;
  }

  #isSparse(name: string, { buffer }: WebAssembly.Memory): boolean {
    const { rows, depth, pattern, mask } = this.#requests.get(name)!;
    const left = popcount(new Uint32Array(buffer, mask, Math.floor(rows * depth / 32)));
    // Rows that a last block of 4x1 lacks are stored too, and up to 31 weights are not counted.
    return left + 3 * depth + 31 < trainingBreakEven[pattern] * rows * depth;
  }
}

/**
 * Cuts depend neither on workers nor on caches here: the order of a packed matrix is that in which the norm of its
 * gradients is summed, and a run may be resumed elsewhere. 32 KiB is what few processors have less of.
 */
function cutOf(pattern: SparsePattern, rows: number, depth: number, { lanes }: Machine): Cut {
  const target = { lanes, tile: usualTile(lanes), workers: 1, levelOneBytes: 32 << 10 };
  return chooseBlocking({ pattern, rows, depth }, target);
}
