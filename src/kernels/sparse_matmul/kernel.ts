/**
 * The sparse matmul kernel: a call computes one output block for a range of tiles.
 *
 * Loops, outermost first: tiles of columns, input panels, row groups, groups of columns, entries. The results of a row
 * group stay in registers while its entries in a panel are walked, and pass from panel to panel through y.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  type BlockEnds,
  emitActivation,
  emitResume,
  emitStart,
  emitStore,
  geluTemporaries,
  takeAccumulators,
} from "../matmul/block.ts";
import type { Activation } from "../matmul/reference.ts";
import { groupRows, type SparsePattern } from "./pack.ts";

/** What is baked into the code. */
export interface SparseMatmulConstants {
  readonly pattern: SparsePattern;
  /** Features of y in memory, N. */
  readonly rows: number;
  /** Features of x, K. */
  readonly depth: number;
  readonly panelInputs: number;
  /** Columns of a tile, a power of two. */
  readonly tile: number;
  readonly bias: boolean;
  readonly addend: boolean;
  readonly activation: Activation;
  /** Vectors of columns held in registers; divides a tile. */
  readonly vectors: number;
}

const sparseMatmulArguments = {
  /** First tile of x. */
  x: "pointer",
  /** First value of the output block. */
  values: "pointer",
  /** First index of the output block. */
  indices: "pointer",
  /** Bias of the block's first row; unused without one. */
  bias: "pointer",
  /** Addend of the block's first row, first tile; unused without one. */
  addend: "pointer",
  /** First row of the block, first tile of y. */
  y: "pointer",
  /** Full row groups. */
  groups: "integer",
  /** 1 when a group of `rows % group rows` rows follows. */
  tails: "integer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the sparse matmul kernel. */
export type SparseMatmulArguments = typeof sparseMatmulArguments;

/** The constants for a machine: as many vectors of a tile as its registers hold, at most eight. */
export function sparseMatmulConstants(
  shape: Omit<SparseMatmulConstants, "vectors">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): SparseMatmulConstants {
  const height = groupRows(shape.pattern);
  const vectorsPerTile = shape.tile / machine.lanes;
  const registersFor = (vectors: number) =>
    height * vectors + Math.max(
      height === 1 ? 2 : vectors + 1,
      shape.activation === "gelu" ? geluTemporaries : 0,
    );
  let vectors = Math.min(8, vectorsPerTile);
  while (vectorsPerTile % vectors !== 0 || registersFor(vectors) > machine.vectorRegisters) vectors--;
  return { ...shape, vectors };
}

const kernels = new Map<string, Kernel<SparseMatmulArguments>>();

/**
 * y[n, c] = act(bias[n] + Σ weight[n, k] · x[k, c] over stored weights) + addend[n, c] for an output block.
 *
 * Shapes:   x tiled [depth, …], y and addend tiled [rows, …], weights packed by `packSparse`.
 * Requires: y overlaps x and the addend nowhere; the tile is a power of two.
 * Numerics: f32 sums in stored order, inputs ascending, starting from bias (+ addend without an activation), one fma
 *           each. A weight that is not stored is skipped, even where x is NaN or infinite.
 * Cost:     2 · stored weights · columns operations; a call reads its weights once per tile, and all of x.
 */
export function sparseMatmulKernel(constants: SparseMatmulConstants): Kernel<SparseMatmulArguments> {
  const { pattern, rows, depth, panelInputs, tile, bias, addend, activation, vectors } = constants;
  const key = [
    `sparse_matmul_f32_${pattern}_${rows}x${depth}_panel${panelInputs}`,
    ...(bias ? ["bias"] : []),
    ...(activation === "none" ? [] : [activation]),
    ...(addend ? ["addend"] : []),
    `tile${tile}_vectors${vectors}`,
  ].join("_");
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: sparseMatmulArguments,
      emit: (vm, args) => emitSparseMatmul(vm, args, constants),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitSparseMatmul(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  constants: SparseMatmulConstants,
): void {
  const { pattern, rows, depth, panelInputs, tile } = constants;
  const height = groupRows(pattern);
  const rowBytes = tile * 4;
  const lastPanel = (Math.ceil(depth / panelInputs) - 1) * panelInputs;
  const x = args.pointer("x");
  const y = args.pointer("y");
  const tiles = args.integer("tiles");
  vm.repeat(tiles, () => {
    const values = args.pointer("values");
    const indices = args.pointer("indices");
    const panel = vm.integer();
    vm.forRange(panel, 0, depth, panelInputs, () => {
      for (const [name, storedRows] of [["groups", height], ["tails", rows % height]] as const) {
        if (storedRows === 0) continue;
        const groups = args.integer(name);
        vm.repeat(groups, () => {
          emitGroup(vm, args, constants, storedRows, { x, y, values, indices, panel, groups });
          vm.addInteger(y, y, storedRows * rowBytes);
        });
        vm.free(groups);
      }
      rewindRows(vm, args, constants, y);
      vm.addInteger(x, x, panelInputs * rowBytes);
    });
    vm.free(values, indices, panel);
    // The panels have moved x on by at least a whole tile.
    vm.subtractInteger(x, x, (lastPanel + panelInputs - depth) * rowBytes);
    vm.addInteger(y, y, rows * rowBytes);
  });
  vm.free(x, y, tiles);
}

/** Moves y back to the block's first row. */
function rewindRows(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  { pattern, rows, tile }: SparseMatmulConstants,
  y: Integer,
): void {
  const height = groupRows(pattern);
  for (const [name, storedRows] of [["groups", height], ["tails", rows % height]] as const) {
    const bytes = args.integer(name);
    vm.multiplyInteger(bytes, bytes, storedRows * tile * 4);
    vm.subtractInteger(y, y, bytes);
    vm.free(bytes);
  }
}

/** One row group over one panel and a whole tile; moves `values` and `indices` on. */
function emitGroup(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  constants: SparseMatmulConstants,
  storedRows: number,
  at: {
    readonly x: Integer;
    readonly y: Integer;
    readonly values: Integer;
    readonly indices: Integer;
    readonly panel: Integer;
    /** Groups left of this kind, this one included. */
    readonly groups: Integer;
  },
): void {
  const { pattern, depth, panelInputs, tile, activation, vectors } = constants;
  const height = groupRows(pattern);
  const rowBytes = tile * 4;
  const lastPanel = (Math.ceil(depth / panelInputs) - 1) * panelInputs;
  const inPanel = (begin: number, then: () => void, otherwise?: () => void) => {
    if (lastPanel === 0) then();
    else vm.when(at.panel, "equal", begin, then, otherwise);
  };

  const column = vm.integer();
  vm.forRange(column, 0, rowBytes, vectors * vm.lanes * 4, () => {
    const accumulators = takeAccumulators(vm, { rows: height, vectors });
    // The rows a padded group lacks are summed like the others, and neither begun from memory nor stored.
    const stored = accumulators.slice(0, storedRows);
    for (const accumulator of accumulators.slice(storedRows).flat()) vm.constantF32(accumulator, 0);
    const result = () => {
      const y = vm.integer();
      vm.addInteger(y, at.y, column);
      return y;
    };
    const ends = (y: Integer, bias?: Integer): BlockEnds => ({
      y,
      rowStride: rowBytes,
      bias,
      addend: constants.addend ? addendAt(vm, args, y) : undefined,
      activation,
    });
    const release = ({ y, bias, addend }: BlockEnds) =>
      vm.free(y, ...(bias ? [bias] : []), ...(addend ? [addend] : []));

    inPanel(0, () => {
      const bias = constants.bias ? biasOfGroup(vm, args, constants, storedRows, at.groups) : undefined;
      const start = ends(result(), bias);
      emitStart(vm, stored, start);
      release(start);
    }, () => {
      const y = result();
      emitResume(vm, stored, { y, rowStride: rowBytes });
      vm.free(y);
    });

    vm.addInteger(at.x, at.x, column);
    emitEntries(vm, constants, accumulators, at);
    vm.subtractInteger(at.x, at.x, column);

    if (activation !== "none") {
      inPanel(lastPanel, () => {
        const end = ends(result());
        emitActivation(vm, stored, end);
        release(end);
      });
    }
    const y = result();
    emitStore(vm, stored, { y, rowStride: rowBytes });
    vm.free(y, ...accumulators.flat());
  });
  vm.free(column);
  emitNextGroup(vm, constants, at);
}

/** The address in the addend that belongs to an address in y: the arguments name the same element of both. */
function addendAt(vm: VectorMachine, args: ArgumentReader<SparseMatmulArguments>, y: Integer): Integer {
  const addend = args.pointer("addend");
  const first = args.pointer("y");
  vm.subtractInteger(addend, addend, first);
  vm.addInteger(addend, addend, y);
  vm.free(first);
  return addend;
}

/** The address of a group's first bias, from the number of groups left. */
function biasOfGroup(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  { pattern }: SparseMatmulConstants,
  storedRows: number,
  groupsLeft: Integer,
): Integer {
  const height = groupRows(pattern);
  const bytes = args.integer("groups");
  if (storedRows === height) vm.subtractInteger(bytes, bytes, groupsLeft);
  vm.multiplyInteger(bytes, bytes, height * 4);
  const bias = args.pointer("bias");
  vm.addInteger(bias, bias, bytes);
  vm.free(bytes);
  return bias;
}

/**
 * Entries per turn of the loop. Four instead of one gave 35 % at 90 % zeros on V8, whose loops check the stack at every
 * turn; eight gave no more.
 */
const unrolledEntries = 4;

/** accumulators[r][v] += weight[r] · x[input, v] for the entries of a group in a panel. */
function emitEntries(
  vm: VectorMachine,
  { pattern, tile }: SparseMatmulConstants,
  accumulators: readonly (readonly Vector[])[],
  at: { readonly x: Integer; readonly values: Integer; readonly indices: Integer },
): void {
  const height = groupRows(pattern);
  const value = vm.integer();
  const index = vm.integer();
  vm.moveInteger(value, at.values);
  vm.moveInteger(index, at.indices);
  const emitEntry = () => {
    const input = vm.integer();
    vm.loadU16(input, index, 2);
    vm.shiftLeftInteger(input, input, Math.log2(tile * 4));
    vm.addInteger(input, input, at.x);
    if (height === 1) emitRowEntry(vm, accumulators[0], value, input);
    else emitBlockEntry(vm, accumulators, value, input);
    vm.free(input);
    vm.addInteger(value, value, height * 4);
    vm.addInteger(index, index, 2);
  };
  const count = vm.integer();
  vm.loadU16(count, at.indices, 0);
  vm.shiftRightInteger(count, count, Math.log2(unrolledEntries));
  vm.repeat(count, () => {
    for (let entry = 0; entry < unrolledEntries; entry++) emitEntry();
  });
  vm.loadU16(count, at.indices, 0);
  vm.andInteger(count, count, unrolledEntries - 1);
  vm.repeat(count, emitEntry);
  vm.free(count, value, index);
}

/** One weight times a row of x; each vector of x is used once and needs no register of its own. */
function emitRowEntry(
  vm: VectorMachine,
  accumulators: readonly Vector[],
  value: Integer,
  input: Integer,
): void {
  const weight = vm.vector();
  const columns = vm.vector();
  vm.broadcast(weight, value, 0);
  accumulators.forEach((accumulator, v) => {
    vm.load(columns, input, v * vm.lanes * 4);
    vm.fma(accumulator, weight, columns);
  });
  vm.free(weight, columns);
}

/** The weights of a block, one after the other, times a row of x that stays in registers. */
function emitBlockEntry(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  value: Integer,
  input: Integer,
): void {
  const weight = vm.vector();
  const columns = accumulators[0].map(() => vm.vector());
  columns.forEach((vector, v) => vm.load(vector, input, v * vm.lanes * 4));
  accumulators.forEach((row, r) => {
    vm.broadcast(weight, value, r * 4);
    row.forEach((accumulator, v) => vm.fma(accumulator, weight, columns[v]));
  });
  vm.free(weight, ...columns);
}

/** Moves `values` and `indices` past a group's entries in a panel. */
function emitNextGroup(
  vm: VectorMachine,
  { pattern }: SparseMatmulConstants,
  { values, indices }: { readonly values: Integer; readonly indices: Integer },
): void {
  const bytes = vm.integer();
  vm.loadU16(bytes, indices, 0);
  vm.shiftLeftInteger(bytes, bytes, 1);
  vm.addInteger(indices, indices, bytes);
  vm.addInteger(indices, indices, 2);
  // An index takes 2 bytes, its weights 4 bytes each.
  vm.multiplyInteger(bytes, bytes, 2 * groupRows(pattern));
  vm.addInteger(values, values, bytes);
  vm.free(bytes);
}
