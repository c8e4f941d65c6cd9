/**
 * The sparse matmul kernel: a call computes one output block for a range of tiles.
 *
 * Loops, outermost first: tiles of columns, strips of a tile that fit the registers, input panels, kinds of chunks,
 * chunks. A chunk adds to its rows of y: they are loaded, its entries added, and stored again. While the panels pass
 * over a block its results stay in the L1 cache. Bias and addend go before and the activation after: in passes of their
 * own where rows have several chunks, with the first and the last chunk where groups have one a panel.
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
import { type ChunkKind, chunkKinds, countedTurn, groupRows, type SparsePattern } from "./pack.ts";

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
  /** Vectors of a strip, the columns held in registers; divides a tile. */
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
  /** Rows of the block. */
  rows: "integer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the sparse matmul kernel. */
export type SparseMatmulArguments = typeof sparseMatmulArguments;

/**
 * How far ahead of its use a value is asked for; indices half as far. The hardware follows the two streams too slowly
 * when they come from beyond the L2 cache, and not over the end of a page. Rates over those without, BERT-base shapes at
 * 90 % zeros, AVX-512, weights from the L3 cache: with 128 columns 1.01 to 1.04 for single weights, 1.05 to 1.1 for 4x1
 * blocks; with 16 columns 1.2 to 1.4 and 1.4 to 1.6. Weights from the L2 cache lose at most 1 %. For 4x1 blocks 512 bytes
 * gave half of that, 8192 a little less; for single weights 1024 to 8192 were alike.
 */
const bytesAhead = { "unstructured": 1024, "4x1": 2048 } as const;

