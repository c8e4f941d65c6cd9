/**
 * Sparse weights in the order the kernel walks them, so that it reads each array from front to back.
 *
 * The matrix [rows, depth] is cut into output blocks of `blockRows` rows, each into input panels of `panelInputs`
 * inputs: a panel of x and the results of a block fit the L1 cache together. In a panel of a block, a *row group*,
 * one row (`unstructured`) or four (`4x1`), has *entries*: inputs, each with the weight of every row of the group, in
 * the order of the inputs. A 4x1 entry is stored when any of its four weights is; rows missing from the last group are
 * zeros that no kernel stores results for.
 *
 * Single entries are cut into *chunks* of 16 and one of those left, so that code for a chunk has no loop over entries:
 * after pruning every row has another number of them, and the end of each such loop would be a mispredicted branch,
 * which costs about as much as ten entries. Chunks of one size lie together, the first of each row before the second of
 * any, so that neighbours do not wait for each other's sums.
 * A 4x1 entry is four times the work, and passing over y costs more: there each group has one chunk in each panel, even
 * if it has no entries, and the chunk is `counted`.
 *
 * The bytes hold two arrays, little-endian:
 *
 * - values f32 [storedBlocks · group rows]: the weights of each entry;
 * - indices u16: for each panel of each block the number of chunks of each kind (`chunkKinds`), each number followed by
 *   its chunks: the first row, counted from the start of the block, then the inputs, counted from that of the panel.
 *   In a counted chunk the number of fours of entries comes before them, that of single ones before these.
 *
 * Zeros of either sign are left out of a dense matrix; what a `sparse-bitmask` file stores is kept whatever it is.
 * @module
 */
import { countBits, type RowWords, rowWords } from "../../core/bits.ts";
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
  /** Byte offset of the indices of each output block; the values begin at 0. */
  readonly indexOffsets: readonly number[];
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
  /** Rows of an output block, a multiple of 4; `defaultBlockRows` unless told. */
  readonly blockRows?: number;
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

/** Panels of equal size, at most 768 inputs: x comes from the L2 cache then. Which are best depends on the machine. */
export function defaultPanelInputs(depth: number): number {
  return Math.ceil(depth / Math.ceil(depth / 768));
}

/** About sixteen blocks, so that workers can share a matrix; 32 rows at least, since a block reads all of x again. */
export function defaultBlockRows(rows: number): number {
  return Math.max(32, Math.ceil(rows / 64) * 4);
}

/** Entries that counted chunks count by, down to the last few, for loops of fewer turns. On V8 that gave 35 %. */
export const countedTurn = 4;

/**
 * Most entries of a chunk of a single row. A row with more in a panel has several. Code for chunks of 1 to 24 was no
 * faster, and with 16, 8, 4, 2 and 1 alone, which passes over y more often, the product was 10 % slower.
 */
const largestChunk = 16;

/** A kind of chunk. */
export interface ChunkKind {
  /** Rows of results it adds to. */
  readonly rows: number;
  /** Entries it has, or that it says itself how many. */
  readonly entries: number | "counted";
}

