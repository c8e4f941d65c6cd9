/**
 * Fisher matrices of some weight matrices in an arena of their own, with workers of their own.
 *
 * They are many times as large as the weights, and are there during a refresh of masks alone: one arena holds up to 4 GiB of
 * them, and where there is memory for more there are more arenas.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { Scratch } from "../core/scratch.ts";
import { Graph } from "../graph/graph.ts";
import { fisherSteps } from "../kernels/fisher/steps.ts";
import { type Allocator, Arena, Region } from "../plan/arena.ts";
import { type Executor, prepare } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { planGraph } from "../plan/plan.ts";
import { bitsetWords, hasBit } from "../pruning/bitset.ts";
import { type FisherPlaces, gatherPlaces, scatterPlaces } from "../pruning/obert/places.ts";
import { type FisherAddresses, task as fisherBlocks } from "./fisher_task.ts";
import type { TrainerOptions } from "./trainer_needs.ts";

/** What workers and arenas are made of: the trainer's own. */
export type ExecutorOptions = Pick<TrainerOptions<never>, "machine" | "workers" | "createExecutor">;

/** A weight matrix with the places of its weights. */
export interface FisherMatrix {
  readonly name: string;
  readonly places: FisherPlaces;
}

/** Gradients that wait to be added to the sums: enough to pay for reading and writing those. */
const capacity = 16;

/** Room for programs: a few words for each matrix and worker. */
const programBytes = 1 << 18;

/** Fisher blocks that a worker is given at a time: some milliseconds. */
const blocksPerTask = 512;

interface Placed extends FisherMatrix {
  readonly at: FisherAddresses;
  /** f32 [blocks, capacity, size] */
  readonly gradients: number;
}

/** Holds Fisher matrices. Make it with `create`, end it with `dispose`. */
export class FisherArena {
  readonly #executor: Executor;
  readonly #programs: Region;
  readonly #region: Region;
  #matrices: readonly Placed[] = [];
  #gradients = 0;

  private constructor(executor: Executor, bytes: number) {
    this.#executor = executor;
    const { arena } = executor;
    this.#programs = new Region(arena.allocate(programBytes, "programs"), programBytes);
    this.#region = new Region(arena.allocate(bytes, "Fisher matrices"), bytes);
  }

  /** Bytes that matrices take. */
  static bytesOf(matrices: readonly FisherMatrix[]): number {
    let bytes = 0;
    const allocator: Allocator = { allocate: (length) => (bytes += alignUp(length)) };
    for (const matrix of matrices) place(matrix, allocator);
    return bytes;
  }

  /** Starts workers on an arena for matrices that take so many bytes together. */
  static async create(
    { machine, workers, createExecutor }: ExecutorOptions,
    bytes: number,
  ): Promise<FisherArena> {
    const arena = new Arena(bytes + programBytes + 64);
    return new FisherArena(await createExecutor({ machine, threads: workers, arena }), bytes);
  }

  /** Begins anew with other matrices. */
  begin(matrices: readonly FisherMatrix[]): void {
    const { arena } = this.#executor;
    this.#region.clear();
    this.#programs.clear();
    this.#gradients = 0;
    this.#matrices = matrices.map((matrix) => place(matrix, this.#region));
    for (const { places: { blocks, size }, gradients } of this.#matrices) {
      arena.float32(gradients, blocks * size * capacity).fill(0);
    }
  }

  /** Adds a gradient; `gradientOf` gives that of a weight matrix, row-major. */
  async add(gradientOf: (name: string) => Float32Array): Promise<void> {
    const { arena } = this.#executor;
    const slot = this.#gradients++ % capacity;
    for (const { name, places, gradients } of this.#matrices) {
      const { blocks, size } = places;
      const target = arena.float32(gradients, blocks * size * capacity);
      gatherPlaces(gradientOf(name), places, target, slot * size, capacity * size);
    }
    if (slot === capacity - 1) await this.#sumUp(capacity);
  }

