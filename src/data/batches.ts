/**
 * Batches: which examples go together in which order, and how they lie in the arena.
 *
 * Sequences are packed end to end, without padding between them. With sequences of 3 and 2 tokens, in views of 8
 * columns and 3 sequences:
 *
 *     tokenIds      a  b  c  d  e −1 −1 −1        columns are tokens
 *     positionIds   0  1  2  0  1 −1 −1 −1
 *     typeIds       0  0  1  0  0 −1 −1 −1
 *     offsets       0  3  5  5                    sequence s holds columns offsets[s] … offsets[s+1]
 *     firstTokens   0  3 −1                       column of each sequence's [CLS]
 *     labels        1  0 −1
 * @module
 */
import { randomKey, RandomStream } from "../core/random.ts";

/** One tokenised example. `ids` and `typeIds` are of the same length, at least 1. */
export interface EncodedExample {
  readonly ids: Int32Array;
  /** Segment of each token: 0 for the text, 1 for its pair. */
  readonly typeIds: Int32Array | Uint8Array;
  /** Class number, or −1 where there is none. */
  readonly label: number;
}

/** The arrays of a batch, usually views of the arena. Their lengths are the capacity. */
export interface BatchViews {
  /** [columns] */
  readonly tokenIds: Int32Array;
  /** [columns], from 0 in each sequence. */
  readonly positionIds: Int32Array;
  /** [columns] */
  readonly typeIds: Int32Array;
  /** [sequences + 1] */
  readonly offsets: Int32Array;
  /** [sequences] */
  readonly firstTokens: Int32Array;
  /** [sequences] */
  readonly labels: Int32Array;
}

/** Fresh views of that capacity, for callers without an arena. */
export function makeBatchViews(capacity: { columns: number; sequences: number }): BatchViews {
  const { columns, sequences } = capacity;
  return {
    tokenIds: new Int32Array(columns),
    positionIds: new Int32Array(columns),
    typeIds: new Int32Array(columns),
    offsets: new Int32Array(sequences + 1),
    firstTokens: new Int32Array(sequences),
    labels: new Int32Array(sequences),
  };
}

/**
 * Writes a batch into the views, padding included, and returns how many columns it took.
 *
 * Throws RangeError, before anything is written, when the batch is larger than the views: capacity is planned by
 * the caller (`tokenCapacity`), so that is never the user's fault.
 */
export function packBatch(batch: readonly EncodedExample[], views: BatchViews): number {
  const { tokenIds, positionIds, typeIds, offsets, firstTokens, labels } = views;
  let tokens = 0;
  for (const { ids } of batch) tokens += ids.length;
  if (tokens > tokenIds.length || batch.length > labels.length) {
    throw new RangeError(
      `Cannot pack ${batch.length} sequences of ${tokens} tokens into ${labels.length} of ${tokenIds.length}`,
    );
  }

  let column = 0;
  for (let sequence = 0; sequence < batch.length; sequence++) {
    const example = batch[sequence];
    offsets[sequence] = column;
    firstTokens[sequence] = column;
    labels[sequence] = example.label;
    tokenIds.set(example.ids, column);
    typeIds.set(example.typeIds, column);
    for (let position = 0; position < example.ids.length; position++) positionIds[column++] = position;
  }
  tokenIds.fill(-1, column);
  positionIds.fill(-1, column);
  typeIds.fill(-1, column);
  offsets.fill(column, batch.length);
  firstTokens.fill(-1, batch.length);
  labels.fill(-1, batch.length);
  return column;
}

/** The most tokens any `batchSize` examples can have: columns that are enough for every epoch's shuffle. */
export function tokenCapacity(lengths: ArrayLike<number>, batchSize: number): number {
  return Int32Array.from(lengths).sort().subarray(-batchSize).reduce((sum, length) => sum + length, 0);
}

/** What `planEpoch` shuffles. */
export interface EpochRequest {
  readonly examples: number;
  readonly batchSize: number;
  readonly seed: number;
  /** From 0; every epoch has its own order. */
  readonly epoch: number;
}

/**
 * The batches of one epoch, as example numbers; the last batch may be smaller. The order depends on the request
 * only, so training resumes at batch k by planning again and starting at `batches[k]`.
 */
export function planEpoch({ examples, batchSize, seed, epoch }: EpochRequest): Int32Array[] {
  const order = Array.from({ length: examples }, (_, index) => index);
  new RandomStream(randomKey(seed, "shuffle", epoch)).shuffle(order);
  return inBatches(Int32Array.from(order), batchSize);
}

/**
 * Batches for evaluation: shortest first, so that the work of a batch is even and the largest comes last.
 * A batch holds the examples' own numbers, so results go home by `results[batch[i]] = …`.
 */
export function evaluationBatches(lengths: ArrayLike<number>, batchSize: number): Int32Array[] {
  const order = Int32Array.from({ length: lengths.length }, (_, index) => index);
  return inBatches(order.sort((a, b) => lengths[a] - lengths[b] || a - b), batchSize);
}

function inBatches(order: Int32Array, batchSize: number): Int32Array[] {
  if (!(Number.isInteger(batchSize) && batchSize > 0)) {
    throw new RangeError(`Cannot make batches of ${batchSize}: wanted a positive integer`);
  }
  const count = Math.ceil(order.length / batchSize);
  return Array.from(
    { length: count },
    (_, batch) => order.subarray(batch * batchSize, (batch + 1) * batchSize),
  );
}
