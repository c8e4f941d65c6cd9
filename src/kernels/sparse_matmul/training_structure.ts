/**
 * What training needs beside the stored values of a pruned matrix W: where each belongs, and for single weights a
 * packing of Wᵀ for the gradient of the activations.
 *
 * While a mask stays as it is, the values in packed order are the parameter: optimiser and gradient run over exactly
 * these. Everything here follows from the mask and is made anew with it, by workers: plain data in, plain data out.
 *
 * Wᵀ is packed for `unstructured` only. There the gradient Wᵀ·gradY by a packing of its own, gathering of the values
 * included, takes three quarters of the time that scattering along the packing of W takes (`sparseMatmulInputGradient`);
 * for `4x1`, whose blocks are 1x4 in Wᵀ and share no loads there, it takes a third more. AVX-512, 768 × 3072, 90 %.
 * @module
 */
import { countBits } from "../../core/bits.ts";
import {
  groupRows,
  indexBytes,
  type PackedStructure,
  type SparsePattern,
  structureOfBitmask,
  valueCount,
  writePacked,
} from "./pack.ts";

/** How to cut a matrix; `chooseBlocking` and the defaults of `packSparse` know good answers. */
export interface Cut {
  /** Inputs of a panel. */
  readonly panelInputs?: number;
  /** Rows of an output block, a multiple of 4. */
  readonly blockRows?: number;
}

/** A matrix to train and how to pack it. */
export interface TrainingRequest {
  readonly rows: number;
  readonly depth: number;
  /** Bit i stands for weight i, row-major; 1 for "kept". `4x1` masks keep whole blocks. Bits beyond the weights are 0. */
  readonly mask: Uint32Array;
  readonly pattern: SparsePattern;
  readonly cut?: Cut;
  /** Of Wᵀ, for `unstructured`. */
  readonly transposedCut?: Cut;
}

/** Packed structure without values. */
export interface TrainingStructure {
  readonly structure: PackedStructure;
  /** The operand `indices` of `sparseMatmul` and its gradients. */
  readonly indices: Uint8Array<ArrayBuffer>;
  /** For each stored value its place in the dense row-major matrix; −1 for those that belong to no row. */
  readonly positions: Int32Array<ArrayBuffer>;
  /** Wᵀ, for `unstructured`. */
  readonly transposed?: TransposedStructure;
}

/** Wᵀ packed, its values given as places in the values of W. */
export interface TransposedStructure {
  readonly structure: PackedStructure;
  readonly indices: Uint8Array<ArrayBuffer>;
  /** For each value of Wᵀ in packed order its place in the values of W: the operand of `gatherValues`. */
  readonly permutation: Int32Array<ArrayBuffer>;
}

/** Packs a mask. Throws InputError when the cuts do not fit, RangeError when the mask does not. */
export function trainingStructure(request: TrainingRequest): TrainingStructure {
  const { rows, depth, mask, pattern, cut, transposedCut } = request;
  if (mask.length !== Math.ceil(rows * depth / 32)) {
    throw new RangeError(
      `Cannot pack a mask of ${mask.length} words: ${rows} × ${depth} wants ${Math.ceil(rows * depth / 32)}`,
    );
  }
  const weights = listBits(mask);
  const last = weights.at(-1);
  if (last !== undefined && last >= rows * depth) {
    throw new RangeError(
      `Cannot pack a mask that keeps weight ${last}: ${rows} × ${depth} wants numbers below ${rows * depth}`,
    );
  }
  const shape = [rows, depth] as const;
  // What is packed are numbers instead of weights: 1 + the rank of the weight in row-major order. Zero fills gaps.
  const ranks = new Int32Array(weights.length);
  for (let rank = 0; rank < ranks.length; rank++) ranks[rank] = rank + 1;
  const { structure, indices, values } = pack(shape, rowBits(mask, weights, rows, depth), ranks, {
    pattern,
    ...cut,
  });
  checkGaps(structure, weights);
  const positions = values;
  if (pattern !== "unstructured") {
    for (let i = 0; i < values.length; i++) positions[i] = values[i] === 0 ? -1 : weights[values[i] - 1];
    return { structure, indices, positions };
  }
  const places = new Int32Array(weights.length);
  for (let i = 0; i < values.length; i++) {
    places[values[i] - 1] = i;
    positions[i] = weights[values[i] - 1];
  }
  const { bitmask, ordered } = byColumn(weights, places, rows, depth);
  const transposed = pack([depth, rows], bitmask, ordered, { pattern, ...transposedCut });
  return {
    structure,
    indices,
    positions,
    transposed: {
      structure: transposed.structure,
      indices: transposed.indices,
      permutation: transposed.values,
    },
  };
}

