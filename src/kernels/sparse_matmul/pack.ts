/**
 * Sparse weights in the order the kernel walks them, so that it reads each array from front to back.
 *
 * The matrix [rows, depth] is cut into output blocks of `blockRows` rows, each into input panels of `panelInputs`
 * inputs, each into row groups: one row (`unstructured`) or four (`4x1`). A row group keeps its *entries* in the order
 * of the inputs; an entry is one input with the weight of each row of the group. A 4x1 entry is stored when any of its
 * four weights is not zero; rows missing from the last group are zeros that no kernel stores results for.
 *
 * The bytes hold two arrays, little-endian:
 *
 * - values f32 [storedBlocks · group rows]: the weights of each entry;
 * - indices u16 [row groups · panels + storedBlocks]: for each row group of each panel its number of entries, then
 *   their inputs, counted from the start of the panel.
 *
 * Nothing here depends on the tile or the machine. Zeros of either sign are left out of a dense matrix; what a
 * `sparse-bitmask` file stores is kept whatever it is.
 * @module
 */
import { InputError } from "../../core/errors.ts";

/** Shape of the pieces that are stored or left out: outputs × inputs. */
export type SparsePattern = "unstructured" | "4x1";

/** What the kernel and the planner must know of packed weights. Plain data. */
export interface PackedStructure {
  readonly pattern: SparsePattern;
  /** Output features, N. */
  readonly rows: number;
  /** Input features, K. */
  readonly depth: number;
  /** Weights that are not zero. */
  readonly nnz: number;
  /** Entries: single weights, or 4x1 blocks. */
  readonly storedBlocks: number;
  /** Inputs of a panel; the last panel may have fewer. */
  readonly panelInputs: number;
  /** Rows of an output block, a multiple of 4; the last block may have fewer. */
  readonly blockRows: number;
  /** Entries before each output block, and at the end all of them. */
  readonly blockEntries: readonly number[];
  /** Byte offsets of the arrays. */
  readonly valuesOffset: number;
  readonly indicesOffset: number;
  readonly byteLength: number;
}

/** Packed weights: the operand of `sparseMatmul` and its description. */
export interface PackedWeight {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly structure: PackedStructure;
}

/** How to pack. */
export interface PackOptions {
  readonly pattern: SparsePattern;
  /** Inputs of a panel, at most 65535; `defaultPanelInputs` unless told. */
  readonly panelInputs?: number;
}

/** A matrix with its zeros left out, as a `sparse-bitmask` file has it. */
export interface SparseEntries {
  readonly shape: readonly [rows: number, columns: number];
  /** Bit `column % 8` of byte `row * ⌈columns / 8⌉ + ⌊column / 8⌋` tells whether a value is stored. */
  readonly bitmask: Uint8Array;
  /** The stored values, row after row. */
  readonly values: Float32Array;
}

/** Rows that share an entry. */
export function groupRows(pattern: SparsePattern): number {
  return pattern === "4x1" ? 4 : 1;
}

/**
 * Panels of equal size, at most 768 inputs. With the 4 lanes of WebAssembly x may come from the L2 cache, and each
 * panel costs a pass over y and a mispredicted end of loop per row: at 90 % zeros 768 inputs beat 256 by 10 %.
 */
export function defaultPanelInputs(depth: number): number {
  return Math.ceil(depth / Math.ceil(depth / 768));
}

/** About sixteen blocks, so that workers can share a matrix; 32 rows at least, since a block reads all of x again. */
function blockRowsFor(rows: number): number {
  return Math.max(32, Math.ceil(rows / 64) * 4);
}

/** Packs a dense row-major matrix. Throws InputError when the sizes do not fit. */
export function packSparse(
  weight: Float32Array,
  [rows, depth]: readonly [rows: number, depth: number],
  options: PackOptions,
): PackedWeight {
  if (weight.length !== rows * depth) {
    throw new InputError(`Cannot pack ${weight.length} weights: wanted ${rows} × ${depth}`);
  }
  const stride = Math.ceil(depth / 8);
  const bitmask = new Uint8Array(rows * stride);
  for (let i = 0; i < weight.length; i++) {
    const column = i % depth;
    if (weight[i] !== 0) bitmask[(i - column) / depth * stride + (column >> 3)] |= 1 << (column & 7);
  }
  const values = weight.filter((value) => value !== 0);
  return packSparseFromEntries({ shape: [rows, depth], bitmask, values }, options);
}