/** The kinds of chunks in the order they are stored. */
export function chunkKinds({ pattern, rows }: Pick<PackedStructure, "pattern" | "rows">): ChunkKind[] {
  if (pattern === "unstructured") {
    return Array.from({ length: largestChunk }, (_, i) => ({ rows: 1, entries: largestChunk - i }));
  }
  const height = groupRows(pattern);
  // When the last group lacks rows, it is of a kind of its own.
  return [height, rows % height].filter((groupHeight) => groupHeight > 0)
    .map((groupHeight) => ({ rows: groupHeight, entries: "counted" }));
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
  { pattern, panelInputs = defaultPanelInputs(depth), blockRows = defaultBlockRows(rows) }: PackOptions,
): PackedStructure {
  if (!(rows > 0 && depth > 0)) {
    throw new InputError(`Cannot pack ${rows} × ${depth} weights: wanted at least one`);
  }
  if (!Number.isInteger(panelInputs) || panelInputs < 1 || panelInputs > 65535) {
    throw new InputError(`Cannot pack panels of ${panelInputs} inputs: wanted 1 to 65535`);
  }
  if (!(blockRows > 0 && blockRows % 4 === 0)) {
    throw new InputError(`Cannot pack blocks of ${blockRows} rows: wanted a multiple of 4`);
  }
  if (blockRows * Math.ceil(panelInputs / largestChunk) > 65535) {
    throw new InputError(
      `Cannot pack blocks of ${blockRows} rows in panels of ${panelInputs} inputs: ` +
        "their chunks must be countable in 16 bits",
    );
  }
  checkBitmask(bitmask, rows, depth);
  const rowBits = rowWords(bitmask, rows, depth);
  const height = groupRows(pattern);
  const kinds = chunkKinds({ pattern, rows }).length;
  const panels = Math.ceil(depth / panelInputs);
  let nnz = 0;
  let storedBlocks = 0;
  let indices = 0;
  const blockEntries: number[] = [];
  const blockIndices: number[] = [];
  for (let row = 0; row < rows; row += height) {
    if (row % blockRows === 0) {
      blockEntries.push(storedBlocks);
      blockIndices.push(indices);
      indices += panels * kinds;
    }
    const inGroup = Math.min(height, rows - row);
    for (let panel = 0; panel < depth; panel += panelInputs) {
      const panelEnd = Math.min(depth, panel + panelInputs);
      const entries = countEntries(rowBits, row, inGroup, panel, panelEnd);
      indices += entries + (pattern === "unstructured" ? Math.ceil(entries / largestChunk) : 3);
      storedBlocks += entries;
    }
    if (height > 1) {
      for (let r = 0; r < inGroup; r++) nnz += countEntries(rowBits, row + r, 1, 0, depth);
    }
  }
  blockEntries.push(storedBlocks);
  const indicesOffset = storedBlocks * height * 4;
  return {
    pattern,
    rows,
    depth,
    nnz: height > 1 ? nnz : storedBlocks,
    storedBlocks,
    panelInputs,
    blockRows,
    blockEntries,
    indexOffsets: blockIndices.map((index) => indicesOffset + index * 2),
    byteLength: indicesOffset + indices * 2,
  };
}

/** Inputs in [begin, end) that any of the `count` rows has a bit for. */
function countEntries(
  { words, stride }: RowWords,
  row: number,
  count: number,
  begin: number,
  end: number,
): number {
  let entries = 0;
  for (let word = begin >> 5; 32 * word < end; word++) {
    let any = 0;
    for (let r = 0; r < count; r++) any |= words[(row + r) * stride + word];
    entries += countBits(any & panelMask(word, begin, end));
  }
  return entries;
}

/**
 * Packs into `target`, which may lie in shared memory; it begins at a multiple of 4 bytes and is
 * `structure.byteLength` long. `structure` comes from `structureOfBitmask` for the same bits. Throws InputError when
 * there are not as many values as bits.
 */
export function writePacked(structure: PackedStructure, entries: SparseEntries, target: Uint8Array): void {
  const { pattern, rows, depth, nnz, storedBlocks, byteLength, indexOffsets: [indicesOffset] } = structure;
  if (entries.values.length !== nnz) {
    throw new InputError(`Cannot pack ${entries.values.length} values: the bitmask has ${nnz} bits`);
  }
  if (target.length !== byteLength) {
    throw new RangeError(`Cannot pack into ${target.length} bytes: wanted ${byteLength}`);
  }
  checkBitmask(entries.bitmask, rows, depth);
  const { buffer, byteOffset } = target;
  const writer: PackWriter = {
    ...rowWords(entries.bitmask, rows, depth),
    structure,
    // Values are moved as bits: faster than as numbers, and a NaN keeps its payload.
    source: new Int32Array(entries.values.buffer, entries.values.byteOffset, nnz),
    values: new Int32Array(buffer, byteOffset, storedBlocks * groupRows(pattern)),
    indices: new Uint16Array(buffer, byteOffset + indicesOffset, (byteLength - indicesOffset) / 2),
  };
  if (pattern === "4x1") writeGroups(writer);
  else writeRows(writer);
}

function checkBitmask(bitmask: Uint8Array, rows: number, depth: number): void {
  const wanted = rows * Math.ceil(depth / 8);
  if (bitmask.length !== wanted) {
    throw new InputError(
      `Cannot pack a bitmask of ${bitmask.length} bytes: ${rows} × ${depth} wants ${wanted}`,
    );
  }
}

