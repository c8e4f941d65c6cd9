/**
 * The `sparse-bitmask` layout of compressed-tensors (up to 0.14): a pruned matrix as one bit for each weight and the
 * weights that are left. At 90 % zeros it takes 13 % of the dense f32 bytes.
 *
 * Four tensors stand for `<module>.weight`: `.shape` i64 [2], `.compressed` [non-zeros] in row-major order,
 * `.bitmask` u8 [rows, ⌈columns / 8⌉] with the lowest bit first, `.row_offsets` i64 [rows], the index in
 * `.compressed` where each row begins. Since 0.9 the keys begin with the module's name; before, with
 * `<module>.weight`. Both are read, the first is written.
 *
 * Every zero is dropped, −0 too, as `tensor != 0` does in PyTorch; NaN is kept.
 * @module
 */
import { countBits, rowWords } from "../core/bits.ts";
import { InputError } from "../core/errors.ts";
import { showValue } from "../core/json.ts";
import { bytesOf, type SafetensorsDtype, type SafetensorsFile, type TensorEntry } from "./safetensors.ts";

/** A matrix with its zeros left out. */
export interface BitmaskMatrix {
  /** Rows (outputs) and columns (inputs). */
  readonly shape: readonly [rows: number, columns: number];
  /** Bit `column % 8` of byte `row * ⌈columns / 8⌉ + ⌊column / 8⌋` tells whether a value is stored. */
  readonly bitmask: Uint8Array;
  /** The stored values, row after row. */
  readonly values: Float32Array;
}

/** A matrix of a file: its bits have been read and checked, its values have not. */
export interface StoredMatrix extends Omit<BitmaskMatrix, "values"> {
  /** How many values are stored. */
  readonly nonZeros: number;
  /** Reads the values, row after row, into memory of that length. */
  readValues(target: Float32Array): Promise<void>;
}

/** Leaves out the zeros of a row-major matrix. */
export function encodeBitmask(weight: Float32Array, shape: readonly [number, number]): BitmaskMatrix {
  const [rows, columns] = shape;
  if (weight.length !== rows * columns) {
    throw new RangeError(`Cannot encode ${weight.length} weights, wanted ${rows} × ${columns}`);
  }
  const stride = Math.ceil(columns / 8);
  const bitmask = new Uint8Array(rows * stride);
  const values = new Float32Array(countNonZeros(weight));
  let stored = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = weight[row * columns + column];
      if (value === 0) continue;
      bitmask[row * stride + (column >> 3)] |= 1 << (column & 7);
      values[stored++] = value;
    }
  }
  return { shape: [rows, columns], bitmask, values };
}

/** The dense row-major matrix, in memory that exists already if that is given. */
export function decodeBitmask(
  { shape: [rows, columns], bitmask, values }: BitmaskMatrix,
  weight: Float32Array = new Float32Array(rows * columns),
): Float32Array {
  weight.fill(0);
  const stride = Math.ceil(columns / 8);
  let stored = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      if (bitmask[row * stride + (column >> 3)] >> (column & 7) & 1) {
        weight[row * columns + column] = values[stored++];
      }
    }
  }
  return weight;
}

/** How many weights are not zero. */
export function countNonZeros(weight: Float32Array): number {
  let count = 0;
  for (let i = 0; i < weight.length; i++) if (weight[i] !== 0) count++;
  return count;
}

/** Blocks of four rows by one column that hold any value. */
export function countBlocks({ shape: [rows, columns], bitmask }: Omit<BitmaskMatrix, "values">): number {
  const { words, stride } = rowWords(bitmask, rows, columns);
  let blocks = 0;
  for (let row = 0; row < rows; row += 4) {
    const inBlock = Math.min(4, rows - row);
    for (let word = row * stride; word < (row + 1) * stride; word++) {
      let any = words[word];
      for (let other = 1; other < inBlock; other++) any |= words[word + other * stride];
      blocks += countBits(any);
    }
  }
  return blocks;
}

/** Bytes that the four tensors of a matrix take. */
export function bitmaskBytes([rows, columns]: readonly [number, number], nonZeros: number): number {
  return 4 * nonZeros + rows * Math.ceil(columns / 8) + 8 * rows + 16;
}

/** The four tensors that stand for `<module>.weight`. */
export function bitmaskEntries(module: string, matrix: BitmaskMatrix): TensorEntry[] {
  const { shape, bitmask, values } = matrix;
  const [rows, columns] = shape;
  const entry = (
    part: string,
    dtype: SafetensorsDtype,
    shape: readonly number[],
    array: ArrayBufferView,
  ) => ({
    name: `${module}.${part}`,
    dtype,
    shape,
    data: () => bytesOf(array),
  });
  return [
    entry("shape", "I64", [2], BigInt64Array.from(shape, BigInt)),
    entry("row_offsets", "I64", [rows], BigInt64Array.from(rowOffsets(matrix), BigInt)),
    entry("compressed", "F32", [values.length], values),
    entry("bitmask", "U8", [rows, Math.ceil(columns / 8)], bitmask),
  ];
}

