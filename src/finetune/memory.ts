/**
 * What outlives a training step, and where it lies in the arena.
 * @module
 */
import { globalNormPartials } from "../kernels/global_norm/steps.ts";
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
import type { Allocator } from "../plan/arena.ts";
import type { MatrixPlace } from "./compact_task.ts";
import type { ParameterLayout, ParameterSlot } from "./parameters.ts";
import type { InputArray, LookupTable } from "./training_model.ts";

/** Columns and sequences of a batch; of a plan, each a multiple of the tile. */
export interface BatchCapacity {
  readonly columns: number;
  readonly sequences: number;
}

/** Steps that rows of a lazily updated table may miss before all are brought up to date. */
export const historyCapacity = 1024;

/** What memory is for. */
export interface MemoryRequest {
  readonly layout: ParameterLayout;
  readonly capacity: BatchCapacity;
  readonly rule: UpdateRule;
  /** Parameter groups, each with a scalars block of its own. */
  readonly groups: number;
  /** Arrays that a batch is written to. */
  readonly inputs: Readonly<Record<string, InputArray>>;
  readonly lookup?: LookupTable;
  /** Whether gradients of several batches make a step. */
  readonly accumulates: boolean;
}

/** Address of each array of the parameters, in bytes from the arena's start. */
export interface ParameterMemory {
  readonly weights: number;
  readonly gradients: number;
  /** The optimiser's arrays, in the rule's order. */
  readonly states: readonly number[];
  /** Bit i of word j keeps weight 32j + i of the prunable range. */
  readonly mask: number;
}

/** Address of each long-lived array, in bytes from the arena's start. */
export interface TrainingMemory extends ParameterMemory {
  /** Sums of gradients, if several batches make a step. */
  readonly gradientSums: number;
  /** The scalars block of each parameter group. */
  readonly scalars: readonly number[];
  /** The gradients' norm and the clip factor. */
  readonly norm: number;
  readonly partials: number;
  /** The factor on a batch's gradients, if several make a step. */
  readonly batchShare: number;
  /** The words of the step's dropout key. */
  readonly seed: number;
  /** Arrays that a batch is written to, by the names of the graph's inputs. */
  readonly inputs: ReadonlyMap<string, number>;
  /** Of the lazily updated lookup table. */
  readonly lookup: LookupMemory;
}

/** What lazy steps of a table need. */
export interface LookupMemory {
  /** Rows that the batch names, and for each column the place of its row in that list. */
  readonly rows: number;
  readonly slots: number;
  readonly lastSteps: number;
  readonly history: number;
  readonly historyLength: number;
}

/** Takes memory for the parameters and what belongs to each of them. */
export function placeParameters(
  layout: ParameterLayout,
  rule: UpdateRule,
  allocator: Allocator,
): ParameterMemory {
  const take = (elements: number, purpose: string) => allocator.allocate(4 * elements, purpose);
  return {
    weights: take(layout.length, "weights"),
    gradients: take(layout.length, "gradients"),
    states: rule.states.map((name) => take(layout.length, name)),
    mask: take(layout.prunableLength / 32, "mask"),
  };
}

/** Where a prunable matrix and what belongs to it lie. */
export function matrixPlace(
  { shape: [rows, depth], offset }: ParameterSlot,
  { weights, states, mask }: ParameterMemory,
): MatrixPlace {
  return {
    rows,
    depth,
    states: [weights, ...states].map((address) => address + 4 * offset),
    mask: mask + offset / 8,
  };
}

/** Takes memory for what outlives a step. */
export function placeTrainingMemory(request: MemoryRequest, allocator: Allocator): TrainingMemory {
  const { layout, capacity: { columns }, rule, groups, lookup, accumulates } = request;
  const take = (elements: number, purpose: string) => allocator.allocate(4 * elements, purpose);
  const tableRows = lookup ? layout.slot(lookup.table).shape[0] : 0;
  const listed = lookup ? columns : 0;
  const scalarCount = rule.scalars.length;
  return {
    ...placeParameters(layout, rule, allocator),
    gradientSums: take(accumulates ? layout.length : 0, "sums of gradients"),
    scalars: Array.from({ length: groups }, () => take(scalarCount, "scalars")),
    norm: take(2, "norm"),
    // Each parameter may end with a chunk of its own.
    partials: take(
      globalNormPartials([{ address: 0, count: layout.length }]) + layout.slots.length,
      "partial sums",
    ),
    batchShare: take(1, "share of the batch"),
    seed: take(2, "seed"),
    inputs: new Map(
      Object.entries(request.inputs).map(([name, { length }]) => [name, take(length, name)]),
    ),
    lookup: {
      rows: take(listed, "rows of the batch"),
      slots: take(listed, "places of rows"),
      lastSteps: take(tableRows, "steps of rows"),
      history: take(lookup ? historyCapacity * scalarCount : 0, "history"),
      historyLength: take(1, "length of the history"),
    },
  };
}