/** What the two functions below read and write. */
interface PackWriter extends RowWords {
  readonly structure: PackedStructure;
  readonly source: Int32Array;
  readonly values: Int32Array;
  readonly indices: Uint16Array;
}

/** Where the values of each row begin. */
function rowStarts(rows: number, { words, stride }: RowWords): Int32Array {
  const starts = new Int32Array(rows);
  let next = 0;
  for (let row = 0; row < rows; row++) {
    starts[row] = next;
    for (let word = row * stride; word < (row + 1) * stride; word++) next += countBits(words[word]);
  }
  return starts;
}

/** The bits of a word that belong to inputs [begin, end). */
function panelMask(word: number, begin: number, end: number): number {
  const low = begin > 32 * word ? -1 << (begin & 31) : -1;
  return end < 32 * (word + 1) ? low & ~(-1 << (end & 31)) : low;
}

function writeRows(writer: PackWriter): void {
  const { structure: { rows, depth, panelInputs, blockRows }, words, stride, source, values, indices } =
    writer;
  const cursors = rowStarts(rows, writer);
  // The entries of the rows of a block in a panel: all inputs, and for each row those not yet in a chunk.
  const inputs = new Uint16Array(blockRows * Math.min(depth, panelInputs));
  const begins = new Int32Array(blockRows);
  const lefts = new Int32Array(blockRows);
  let nextValue = 0;
  let nextIndex = 0;
  for (let block = 0; block < rows; block += blockRows) {
    const height = Math.min(blockRows, rows - block);
    for (let panel = 0; panel < depth; panel += panelInputs) {
      const panelEnd = Math.min(depth, panel + panelInputs);
      let nextInput = 0;
      for (let row = 0; row < height; row++) {
        begins[row] = nextInput;
        for (let word = panel >> 5; 32 * word < panelEnd; word++) {
          const offset = 32 * word - panel + 31;
          let bits = words[(block + row) * stride + word] & panelMask(word, panel, panelEnd);
          for (; bits !== 0; bits &= bits - 1) inputs[nextInput++] = offset - Math.clz32(bits & -bits);
        }
        lefts[row] = nextInput - begins[row];
      }
      for (let size = largestChunk; size > 0; size--) {
        const countIndex = nextIndex++;
        let chunks = 0;
        for (let before = -1; before < chunks;) {
          before = chunks;
          for (let row = 0; row < height; row++) {
            if (lefts[row] < size) continue;
            chunks++;
            indices[nextIndex++] = row;
            const begin = begins[row];
            const cursor = cursors[block + row];
            for (let i = 0; i < size; i++) indices[nextIndex++] = inputs[begin + i];
            for (let i = 0; i < size; i++) values[nextValue++] = source[cursor + i];
            begins[row] += size;
            cursors[block + row] += size;
            lefts[row] -= size;
          }
        }
        indices[countIndex] = chunks;
      }
    }
  }
}

function writeGroups(writer: PackWriter): void {
  const { structure: { rows, depth, panelInputs, blockRows }, words, stride, source, values, indices } =
    writer;
  // Rows missing from the last group have no bits, so that their cursors do not matter.
  const cursors = rowStarts(rows, writer);
  let nextValue = 0;
  let nextIndex = 0;
  for (let block = 0; block < rows; block += blockRows) {
    for (let panel = 0; panel < depth; panel += panelInputs) {
      const panelEnd = Math.min(depth, panel + panelInputs);
      const blockEnd = Math.min(rows, block + blockRows);
      const fullEnd = blockEnd - blockEnd % 4;
      indices[nextIndex++] = (fullEnd - block) / 4;
      for (let row = block; row < blockEnd; row += 4) {
        const inGroup = rows - row;
        if (row === fullEnd) indices[nextIndex++] = 1;
        indices[nextIndex++] = row - block;
        let [cursor0, cursor1, cursor2, cursor3] = cursors.subarray(row, row + 4);
        const countIndex = nextIndex++;
        for (let word = panel >> 5; 32 * word < panelEnd; word++) {
          const offset = 32 * word - panel + 31;
          const mask = panelMask(word, panel, panelEnd);
          const at = row * stride + word;
          const row0 = words[at] & mask;
          const row1 = inGroup > 1 ? words[at + stride] & mask : 0;
          const row2 = inGroup > 2 ? words[at + 2 * stride] & mask : 0;
          const row3 = inGroup > 3 ? words[at + 3 * stride] & mask : 0;
          for (let bits = row0 | row1 | row2 | row3; bits !== 0; bits &= bits - 1) {
            const bit = bits & -bits;
            indices[nextIndex++] = offset - Math.clz32(bit);
            values[nextValue++] = (row0 & bit) !== 0 ? source[cursor0++] : 0;
            values[nextValue++] = (row1 & bit) !== 0 ? source[cursor1++] : 0;
            values[nextValue++] = (row2 & bit) !== 0 ? source[cursor2++] : 0;
            values[nextValue++] = (row3 & bit) !== 0 ? source[cursor3++] : 0;
          }
        }
        const count = nextIndex - countIndex - 1;
        const rest = count % countedTurn;
        indices[countIndex] = (count - rest) / countedTurn;
        indices.copyWithin(nextIndex - rest + 1, nextIndex - rest, nextIndex);
        indices[nextIndex++ - rest] = rest;
        cursors[row] = cursor0;
        if (inGroup > 1) cursors[row + 1] = cursor1;
        if (inGroup > 2) cursors[row + 2] = cursor2;
        if (inGroup > 3) cursors[row + 3] = cursor3;
      }
      // A kind there is in the last block only.
      if (rows % 4 > 0 && blockEnd === fullEnd) indices[nextIndex++] = 0;
    }
  }
}

