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
  /** What is to be predicted, where that is a number. */
  readonly target?: number;
  /** Its number in the set it is of. */
  readonly index?: number;
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
 * the caller (`largestBatch`), so that is never the user's fault.
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

/** How large a batch may grow: it takes sequences while both numbers allow it, and at least one. `Infinity` is no limit. */
export interface BatchLimit {
  readonly sequences: number;
  readonly tokens: number;
}

/** What `planEpoch` shuffles. */
export interface EpochRequest {
  /** Tokens of each example. */
  readonly lengths: ArrayLike<number>;
  readonly limit: BatchLimit;
  /** Whether sequences of like length come together. */
  readonly groupByLength: boolean;
  readonly seed: number;
  /** From 0; every epoch has its own order. */
  readonly epoch: number;
}

/**
 * The batches of one epoch, as example numbers; one batch may be smaller than the others. The order depends on the
 * request only, so training resumes at batch k by planning again and starting at `batches[k]`.
 *
 * What batches of SST-2's training set (67,349 texts of 3 to 66 tokens) come to in epoch 0 of seed 42; a plan is made
 * for each number of 64-column tiles, and filled tiles waste nothing (`batches_test.ts` measures it again):
 *
 *     limit            grouped   batches   tokens a batch   deviation   plans   tiles filled
 *     32 sequences     no           2105        231 –  615         53       7           93 %
 *     32 sequences     yes          2105         96 – 1538        304      23           95 %
 *     1024 tokens      no            885        811 – 1024         12       2           99 %
 *     1024 tokens      yes           885        297 – 1024         26       3           99 %
 *
 * So where nothing is padded it is the limit in tokens that makes steps even and plans few. Grouping by length does not:
 * with a limit in sequences its batches of short and of long texts are far apart. It is there for comparison with the
 * Hugging Face trainer, where it saves padding.
 */
export function planEpoch({ lengths, limit, groupByLength, seed, epoch }: EpochRequest): Int32Array[] {
  const stream = new RandomStream(randomKey(seed, "shuffle", epoch));
  const shuffled = stream.shuffle(Array.from({ length: lengths.length }, (_, index) => index));
  const order = Int32Array.from(shuffled);
  if (!groupByLength) return inBatches(order, lengths, limit);
  sortWindows(order, lengths, limit);
  return stream.shuffle(inBatches(order, lengths, limit));
}

/** Batches that are sorted by length together, at most: the Hugging Face trainer's number. */
const batchesPerWindow = 50;

/**
 * Sorts by length within windows of many batches, so that a batch holds sequences of like length and which ones those
 * are still changes from epoch to epoch: there are at least four windows, as in the Hugging Face trainer. Windows go up
 * and down in turns, so that a batch at the border of two is of like length too.
 */
function sortWindows(order: Int32Array, lengths: ArrayLike<number>, limit: BatchLimit): void {
  const batches = inBatches(order, lengths, limit).length;
  const size = Math.max(1, Math.min(batchesPerWindow, Math.floor(batches / 4)));
  const windowLimit = { sequences: limit.sequences * size, tokens: limit.tokens * size };
  for (const [index, window] of inBatches(order, lengths, windowLimit).entries()) {
    const direction = index % 2 === 0 ? 1 : -1;
    window.sort((a, b) => direction * (lengths[a] - lengths[b]));
  }
}

/**
 * Batches for evaluation: shortest first, so that the work of a batch is even and the largest comes last.
 * A batch holds the examples' own numbers, so results go home by `results[batch[i]] = …`.
 */
export function evaluationBatches(lengths: ArrayLike<number>, limit: BatchLimit): Int32Array[] {
  const order = Int32Array.from({ length: lengths.length }, (_, index) => index);
  return inBatches(order.sort((a, b) => lengths[a] - lengths[b] || a - b), lengths, limit);
}

/** The most sequences, and the most tokens, that one of the batches has. Both are 0 where there is none. */
export function largestBatch(batches: readonly Int32Array[], lengths: ArrayLike<number>): BatchLimit {
  let sequences = 0;
  let tokens = 0;
  for (const batch of batches) {
    sequences = Math.max(sequences, batch.length);
    tokens = Math.max(tokens, batch.reduce((sum, index) => sum + lengths[index], 0));
  }
  return { sequences, tokens };
}

/** Cuts an order into batches, each as long as the limit allows. The batches are views of the order. */
function inBatches(order: Int32Array, lengths: ArrayLike<number>, limit: BatchLimit): Int32Array[] {
  for (const [name, value] of Object.entries(limit)) {
    if (value === Infinity || (Number.isInteger(value) && value > 0)) continue;
    throw new RangeError(`Cannot make batches of ${value} ${name}: wanted a positive integer`);
  }
  const batches: Int32Array[] = [];
  let begin = 0;
  let tokens = 0;
  for (const [position, index] of order.entries()) {
    const isFull = position - begin === limit.sequences || tokens + lengths[index] > limit.tokens;
    if (isFull && position > begin) {
      batches.push(order.subarray(begin, position));
      begin = position;
      tokens = 0;
    }
    tokens += lengths[index];
  }
  if (begin < order.length) batches.push(order.subarray(begin));
  return batches;
}
