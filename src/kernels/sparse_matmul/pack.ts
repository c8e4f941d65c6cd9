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
 * Nothing here depends on the tile or the machine. Zeros of either sign are left out; NaN is kept.
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
  return pack(
    rows,
    depth,
    options,
    (row, target) => target.set(weight.subarray(row * depth, (row + 1) * depth)),
  );
}

/** Packs a matrix whose zeros are left out; no more than one output block of it is ever dense. */
export function packSparseFromEntries(
  { shape: [rows, depth], bitmask, values }: SparseEntries,
  options: PackOptions,
): PackedWeight {
  const stride = Math.ceil(depth / 8);
  if (bitmask.length !== rows * stride) {
    throw new InputError(
      `Cannot pack a bitmask of ${bitmask.length} bytes: ${rows} × ${depth} wants ${rows * stride}`,
    );
  }
  const rowOffsets = new Uint32Array(rows + 1);
  for (let row = 0; row < rows; row++) {
    let count = 0;
    for (let byte = row * stride; byte < (row + 1) * stride; byte++) {
      for (let bits = bitmask[byte]; bits !== 0; bits &= bits - 1) count++;
    }
    rowOffsets[row + 1] = rowOffsets[row] + count;
  }
  if (rowOffsets[rows] !== values.length) {
    throw new InputError(`Cannot pack ${values.length} values: the bitmask has ${rowOffsets[rows]} bits`);
  }
  return pack(rows, depth, options, (row, target) => {
    target.fill(0);
    let next = rowOffsets[row];
    for (let column = 0; column < depth; column++) {
      if (bitmask[row * stride + (column >> 3)] >> (column & 7) & 1) target[column] = values[next++];
    }
  });
}

/** Writes one row of the matrix, zeros included. */
type RowReader = (row: number, target: Float32Array) => void;

function pack(rows: number, depth: number, options: PackOptions, readRow: RowReader): PackedWeight {
  const { pattern, panelInputs = defaultPanelInputs(depth) } = options;
  if (!(rows > 0 && depth > 0)) {
    throw new InputError(`Cannot pack ${rows} × ${depth} weights: wanted at least one`);
  }
  if (!Number.isInteger(panelInputs) || panelInputs < 1 || panelInputs > 65535) {
    throw new InputError(`Cannot pack panels of ${panelInputs} inputs: wanted 1 to 65535`);
  }
  const height = groupRows(pattern);
  const blockRows = blockRowsFor(rows);
  const groups = Math.ceil(rows / height);
  const panels = Math.ceil(depth / panelInputs);

  // Output blocks are read twice, to count and to write: packing is done once a load, memory is held all along.
  const block = new Float32Array(blockRows * depth);
  const readBlock = (first: number) => {
    for (let row = 0; row < blockRows; row++) {
      const target = block.subarray(row * depth, (row + 1) * depth);
      if (first + row < rows) readRow(first + row, target);
      else target.fill(0);
    }
  };
  const isStored = (row: number, input: number) => {
    for (let r = 0; r < height; r++) if (block[(row + r) * depth + input] !== 0) return true;
    return false;
  };

  let nnz = 0;
  let storedBlocks = 0;
  const blockEntries: number[] = [];
  for (let first = 0; first < rows; first += blockRows) {
    blockEntries.push(storedBlocks);
    readBlock(first);
    for (let i = 0; i < block.length; i++) if (block[i] !== 0) nnz++;
    for (let row = 0; row < blockRows; row += height) {
      for (let input = 0; input < depth; input++) if (isStored(row, input)) storedBlocks++;
    }
  }
  blockEntries.push(storedBlocks);

  const valuesOffset = 0;
  const indicesOffset = storedBlocks * height * 4;
  const byteLength = indicesOffset + (groups * panels + storedBlocks) * 2;
  const bytes = new Uint8Array(byteLength);
  const values = new Float32Array(bytes.buffer, valuesOffset, storedBlocks * height);
  const indices = new Uint16Array(bytes.buffer, indicesOffset, groups * panels + storedBlocks);
  let nextValue = 0;
  let nextIndex = 0;
  for (let first = 0; first < rows; first += blockRows) {
    readBlock(first);
    for (let panel = 0; panel < depth; panel += panelInputs) {
      const panelEnd = Math.min(depth, panel + panelInputs);
      for (let row = 0; row < blockRows && first + row < rows; row += height) {
        const countIndex = nextIndex++;
        for (let input = panel; input < panelEnd; input++) {
          if (!isStored(row, input)) continue;
          indices[nextIndex++] = input - panel;
          for (let r = 0; r < height; r++) values[nextValue++] = block[(row + r) * depth + input];
        }
        indices[countIndex] = nextIndex - countIndex - 1;
      }
    }
  }
  const structure = {
    pattern,
    rows,
    depth,
    nnz,
    storedBlocks,
    panelInputs,
    blockRows,
    blockEntries,
    valuesOffset,
    indicesOffset,
    byteLength,
  };
  return { bytes, structure };
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