  /**
   * Turns the sums into factors of the damped Fisher matrices' inverses, and scores all units. Throws `InputError` when
   * gradients were not finite.
   */
  async factor(
    damp: number,
    weightsOf: (name: string) => Float32Array,
    maskOf: (name: string) => Uint32Array,
  ): Promise<void> {
    const { arena } = this.#executor;
    const left = this.#gradients % capacity;
    if (left > 0) await this.#sumUp(left);
    for (const { name, places, at } of this.#matrices) {
      const { blocks, size, rows, columns } = places;
      const weights = weightsOf(name);
      const mask = maskOf(name);
      const pruned = scratch.take(rows * columns);
      for (let i = 0; i < pruned.length; i++) pruned[i] = hasBit(mask, i) ? 0 : 1;
      for (const [address, source] of [[at.weights, weights], [at.pruned, pruned]] as const) {
        const target = arena.float32(address, blocks * size);
        target.fill(0);
        gatherPlaces(source, places, target);
      }
    }
    const found = await this.#perform({ kind: "factor", scale: 1 / this.#gradients, damp });
    const bad = found.find(({ isFinite }) => !isFinite);
    if (bad) {
      throw new InputError(
        `Cannot prune ${bad.name} by its Fisher matrix: the sum of squares of its gradients is not a finite number`,
      );
    }
  }

  /** The scores of all units of a matrix: a live view. */
  scores(name: string): Float32Array {
    const { at, places } = this.#placed(name);
    return this.#executor.arena.float32(at.scores, places.units);
  }

  /** Prunes units of the matrices, as bitsets say, and writes all weights to `target`. */
  async remove(
    removedOf: (name: string) => Uint32Array,
    jointly: boolean,
    target: (name: string) => Float32Array,
  ): Promise<void> {
    const { arena } = this.#executor;
    for (const { name, at, places } of this.#matrices) {
      new Uint32Array(arena.memory.buffer, at.removed, bitsetWords(places.units)).set(removedOf(name));
    }
    await this.#perform({ kind: "remove", jointly });
    for (const { name, at, places } of this.#matrices) {
      scatterPlaces(arena.float32(at.weights, places.blocks * places.size), places, target(name));
    }
  }

  /** Stops the workers. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }

  #placed(name: string): Placed {
    const found = this.#matrices.find((matrix) => matrix.name === name);
    if (!found) throw new RangeError(`Cannot find the Fisher matrix of ${name}: it is not in this arena`);
    return found;
  }

  async #perform(
    what: { kind: "factor"; scale: number; damp: number } | { kind: "remove"; jointly: boolean },
  ): Promise<{ name: string; isFinite: boolean }[]> {
    const tasks = this.#matrices.flatMap(({ name, at, places }) =>
      Array.from({ length: Math.ceil(places.blocks / blocksPerTask) }, (_, index) => ({
        name,
        request: {
          ...what,
          at,
          places,
          begin: index * blocksPerTask,
          end: Math.min(places.blocks, (index + 1) * blocksPerTask),
        },
      }))
    );
    const found = await this.#executor.perform(fisherBlocks, tasks.map(({ request }) => request));
    return tasks.map(({ name }, index) => ({ name, isFinite: found[index] }));
  }

  /** Adds the outer products of the gradients that wait; the first ones begin the sums. */
  async #sumUp(count: number): Promise<void> {
    const { machine: { lanes, vectorRegisters }, workers } = this.#executor;
    if (this.#matrices.length === 0) return;
    const steps = fisherSteps({
      ranges: this.#matrices.map(({ places: { blocks }, gradients, at: { fisher } }) => ({
        gradients,
        fisher,
        blocks,
      })),
      size: this.#matrices[0].places.size,
      capacity,
      begins: this.#gradients <= capacity,
      count,
      workers,
    });
    const target = { lanes, vectorRegisters, tile: lanes, workers };
    const plan = planGraph(new Graph(), { target, bindings: new Map(), base: 0, epilogue: steps });
    this.#programs.clear();
    await this.#executor.run(await prepare(this.#executor, plan, this.#programs));
  }
}

/** For the pruned weights of a matrix. */
const scratch = new Scratch();

function place(matrix: FisherMatrix, allocator: Allocator): Placed {
  const { blocks, size, units } = matrix.places;
  const take = (elements: number, purpose: string) =>
    allocator.allocate(4 * elements, `${purpose} of ${matrix.name}`);
  return {
    ...matrix,
    gradients: take(blocks * size * capacity, "gradients"),
    at: {
      fisher: take(blocks * size * size, "Fisher matrix"),
      weights: take(blocks * size, "weights"),
      pruned: take(blocks * size, "pruned weights"),
      scores: take(units, "scores"),
      removed: take(bitsetWords(units), "units to prune"),
    },
  };
}