/** Length of the values: a weight for each row of the group of each entry. */
export function valueCount({ pattern, storedBlocks }: PackedStructure): number {
  return storedBlocks * groupRows(pattern);
}

/** Length of the indices in bytes; in packed weights they come after the values. */
export function indexBytes({ byteLength, indexOffsets }: PackedStructure): number {
  return byteLength - indexOffsets[0];
}

/**
 * Calls `visit` for every stored weight, in stored order: zeros inside a stored 4x1 block too, rows beyond the
 * matrix not. `position` is that of its value. The inputs of a row come in ascending order.
 */
export function forEachPosition(
  indices: Uint8Array,
  structure: PackedStructure,
  visit: (row: number, input: number, position: number) => void,
): void {
  const { rows, depth, panelInputs, blockRows } = structure;
  if (indices.length !== indexBytes(structure)) {
    throw new RangeError(`Cannot read ${indices.length} bytes of indices: wanted ${indexBytes(structure)}`);
  }
  const view = new DataView(indices.buffer, indices.byteOffset, indices.length);
  const height = groupRows(structure.pattern);
  const kinds = chunkKinds(structure);
  let position = 0;
  let index = 0;
  const nextIndex = () => {
    index += 2;
    return view.getUint16(index - 2, true);
  };
  for (let first = 0; first < rows; first += blockRows) {
    for (let panel = 0; panel < depth; panel += panelInputs) {
      for (const { entries } of kinds) {
        for (let chunks = nextIndex(); chunks > 0; chunks--) {
          const row = first + nextIndex();
          for (const turn of entries === "counted" ? [countedTurn, 1] : [entries]) {
            for (let left = entries === "counted" ? turn * nextIndex() : turn; left > 0; left--) {
              const input = panel + nextIndex();
              for (let r = 0; r < height; r++, position++) {
                if (row + r < rows) visit(row + r, input, position);
              }
            }
          }
        }
      }
    }
  }
}

/** As `forEachPosition`, with the weights themselves, of packed bytes. */
export function forEachStored(
  bytes: Uint8Array,
  structure: PackedStructure,
  visit: (row: number, input: number, weight: number) => void,
): void {
  const { indexOffsets: [indicesOffset], byteLength } = structure;
  if (bytes.length !== byteLength) {
    throw new RangeError(`Cannot read packed weights of ${bytes.length} bytes: wanted ${byteLength}`);
  }
  const values = new DataView(bytes.buffer, bytes.byteOffset, indicesOffset);
  forEachPosition(bytes.subarray(indicesOffset), structure, (row, input, position) => {
    visit(row, input, values.getFloat32(4 * position, true));
  });
}

/** The dense row-major matrix. */
export function unpackSparse(bytes: Uint8Array, structure: PackedStructure): Float32Array<ArrayBuffer> {
  const { rows, depth } = structure;
  const weight = new Float32Array(rows * depth);
  forEachStored(bytes, structure, (row, input, value) => weight[row * depth + input] = value);
  return weight;
}
