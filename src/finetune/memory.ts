/**
 * What outlives a training step, and where it lies in the arena.
 * @module
 */
import { adamwScalarCount } from "../kernels/adamw/steps.ts";
import { globalNormPartials } from "../kernels/global_norm/steps.ts";
import type { Allocator } from "../plan/arena.ts";
import type { ParameterLayout } from "./parameters.ts";

/** Most columns and sequences of a batch, each a multiple of the tile. */
export interface BatchCapacity {
  readonly columns: number;
  readonly sequences: number;
}

/** Steps that rows of a lazily updated table may miss before all are brought up to date. */
export const historyCapacity = 1024;

/** Bytes of each long-lived array, in the order in which they are allocated. */
function arraySizes(layout: ParameterLayout, { columns, sequences }: BatchCapacity) {
  const flat = layout.length * 4;
  const [tableRows] = layout.words.shape;
  const slots = layout.slots.length;
  return {
    weights: flat,
    gradients: flat,
    firstMoment: flat,
    secondMoment: flat,
    /** Bit i of word j keeps weight 32j + i of the prunable range. */
    mask: layout.prunableLength / 8,
    scalars: adamwScalarCount * 4,
    scalarsWithoutDecay: adamwScalarCount * 4,
    /** The gradients' norm and the clip factor. */
    norm: 8,
    /** Each parameter may end with a chunk of its own. */
    partials: (globalNormPartials([{ address: 0, count: layout.length }]) + slots) * 4,
    // Inputs of a step, as the graph names them.
    tokenIds: columns * 4,
    positionIds: columns * 4,
    typeIds: columns * 4,
    offsets: (sequences + 1) * 4,
    firstTokens: sequences * 4,
    labels: sequences * 4,
    seed: 8,
    // Of the lazily updated word table.
    /** Rows that the batch names, and for each column the place of its row in that list. */
    wordRows: columns * 4,
    wordSlots: columns * 4,
    lastSteps: tableRows * 4,
    history: historyCapacity * adamwScalarCount * 4,
    historyLength: 4,
  } as const;
}

/** Address of each long-lived array. */
export type TrainingMemory = Readonly<Record<keyof ReturnType<typeof arraySizes>, number>>;

/** Takes memory for what outlives a step. */
export function placeTrainingMemory(
  layout: ParameterLayout,
  capacity: BatchCapacity,
  allocator: Allocator,
): TrainingMemory {
  const entries = Object.entries(arraySizes(layout, capacity));
  return Object.fromEntries(
    entries.map(([name, bytes]) => [name, allocator.allocate(bytes, name)]),
  ) as TrainingMemory;
}