/** values[i] = dense[positions[i]], and 0 where the position is −1. */
export function takeStored(dense: Float32Array, positions: Int32Array, values: Float32Array): void {
  for (let i = 0; i < positions.length; i++) values[i] = positions[i] < 0 ? 0 : dense[positions[i]];
}

/** dense[positions[i]] = values[i], and 0 everywhere else. */
export function putStored(values: Float32Array, positions: Int32Array, dense: Float32Array): void {
  dense.fill(0);
  for (let i = 0; i < positions.length; i++) if (positions[i] >= 0) dense[positions[i]] = values[i];
}

/** Packs numbers in the place of weights: the packer moves bits. */
function pack(
  shape: readonly [rows: number, depth: number],
  bitmask: Uint8Array,
  numbers: Int32Array<ArrayBuffer>,
  options: Cut & { readonly pattern: SparsePattern },
): {
  readonly structure: PackedStructure;
  readonly indices: Uint8Array<ArrayBuffer>;
  readonly values: Int32Array<ArrayBuffer>;
} {
  const structure = structureOfBitmask({ shape, bitmask }, options);
  const bytes = new Uint8Array(structure.byteLength);
  writePacked(structure, { shape, bitmask, values: new Float32Array(numbers.buffer) }, bytes);
  const [indicesOffset] = structure.indexOffsets;
  return {
    structure,
    indices: bytes.slice(indicesOffset, indicesOffset + indexBytes(structure)),
    values: new Int32Array(bytes.buffer.slice(0, 4 * valueCount(structure))),
  };
}

/** A value that a 4x1 block stores for a pruned weight would be trained. */
function checkGaps(structure: PackedStructure, weights: Int32Array): void {
  const { rows, depth, nnz, pattern } = structure;
  const height = groupRows(pattern);
  const missingRows = rows % height === 0 ? 0 : height - rows % height;
  const inLastRow = weights.length - lowerBound(weights, (rows - 1) * depth);
  if (valueCount(structure) - nnz === missingRows * inLastRow) return;
  throw new RangeError(
    `Cannot train a ${pattern} mask of ${nnz} weights: they lie in ${structure.storedBlocks} blocks, ` +
      "wanted whole blocks",
  );
}

/** Index of the first element that is not less. */
function lowerBound(sorted: Int32Array, value: number): number {
  let [begin, end] = [0, sorted.length];
  while (begin < end) {
    const middle = (begin + end) >> 1;
    if (sorted[middle] < value) begin = middle + 1;
    else end = middle;
  }
  return begin;
}

/** Numbers of the bits that are set, ascending. */
function listBits(words: Uint32Array): Int32Array {
  let count = 0;
  for (let word = 0; word < words.length; word++) count += countBits(words[word]);
  const list = new Int32Array(count);
  let next = 0;
  for (let word = 0; word < words.length; word++) {
    for (let bits = words[word] | 0; bits !== 0; bits &= bits - 1) {
      list[next++] = 32 * word + 31 - Math.clz32(bits & -bits);
    }
  }
  return list;
}

/** The bitmask that `structureOfBitmask` takes: bytes, each row padded with zeros. */
function rowBits(mask: Uint32Array, weights: Int32Array, rows: number, depth: number): Uint8Array {
  if (depth % 8 === 0) return new Uint8Array(mask.buffer, mask.byteOffset, rows * depth / 8);
  const rowBytes = Math.ceil(depth / 8);
  const bytes = new Uint8Array(rows * rowBytes);
  for (let i = 0, row = 0; i < weights.length; i++) {
    while (weights[i] >= (row + 1) * depth) row++;
    const column = weights[i] - row * depth;
    bytes[row * rowBytes + (column >> 3)] |= 1 << (column & 7);
  }
  return bytes;
}

/** The bitmask of the transpose, and the places in the order of its weights, by counting. */
function byColumn(
  weights: Int32Array,
  places: Int32Array,
  rows: number,
  depth: number,
): { readonly bitmask: Uint8Array; readonly ordered: Int32Array<ArrayBuffer> } {
  const rowBytes = Math.ceil(rows / 8);
  const bitmask = new Uint8Array(depth * rowBytes);
  const columns = new Int32Array(weights.length);
  const next = new Int32Array(depth + 1);
  for (let i = 0, row = 0; i < weights.length; i++) {
    while (weights[i] >= (row + 1) * depth) row++;
    const column = weights[i] - row * depth;
    columns[i] = column;
    next[column + 1]++;
    bitmask[column * rowBytes + (row >> 3)] |= 1 << (row & 7);
  }
  for (let column = 0; column < depth; column++) next[column + 1] += next[column];
  const ordered = new Int32Array(weights.length);
  for (let i = 0; i < weights.length; i++) ordered[next[columns[i]]++] = places[i];
  return { bitmask, ordered };
}