/** The constants for a machine: as many vectors of a tile as its registers hold, at most eight. */
export function sparseMatmulConstants(
  shape: Omit<SparseMatmulConstants, "vectors">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): SparseMatmulConstants {
  const height = groupRows(shape.pattern);
  const vectorsPerTile = shape.tile / machine.lanes;
  const registersFor = (vectors: number) =>
    height * vectors + Math.max(
      height === 1 ? 1 : vectors + 1,
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
 * Cost:     2 · stored weights · columns operations; a call reads its weights once per strip, and all of x.
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
  const { rows, depth, panelInputs, tile, vectors } = constants;
  const rowBytes = tile * 4;
  const stripBytes = vectors * vm.lanes * 4;
  const panels = Math.ceil(depth / panelInputs);
  const kinds = chunkKinds(constants);
  const isCounted = kinds[0].entries === "counted";
  const x = args.pointer("x");
  const y = args.pointer("y");
  const tiles = args.integer("tiles");

  const emitStrip = () => {
    if (!isCounted) {
      emitEachRow(vm, args, constants, y, (accumulators, ends) => {
        emitStart(vm, accumulators, ends);
        emitStore(vm, accumulators, ends);
      });
    }
    const values = args.pointer("values");
    const indices = args.pointer("indices");
    const left = vm.integer();
    vm.setInteger(left, panels);
    vm.repeat(left, () => {
      for (const kind of kinds) {
        const chunks = vm.integer();
        vm.loadU16(chunks, indices, 0);
        vm.addInteger(indices, indices, 2);
        vm.repeat(chunks, () => emitChunk(vm, args, constants, kind, { x, y, values, indices, left }));
        vm.free(chunks);
      }
      vm.addInteger(x, x, panelInputs * rowBytes);
    });
    vm.subtractInteger(x, x, panels * panelInputs * rowBytes);
    vm.free(values, indices, left);
    if (!isCounted && constants.activation !== "none") {
      emitEachRow(vm, args, constants, y, (accumulators, ends) => {
        emitResume(vm, accumulators, ends);
        emitActivation(vm, accumulators, ends);
        emitStore(vm, accumulators, ends);
      });
    }
  };

  vm.repeat(tiles, () => {
    if (stripBytes === rowBytes) {
      emitStrip();
    } else {
      const strips = vm.integer();
      vm.setInteger(strips, rowBytes / stripBytes);
      vm.repeat(strips, () => {
        emitStrip();
        vm.addInteger(x, x, stripBytes);
        vm.addInteger(y, y, stripBytes);
      });
      vm.free(strips);
      vm.subtractInteger(x, x, rowBytes);
      vm.subtractInteger(y, y, rowBytes);
    }
    vm.addInteger(x, x, depth * rowBytes);
    vm.addInteger(y, y, rows * rowBytes);
  });
  vm.free(x, y, tiles);
}

/** Runs `body` on each row of the output block at y. */
function emitEachRow(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  constants: SparseMatmulConstants,
  blockOfY: Integer,
  body: (accumulators: Vector[][], ends: BlockEnds) => void,
): void {
  const { tile, vectors, activation } = constants;
  const rowBytes = tile * 4;
  const y = vm.integer();
  vm.moveInteger(y, blockOfY);
  const addend = constants.addend ? addendAt(vm, args, y) : undefined;
  const bias = constants.bias ? args.pointer("bias") : undefined;
  const count = args.integer("rows");
  vm.repeat(count, () => {
    const accumulators = takeAccumulators(vm, { rows: 1, vectors });
    body(accumulators, { y, rowStride: rowBytes, bias, addend, activation });
    vm.free(...accumulators.flat());
    vm.addInteger(y, y, rowBytes);
    if (addend) vm.addInteger(addend, addend, rowBytes);
    if (bias) vm.addInteger(bias, bias, 4);
  });
  vm.free(count, y, ...(addend ? [addend] : []), ...(bias ? [bias] : []));
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

/** Where the walk over the panels of an output block is. */
interface ChunkPlace {
  /** First input of the panel. */
  readonly x: Integer;
  /** First row of the block. */
  readonly y: Integer;
  /** The chunk's first value. */
  readonly values: Integer;
  /** The chunk's first index. */
  readonly indices: Integer;
  /** Panels left, this one included. */
  readonly left: Integer;
}

/** One chunk over a strip; moves `values` and `indices` on. */
function emitChunk(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  constants: SparseMatmulConstants,
  { rows, entries }: ChunkKind,
  place: ChunkPlace,
): void {
  const { x, values, indices } = place;
  const rowBytes = constants.tile * 4;
  const y = indexedAddress(vm, indices, 0, place.y, rowBytes);
  const accumulators = takeAccumulators(vm, { rows, vectors: constants.vectors });
  const valueBytes = 4 * groupRows(constants.pattern);
  const emitEntry = () => {
    // Both pointers move on at every entry, for V8: see `emitProducts`.
    const input = indexedAddress(vm, indices, 0, x, rowBytes);
    emitProduct(vm, accumulators, values, input);
    vm.free(input);
    vm.addInteger(values, values, valueBytes);
    vm.addInteger(indices, indices, 2);
  };
  if (entries === "counted") {
    emitOnlyChunk(vm, args, constants, accumulators, y, place, () => {
      vm.addInteger(indices, indices, 2);
      for (const count of [countedTurn, 1]) {
        const turns = vm.integer();
        vm.loadU16(turns, indices, 0);
        vm.addInteger(indices, indices, 2);
        vm.repeat(turns, () => {
          for (let entry = 0; entry < count; entry++) emitEntry();
          if (count === countedTurn) prefetchWeights(vm, values, indices, "4x1");
        });
        vm.free(turns);
      }
    });
  } else {
    emitResume(vm, accumulators, { y, rowStride: rowBytes });
    prefetchWeights(vm, values, indices, "unstructured");
    vm.addInteger(indices, indices, 2);
    for (let entry = 0; entry < entries; entry++) emitEntry();
  }
  emitStore(vm, accumulators, { y, rowStride: rowBytes });
  vm.free(y, ...accumulators.flat());
}

/** Asks for the weights that come after those in use. */
function prefetchWeights(vm: VectorMachine, values: Integer, indices: Integer, pattern: SparsePattern): void {
  vm.prefetch(values, bytesAhead[pattern]);
  vm.prefetch(indices, bytesAhead[pattern] / 2);
}

/** The beginning and the end of a chunk that is its group's only one in a panel. */
function emitOnlyChunk(
  vm: VectorMachine,
  args: ArgumentReader<SparseMatmulArguments>,
  constants: SparseMatmulConstants,
  accumulators: readonly (readonly Vector[])[],
  y: Integer,
  { indices, left }: ChunkPlace,
  emitEntries: () => void,
): void {
  const { depth, panelInputs, tile, activation } = constants;
  const panels = Math.ceil(depth / panelInputs);
  const rowStride = tile * 4;
  const whenLeft = (panelsLeft: number, then: () => void, otherwise?: () => void) => {
    if (panels === 1) then();
    else vm.when(left, "equal", panelsLeft, then, otherwise);
  };
  const addend = () => constants.addend ? addendAt(vm, args, y) : undefined;
  const release = ({ bias, addend }: BlockEnds) =>
    vm.free(...(bias ? [bias] : []), ...(addend ? [addend] : []));
  whenLeft(panels, () => {
    const bias = constants.bias ? biasAt(vm, args, indices) : undefined;
    const ends = { y, rowStride, bias, addend: addend(), activation };
    emitStart(vm, accumulators, ends);
    release(ends);
  }, () => emitResume(vm, accumulators, { y, rowStride }));
  emitEntries();
  if (activation === "none") return;
  whenLeft(1, () => {
    const ends = { y, rowStride, bias: undefined, addend: addend(), activation };
    emitActivation(vm, accumulators, ends);
    release(ends);
  });
}

/** The address of the bias of a chunk's first row. */
function biasAt(vm: VectorMachine, args: ArgumentReader<SparseMatmulArguments>, indices: Integer): Integer {
  const bias = args.pointer("bias");
  const offset = vm.integer();
  vm.loadU16(offset, indices, 0);
  vm.shiftLeftInteger(offset, offset, 2);
  vm.addInteger(bias, bias, offset);
  vm.free(offset);
  return bias;
}

/** base + (the index at indices + offset) · rowBytes, in a fresh register. */
function indexedAddress(
  vm: VectorMachine,
  indices: Integer,
  offset: number,
  base: Integer,
  rowBytes: number,
): Integer {
  const address = vm.integer();
  vm.loadU16(address, indices, offset);
  vm.shiftLeftInteger(address, address, Math.log2(rowBytes));
  vm.addInteger(address, address, base);
  return address;
}

/** accumulators[r][v] += weight[r] · x[v] for one entry. */
function emitProduct(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  values: Integer,
  input: Integer,
): void {
  const vectorBytes = vm.lanes * 4;
  const operand = vm.vector();
  if (accumulators.length === 1) {
    // Each vector of x is used once and needs no register of its own.
    vm.broadcast(operand, values, 0);
    accumulators[0].forEach((accumulator, v) => vm.fmaLoad(accumulator, operand, input, v * vectorBytes));
  } else if (accumulators[0].length === 1) {
    // Each weight is used once.
    vm.load(operand, input, 0);
    accumulators.forEach(([accumulator], r) => vm.fmaBroadcast(accumulator, operand, values, r * 4));
  } else {
    const columns = accumulators[0].map(() => vm.vector());
    columns.forEach((vector, v) => vm.load(vector, input, v * vectorBytes));
    accumulators.forEach((row, r) => {
      vm.broadcast(operand, values, r * 4);
      row.forEach((accumulator, v) => vm.fma(accumulator, operand, columns[v]));
    });
    vm.free(...columns);
  }
  vm.free(operand);
}
