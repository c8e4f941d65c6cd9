/**
 * The scratch of a selection: what its shaders tell one another, in u32 words.
 *
 *     header | a histogram for each digit | spared bitsets | ties of each chunk
 * @module
 */
import type { BufferRange } from "../shader.ts";

/** Invocations of a workgroup. */
export const workgroupSize = 256;

/** Weights of a chunk, which a workgroup has at a time: a mask word an invocation. */
export const chunkElements = 32 * workgroupSize;

/** Words of the header by number. */
export const header = {
  /** The digits of the threshold that are known, as high bits; in the end all. Nothing is below 0xffffffff: all is. */
  threshold: 0,
  /** Place of the threshold among the weights that share those digits: in the end the ties that are pruned. */
  rest: 1,
  /** Weights that were pruned before. */
  prunedBefore: 2,
  /** NaNs among the weights. */
  nans: 3,
} as const;

const headerWords = 8;

/** Bits of a magnitude that one pass looks at. */
export interface Digit {
  /** Bits below it. */
  readonly shift: number;
  readonly bins: number;
  /** First word of its histogram. */
  readonly histogram: number;
}

/** The 31 bits of |w|, from the highest. */
export const digits: readonly Digit[] = [
  { shift: 20, bins: 2048, histogram: headerWords },
  { shift: 10, bins: 1024, histogram: headerWords + 2048 },
  { shift: 0, bins: 1024, histogram: headerWords + 3072 },
];

const histogramsEnd = headerWords + 4096;

/** N:M: of `size` consecutive inputs of an output, `kept` are kept. At most 32 of them. */
export interface WeightGroup {
  readonly kept: number;
  readonly size: number;
}

/** A weight matrix with its mask. */
export interface MaskedMatrix {
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly columns: number;
  /** [rows, columns], row-major f32, from a multiple of 256 bytes. */
  readonly weights: BufferRange;
  /** Bitset of 32-bit words, from any of them: bit i mod 32 of word ⌊i / 32⌋ is set where weight i is kept. */
  readonly mask: BufferRange;
}

/** Words of a matrix in the scratch. */
export interface ListPlace {
  readonly count: number;
  readonly chunks: number;
  /** First word of the bitset of weights that N:M spares. */
  readonly spared: number;
  /** First word of what its chunks say of ties. */
  readonly ties: number;
}

/** Where everything lies. */
export interface ScratchLayout {
  readonly lists: readonly ListPlace[];
  /** Words that a selection begins with as zeros: all before the ties. */
  readonly zeroWords: number;
  readonly chunks: number;
  readonly words: number;
}

/** Lays out the scratch of matrices that compete. */
export function layOut(
  matrices: readonly Pick<MaskedMatrix, "rows" | "columns">[],
  group: WeightGroup | undefined,
): ScratchLayout {
  const sizes = matrices.map(({ rows, columns }) => {
    const count = rows * columns;
    return { count, maskWords: Math.ceil(count / 32), chunks: Math.ceil(count / chunkElements) };
  });
  let zeroWords = histogramsEnd;
  if (group) { for (const { maskWords } of sizes) zeroWords += maskWords; }
  let [spared, ties, chunks] = [histogramsEnd, zeroWords, 0];
  const lists = sizes.map((size): ListPlace => {
    const place = { count: size.count, chunks: size.chunks, spared, ties };
    if (group) spared += size.maskWords;
    ties += size.chunks;
    chunks += size.chunks;
    return place;
  });
  return { lists, zeroWords, chunks, words: ties };
}
