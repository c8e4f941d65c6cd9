/**
 * What the lowering of attention and of its gradient share: shape checks, scratch memory, shares of work.
 * @module
 */
import type { ValueType } from "../../graph/graph.ts";
import { type Operand, shapeError, splitRange, type Target } from "../../graph/operation.ts";
import { dropThreshold, streamWord } from "../dropout/emit_random.ts";
import { type ArgumentValues, callKernel, type KernelCall } from "../kernel.ts";
import { type AttentionShape, blocking, frameBytes, itemArguments, spanBytes } from "./emitter.ts";
import { zeroPaddingKernel } from "./padding_kernel.ts";
import type { AttentionSizes } from "./reference.ts";

/** How a sequence attends to itself. */
export interface AttentionAttributes {
  /** Heads; divides the rows of the matrices. */
  readonly heads: number;
  /** Probability that an attention probability is dropped, in [0, 1). Above 0 the seed is needed. */
  readonly dropout: number;
  /** Names this attention among the users of the step's seed. */
  readonly stream: number;
  /** Whether the log-sum-exp is kept for the gradient. */
  readonly training: boolean;
}

/** Checks the attributes, the matrices (all of one type) and the lists. */
export function checkOperands(
  operation: string,
  attributes: AttentionAttributes,
  matrices: readonly (ValueType | undefined)[],
  offsets: ValueType | undefined,
  seed: ValueType | undefined,
  inputs: readonly (ValueType | undefined)[],
): void {
  const { heads, dropout } = attributes;
  if (!(dropout >= 0 && dropout < 1)) {
    throw new RangeError(`Cannot apply ${operation}: dropout is ${dropout}, wanted 0 ≤ dropout < 1`);
  }
  const [hidden, columns] = matrices[0]?.shape ?? [];
  const fits = matrices.every((type) =>
    type?.dtype === "f32" && type.layout === "tiled" && type.shape[0] === hidden && type.shape[1] === columns
  );
  const list = offsets?.dtype === "i32" && offsets.shape.length === 1 && offsets.shape[0] >= 1;
  const key = seed ? seed.dtype === "i32" && seed.shape.length === 1 && seed.shape[0] === 2 : dropout === 0;
  if (!fits || !list || !key || !(heads >= 1) || hidden % heads !== 0) {
    const wanted = `f32 tiled [${heads} heads · headSize, columns] matrices, i32 rows [sequences + 1], ` +
      `i32 rows [2] if there is dropout`;
    throw shapeError(operation, wanted, inputs);
  }
}

/** The sizes as the references take them. */
export function attentionSizes(attributes: AttentionAttributes, matrix: ValueType): AttentionSizes {
  const { heads, dropout, stream } = attributes;
  return { heads, headSize: matrix.shape[0] / heads, columns: matrix.shape[1], dropout, stream };
}

/** The constants of the code. */
export function attentionShape(
  attributes: AttentionAttributes,
  matrix: ValueType,
  { tile }: Target,
): AttentionShape {
  const { heads, headSize, dropout } = attentionSizes(attributes, matrix);
  return { heads, headSize, tile, dropout: dropout > 0 };
}

/** Byte offsets of a worker's scratch arrays, and their size. */
export interface ScratchLayout {
  /** Words of the kernel's loops that do not fit into registers. */
  readonly frame: number;
  /** Where rows of a block are shifted before a partial store. */
  readonly staging: number;
  /** Span list: the parts of a sequence in each tile. */
  readonly runs: number;
  /** Span list: columns that are broadcast together. */
  readonly groups: number;
  /** Span list: columns that run in the lanes. */
  readonly blocks: number;
  /** One block wide row per column of a sequence. */
  readonly scores: number;
  /** Another such array, for the gradient. */
  readonly gradScores: number;
  /** One number per column of a sequence, for the gradient. */
  readonly delta: number;
  /** Size of all together. */
  readonly bytes: number;
}

/** Places the scratch arrays for sequences of up to `columns` columns. */
export function scratchLayout(columns: number, target: Target): ScratchLayout {
  const { vectors, broadcasts } = blocking(target);
  const { tile, lanes } = target;
  const width = vectors * lanes;
  // Spans that were moved back, or that reach beyond the sequence's end, cover at most this many spare rows.
  const spare = Math.max(width, broadcasts);
  const tiles = columns / tile;
  let bytes = 0;
  const place = (size: number, before = 0) => {
    const offset = bytes + before;
    bytes = Math.ceil((offset + size) / 64) * 64;
    return offset;
  };
  const scores = () => place((columns + spare) * width * 4, spare * width * 4);
  return {
    frame: place(frameBytes),
    // Rows of a block for each broadcast feature, and what a shifted read of the last row runs over.
    staging: place((broadcasts + 1) * width * 4),
    runs: place(tiles * spanBytes),
    groups: place(tiles * Math.ceil(tile / broadcasts) * spanBytes),
    blocks: place(tiles * Math.ceil(tile / width) * spanBytes),
    scores: scores(),
    gradScores: scores(),
    delta: place((columns + spare) * 4, spare * 4),
    bytes,
  };
}

/** The values of `itemArguments` for a worker. */
export function itemValues(
  attributes: AttentionAttributes,
  columns: number,
  offsets: Operand,
  seed: Operand | undefined,
  scratch: ScratchLayout,
  scratchAddress: number,
  worker: number,
  workers: number,
): ArgumentValues<typeof itemArguments> {
  const items = (offsets.type.shape[0] - 1) * attributes.heads;
  return {
    items: Math.max(0, Math.ceil((items - worker) / workers)),
    firstItem: worker,
    workers,
    columns,
    offsets: offsets.address,
    seed: seed?.address ?? 0,
    streamWord: streamWord(attributes.stream),
    dropThreshold: dropThreshold(attributes.dropout),
    keepScale: 1 / (1 - attributes.dropout),
    frame: scratchAddress + scratch.frame,
    staging: scratchAddress + scratch.staging,
    runs: scratchAddress + scratch.runs,
    groups: scratchAddress + scratch.groups,
    blocks: scratchAddress + scratch.blocks,
    scores: scratchAddress + scratch.scores,
  };
}

/** Calls that clear one worker's share of a result's padding columns. */
export function zeroPadding(
  { type, address }: Operand,
  offsets: Operand,
  tile: number,
  worker: number,
  workers: number,
): KernelCall[] {
  const [features, columns] = type.shape;
  const width = type.layout === "tiled" ? tile : columns;
  const { begin, end } = splitRange(features, workers)[worker];
  return begin === end ? [] : [callKernel(zeroPaddingKernel, {
    matrix: address + begin * width * 4,
    end: offsets.address + (offsets.type.shape[0] - 1) * 4,
    columns,
    tile: width,
    tileBytes: features * width * 4,
    rows: end - begin,
  })];
}