/** Packs a matrix whose zeros are left out. Throws InputError when the sizes do not fit. */
export function packSparseFromEntries(entries: SparseEntries, options: PackOptions): PackedWeight {
  const structure = structureOfBitmask(entries, options);
  const bytes = new Uint8Array(structure.byteLength);
  writePacked(structure, entries, bytes);
  return { bytes, structure };
}

/**
 * What packing would give, from the bits alone: memory can be laid out before any value is read.
 * Throws InputError when the sizes do not fit.
 */
export function structureOfBitmask(
  { shape: [rows, depth], bitmask }: Pick<SparseEntries, "shape" | "bitmask">,
  { pattern, panelInputs = defaultPanelInputs(depth) }: PackOptions,
): PackedStructure {
  if (!(rows > 0 && depth > 0)) {
    throw new InputError(`Cannot pack ${rows} × ${depth} weights: wanted at least one`);
  }
  if (!Number.isInteger(panelInputs) || panelInputs < 1 || panelInputs > 65535) {
    throw new InputError(`Cannot pack panels of ${panelInputs} inputs: wanted 1 to 65535`);
  }
  const { words, stride } = bitmaskWords(rows, depth, bitmask);
  const height = groupRows(pattern);
  const blockRows = blockRowsFor(rows);
  let nnz = 0;
  let storedBlocks = 0;
  const blockEntries: number[] = [];
  for (let row = 0; row < rows; row += height) {
    if (row % blockRows === 0) blockEntries.push(storedBlocks);
    const end = Math.min(rows, row + height) * stride;
    for (let first = row * stride; first < (row + 1) * stride; first++) {
      let any = 0;
      for (let word = first; word < end; word += stride) {
        any |= words[word];
        nnz += countBits(words[word]);
      }
      storedBlocks += countBits(any);
    }
  }
  blockEntries.push(storedBlocks);
  const indicesOffset = storedBlocks * height * 4;
  const counts = Math.ceil(rows / height) * Math.ceil(depth / panelInputs);
  return {
    pattern,
    rows,
    depth,
    nnz,
    storedBlocks,
    panelInputs,
    blockRows,
    blockEntries,
    valuesOffset: 0,
    indicesOffset,
    byteLength: indicesOffset + (counts + storedBlocks) * 2,
  };
}

/**
 * Packs into `target`, which may lie in shared memory; it begins at a multiple of 4 bytes and is
 * `structure.byteLength` long. `structure` comes from `structureOfBitmask` for the same bits. Throws InputError when
 * there are not as many values as bits.
 */
export function writePacked(structure: PackedStructure, entries: SparseEntries, target: Uint8Array): void {
  const { pattern, rows, depth, nnz, storedBlocks, panelInputs, blockRows } = structure;
  if (entries.values.length !== nnz) {
    throw new InputError(`Cannot pack ${entries.values.length} values: the bitmask has ${nnz} bits`);
  }
  if (target.length !== structure.byteLength) {
    throw new RangeError(`Cannot pack into ${target.length} bytes: wanted ${structure.byteLength}`);
  }
  const height = groupRows(pattern);
  const { words, stride } = bitmaskWords(rows, depth, entries.bitmask);
  // Values are moved as bits: faster than as numbers, and a NaN keeps its payload.
  const source = new Int32Array(entries.values.buffer, entries.values.byteOffset, nnz);
  const values = new Int32Array(target.buffer, target.byteOffset, storedBlocks * height);
  const indices = new Uint16Array(
    target.buffer,
    target.byteOffset + structure.indicesOffset,
    (target.length - structure.indicesOffset) / 2,
  );
  let nextValue = 0;
  let nextIndex = 0;
  /** Next value of each row of the block; rows after the last have neither bits nor values. */
  const cursors = new Int32Array(blockRows);
  let blockBegin = 0;
  for (let block = 0; block < rows; block += blockRows) {
    const blockEnd = Math.min(rows, block + blockRows);
    for (let row = block; row < blockEnd; row++) {
      cursors[row - block] = blockBegin;
      for (let word = row * stride; word < (row + 1) * stride; word++) blockBegin += countBits(words[word]);
    }
    for (let panel = 0; panel < depth; panel += panelInputs) {
      const panelEnd = Math.min(depth, panel + panelInputs);
      const firstWord = panel >> 5;
      const lastWord = (panelEnd - 1) >> 5;
      const firstMask = -1 << (panel & 31);
      const lastMask = -1 >>> (31 - ((panelEnd - 1) & 31));
      for (let row = block; row < blockEnd; row += height) {
        const countIndex = nextIndex++;
        for (let word = firstWord; word <= lastWord; word++) {
          let mask = -1;
          if (word === firstWord) mask &= firstMask;
          if (word === lastWord) mask &= lastMask;
          const at = row * stride + word;
          const offset = 32 * word - panel;
          if (height === 1) {
            for (let bits = words[at] & mask; bits !== 0; bits &= bits - 1) {
              indices[nextIndex++] = offset + 31 - Math.clz32(bits & -bits);
              values[nextValue++] = source[cursors[row - block]++];
            }
          } else {
            const inGroup = blockEnd - row;
            const row0 = words[at] & mask;
            const row1 = inGroup > 1 ? words[at + stride] & mask : 0;
            const row2 = inGroup > 2 ? words[at + 2 * stride] & mask : 0;
            const row3 = inGroup > 3 ? words[at + 3 * stride] & mask : 0;
            const first = row - block;
            for (let bits = row0 | row1 | row2 | row3; bits !== 0; bits &= bits - 1) {
              const bit = bits & -bits;
              indices[nextIndex++] = offset + 31 - Math.clz32(bit);
              values[nextValue++] = (row0 & bit) !== 0 ? source[cursors[first]++] : 0;
              values[nextValue++] = (row1 & bit) !== 0 ? source[cursors[first + 1]++] : 0;
              values[nextValue++] = (row2 & bit) !== 0 ? source[cursors[first + 2]++] : 0;
              values[nextValue++] = (row3 & bit) !== 0 ? source[cursors[first + 3]++] : 0;
            }
          }
        }
        indices[countIndex] = nextIndex - countIndex - 1;
      }
    }
  }
}

