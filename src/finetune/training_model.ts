/**
 * What the trainer trains: a graph for each size of batch, and how batches get into its inputs.
 *
 * The trainer knows parameters, gradients, optimiser and memory; a `TrainingModel` knows examples, heads and losses.
 * Those of this project are in `tasks/`.
 * @module
 */
import type { RandomKey } from "../core/random.ts";
import type { Graph, Value } from "../graph/graph.ts";
import type { PackedStructure } from "../kernels/sparse_matmul/pack.ts";
import type { BatchCapacity } from "./memory.ts";
import type { ParameterSlot } from "./parameters.ts";

/** A model with its loss. `Example` is what batches are made of. */
export interface TrainingModel<Example> {
  /** Adds the forward pass to a graph. Parameters carry their checkpoint names; which there are depends on nothing. */
  build(graph: Graph, request: ModelRequest): ModelGraph;
  /** The arrays that a batch is written to, by the names of the graph's inputs, for batches of a size. */
  inputs(size: BatchCapacity): Readonly<Record<string, InputArray>>;
  /** Columns and sequences that a batch takes; any number. */
  sizeOf(batch: readonly Example[]): BatchCapacity;
  /**
   * Writes a batch, padding included. `views` has the arrays of `inputs`, for the size of the batch's plan. `key` is the
   * step's, for what is drawn anew in each; undefined where nothing is, and the batch must come out the same each time.
   */
  fill(
    batch: readonly Example[],
    views: InputViews,
    key: RandomKey | undefined,
    mode: ModelRequest["mode"],
  ): void;
  /** Fills a parameter with fresh weights. */
  initialise(slot: ParameterSlot, target: Float32Array, seed: number): void;
  /** A table of which a batch reads, and its gradient has, the rows of the batch's ids alone. */
  readonly lookup?: LookupTable;
  /** Names what else `build` depends on; when it changes, plans are made anew. */
  readonly variant?: string;
}

/** How a model is to be built. */
export interface ModelRequest extends BatchCapacity {
  /** `train` keeps what gradients need; `evaluate` only gives results. */
  readonly mode: "train" | "evaluate";
  /** Whether `train` drops out. */
  readonly dropout: boolean;
  /** Packed structure of the linear layers that run sparse, by weight name; the others run dense. */
  readonly sparse?: ReadonlyMap<string, PackedStructure>;
  /** In mode `train`, structure of the transpose of those that have one, by weight name. */
  readonly transposed?: ReadonlyMap<string, PackedStructure>;
}

/** A model in a graph. Results besides the loss are the graph's outputs. */
export interface ModelGraph {
  /** f32 [1]: what is minimised; the mean over the batch. */
  readonly loss: Value;
  /** Results that stay in memory where layers run again in the backward pass. */
  readonly checkpoints: readonly Value[];
}

/** An array that a batch is written to. */
export interface InputArray {
  readonly dtype: "i32" | "f32";
  /** Elements. */
  readonly length: number;
}

/** The arrays of a batch, by name: views of the arena. */
export type InputViews = ReadonlyMap<string, Int32Array | Float32Array>;

/** A table of which only some rows are read. */
export interface LookupTable {
  /** Checkpoint name; [rows, features]. */
  readonly table: string;
  /** Input with the row of each column, −1 for none. */
  readonly ids: string;
}

/** The i32 view of that name. */
export function indexView(views: InputViews, name: string): Int32Array {
  const view = views.get(name);
  if (view instanceof Int32Array) return view;
  throw new TypeError(`Cannot fill ${name}: wanted an i32 array of that name`);
}

/** The f32 view of that name. */
export function numberView(views: InputViews, name: string): Float32Array {
  const view = views.get(name);
  if (view instanceof Float32Array) return view;
  throw new TypeError(`Cannot fill ${name}: wanted an f32 array of that name`);
}