/** Where each row begins in `values`. */
export function rowOffsets({ shape: [rows, columns], bitmask }: Omit<BitmaskMatrix, "values">): number[] {
  const { words, stride } = rowWords(bitmask, rows, columns);
  const offsets: number[] = [];
  let stored = 0;
  for (let row = 0; row < rows; row++) {
    offsets.push(stored);
    for (let word = row * stride; word < (row + 1) * stride; word++) stored += countBits(words[word]);
  }
  return offsets;
}

/**
 * Names of the matrices a file holds in this layout, each with the prefix of its four keys:
 * `encoder.layer.0.output.dense.weight` → `encoder.layer.0.output.dense`, or → itself in old files.
 */
export function bitmaskPrefixes(file: SafetensorsFile): Map<string, string> {
  const prefixes = new Map<string, string>();
  for (const name of file.names) {
    if (!name.endsWith(".compressed")) continue;
    const prefix = name.slice(0, -".compressed".length);
    const weight = prefix.endsWith(".weight") ? prefix : `${prefix}.weight`;
    if (prefixes.has(weight)) throw new InputError(`${file.path} holds ${weight} twice, in both key styles`);
    prefixes.set(weight, prefix);
  }
  return prefixes;
}

/** The four keys that begin with a prefix. */
export function bitmaskKeys(prefix: string): string[] {
  return ["shape", "compressed", "bitmask", "row_offsets"].map((part) => `${prefix}.${part}`);
}

/**
 * The shape of a matrix, without reading its weights.
 * @throws InputError when the four tensors are not there or do not fit each other.
 */
export async function readBitmaskShape(
  file: SafetensorsFile,
  prefix: string,
): Promise<readonly [rows: number, columns: number]> {
  const shape = await file.integers(`${prefix}.shape`);
  const [rows, columns] = shape;
  if (shape.length !== 2 || rows < 0 || columns < 0) {
    throw new InputError(`${file.path}: ${prefix}.shape is ${showValue(shape)}, wanted [rows, columns]`);
  }
  wantShape(file, `${prefix}.bitmask`, [rows, Math.ceil(columns / 8)]);
  wantShape(file, `${prefix}.row_offsets`, [rows]);
  if (file.info(`${prefix}.bitmask`).dtype !== "U8") {
    throw new InputError(
      `${file.path}: ${prefix}.bitmask has the type ${file.info(`${prefix}.bitmask`).dtype}, wanted U8`,
    );
  }
  return [rows, columns];
}

/**
 * Reads a matrix without making it dense.
 * @throws InputError naming the tensor when shape, bits, row offsets and values do not agree.
 */
export async function readBitmask(file: SafetensorsFile, prefix: string): Promise<BitmaskMatrix> {
  const { shape, bitmask, nonZeros, readValues } = await openBitmask(file, prefix);
  const values = new Float32Array(nonZeros);
  await readValues(values);
  return { shape, bitmask, values };
}

/**
 * Reads which weights of a matrix are stored.
 * @throws InputError naming the tensor when shape, bits, row offsets and number of values do not agree.
 */
export async function openBitmask(file: SafetensorsFile, prefix: string): Promise<StoredMatrix> {
  const shape = await readBitmaskShape(file, prefix);
  const bitmask = await file.bytes(`${prefix}.bitmask`);
  const offsets = await file.integers(`${prefix}.row_offsets`);
  checkPadding({ shape, bitmask }, file.path, prefix);
  const counted = rowOffsets({ shape, bitmask });
  const row = counted.findIndex((offset, row) => offset !== offsets[row]);
  if (row >= 0) {
    throw new InputError(
      `${file.path}: ${prefix}.row_offsets[${row}] is ${offsets[row]}, wanted ${
        counted[row]
      } as the bitmask has it`,
    );
  }
  const lastRow = bitmask.subarray(bitmask.length - Math.ceil(shape[1] / 8));
  const nonZeros = lastRow.reduce((sum, byte) => sum + countBits(byte), counted.at(-1) ?? 0);
  wantShape(file, `${prefix}.compressed`, [nonZeros]);
  const readValues = (target: Float32Array) => file.readFloat32(`${prefix}.compressed`, target);
  return { shape, bitmask, nonZeros, readValues };
}

/** The bits after the last column must be zero: a set one would shift every value behind it. */
function checkPadding(
  { shape: [rows, columns], bitmask }: Omit<BitmaskMatrix, "values">,
  path: string,
  prefix: string,
): void {
  const used = columns % 8;
  if (used === 0) return;
  const stride = Math.ceil(columns / 8);
  for (let row = 0; row < rows; row++) {
    if (bitmask[row * stride + stride - 1] >> used !== 0) {
      throw new InputError(`${path}: ${prefix}.bitmask sets bits beyond column ${columns} in row ${row}`);
    }
  }
}

function wantShape(file: SafetensorsFile, name: string, wanted: readonly number[]): void {
  const { shape } = file.info(name);
  if (shape.length !== wanted.length || shape.some((length, axis) => length !== wanted[axis])) {
    throw new InputError(`${file.path}: ${name} has the shape [${shape}], wanted [${wanted}]`);
  }
}