/** The bits of each row in 32-bit words, `stride` words a row; a view where the bytes allow it. */
function bitmaskWords(
  rows: number,
  depth: number,
  bitmask: Uint8Array,
): { words: Int32Array; stride: number } {
  const rowBytes = Math.ceil(depth / 8);
  if (bitmask.length !== rows * rowBytes) {
    throw new InputError(
      `Cannot pack a bitmask of ${bitmask.length} bytes: ${rows} × ${depth} wants ${rows * rowBytes}`,
    );
  }
  const stride = Math.ceil(depth / 32);
  if (rowBytes === 4 * stride && bitmask.byteOffset % 4 === 0) {
    return { words: new Int32Array(bitmask.buffer, bitmask.byteOffset, rows * stride), stride };
  }
  const padded = new Uint8Array(rows * stride * 4);
  for (let row = 0; row < rows; row++) {
    padded.set(bitmask.subarray(row * rowBytes, (row + 1) * rowBytes), row * stride * 4);
  }
  return { words: new Int32Array(padded.buffer), stride };
}

/** Set bits of a word (Warren, "Hacker's Delight", 5-1). */
function countBits(word: number): number {
  const pairs = word - (word >>> 1 & 0x55555555);
  const nibbles = (pairs & 0x33333333) + (pairs >>> 2 & 0x33333333);
  return Math.imul(nibbles + (nibbles >>> 4) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/**
 * Calls `visit` for every stored weight, in stored order: zeros inside a stored 4x1 block too, rows beyond the
 * matrix not.
 */
export function forEachStored(
  bytes: Uint8Array,
  structure: PackedStructure,
  visit: (row: number, input: number, weight: number) => void,
): void {
  const { rows, depth, panelInputs, blockRows, valuesOffset, indicesOffset, byteLength } = structure;
  if (bytes.length !== byteLength) {
    throw new RangeError(`Cannot read packed weights of ${bytes.length} bytes: wanted ${byteLength}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, byteLength);
  const height = groupRows(structure.pattern);
  let value = valuesOffset;
  let index = indicesOffset;
  for (let first = 0; first < rows; first += blockRows) {
    for (let panel = 0; panel < depth; panel += panelInputs) {
      for (let row = first; row < Math.min(rows, first + blockRows); row += height) {
        const count = view.getUint16(index, true);
        for (let entry = 1; entry <= count; entry++) {
          const input = panel + view.getUint16(index + 2 * entry, true);
          for (let r = 0; r < height; r++, value += 4) {
            if (row + r < rows) visit(row + r, input, view.getFloat32(value, true));
          }
        }
        index += 2 + 2 * count;
      }
    }
  }
}

/** The dense row-major matrix. */
export function unpackSparse(bytes: Uint8Array, structure: PackedStructure): Float32Array<ArrayBuffer> {
  const { rows, depth } = structure;
  const weight = new Float32Array(rows * depth);
  forEachStored(bytes, structure, (row, input, value) => weight[row * depth + input] = value);
  return weight;
}
