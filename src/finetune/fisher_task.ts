/**
 * What workers do with blocks of a Fisher matrix: the factors of their inverses with the scores of all units, and pruning
 * units with what makes up for them.
 * @module
 */
import type { Task } from "../plan/executor.ts";
import { bitsetWords, hasBit } from "../pruning/bitset.ts";
import { factorFisher } from "../pruning/obert/factor.ts";
import type { FisherPlaces } from "../pruning/obert/places.ts";
import { fisherBlock, removeUnits, SaliencyScratch, scoreUnits } from "../pruning/obert/saliency.ts";

/** Where the Fisher matrix of a weight matrix lies. Addresses are bytes from the arena's start. */
export interface FisherAddresses {
  /** f32 [blocks, size, size] */
  readonly fisher: number;
  /** f32 [blocks, size]: the weights by place. */
  readonly weights: number;
  /** f32 [blocks, size]: not 0 where the weight is pruned. */
  readonly pruned: number;
  /** f32 [units] */
  readonly scores: number;
  /** A bitset of the units to prune. */
  readonly removed: number;
}

interface BlockRange {
  readonly at: FisherAddresses;
  readonly places: FisherPlaces;
  /** Blocks from `begin` to before `end`. */
  readonly begin: number;
  readonly end: number;
}

/** Blocks to factor, and how. */
export interface FactorRequest extends BlockRange {
  readonly kind: "factor";
  /** 1 / gradients. */
  readonly scale: number;
  readonly damp: number;
}

/** Blocks to prune units of. */
export interface RemoveRequest extends BlockRange {
  readonly kind: "remove";
  readonly jointly: boolean;
}

/** Gives whether all numbers were finite. */
export const task: Task<FactorRequest | RemoveRequest, boolean> = {
  name: "fisherBlocks",
  run: (memory, request) => request.kind === "factor" ? factor(memory, request) : remove(memory, request),
};

function factor(
  { buffer }: WebAssembly.Memory,
  { at, places, begin, end, ...scale }: FactorRequest,
): boolean {
  const { size, unitsPerBlock } = places;
  const { factor, weights } = viewsOf(buffer, at, places);
  const scores = new Float32Array(buffer, at.scores, places.units);
  const memory = new Float64Array(size * size);
  const scratch = new SaliencyScratch(places);
  for (let index = begin; index < end; index++) {
    const pruned = new Float32Array(buffer, at.pruned + 4 * size * index, size);
    if (!factorFisher(factor, index * size * size, size, scale, pruned, memory)) return false;
    const block = fisherBlock(places, index, { factor, weights });
    scoreUnits(block, places, scores, index * unitsPerBlock, scratch);
  }
  return true;
}

function remove({ buffer }: WebAssembly.Memory, { at, places, begin, end, jointly }: RemoveRequest): boolean {
  const views = viewsOf(buffer, at, places);
  const removed = new Uint32Array(buffer, at.removed, bitsetWords(places.units));
  const scratch = new SaliencyScratch(places);
  for (let index = begin; index < end; index++) {
    const first = index * places.unitsPerBlock;
    removeUnits(
      fisherBlock(places, index, views),
      places,
      (unit) => hasBit(removed, first + unit),
      jointly,
      scratch,
    );
  }
  return true;
}

function viewsOf(
  buffer: ArrayBufferLike,
  { fisher, weights }: FisherAddresses,
  { blocks, size }: FisherPlaces,
) {
  return {
    factor: new Float32Array(buffer, fisher, blocks * size * size),
    weights: new Float32Array(buffer, weights, blocks * size),
  };
}
