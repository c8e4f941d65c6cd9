/**
 * Embedding: rows of three tables, added and turned into columns of a tile.
 *
 * The vector machine has no shuffles, so the transposition goes through a vector's worth of private memory: the sum
 * of three row pieces is stored there and copied out element by element. Features are done in blocks whose rows of
 * the tile stay in the first-level cache while every column of the tile is filled in.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";

/** Arguments of `embeddingKernel`. */
export const embeddingArguments = {
  words: "pointer",
  positions: "pointer",
  types: "pointer",
  /** The ids of the share's first column, three lists. */
  wordIds: "pointer",
  positionIds: "pointer",
  typeIds: "pointer",
  /** The result's first feature of the share's first column. */
  result: "pointer",
  /** Private memory: `embeddingScratchBytes`. */
  scratch: "pointer",
  features: "integer",
  /** Columns to fill in, all of one tile. */
  columns: "integer",
} as const;

const lookups = [["words", "wordIds"], ["positions", "positionIds"], ["types", "typeIds"]] as const;

/** Room for the longest vector of any machine. */
const stagingBytes = 64;

/** 64 rows of a tile of 64 columns are 16 KiB: half of a first-level cache. */
const blockFeatures = 64;

/** Private memory of a call: one vector, then a row of zeros that stands for id −1. */
export function embeddingScratchBytes(features: number): number {
  return stagingBytes + 4 * features;
}

const kernels = new Map<number, Kernel<typeof embeddingArguments>>();

/**
 * result[f, c] = words[wordIds[c], f] + positions[positionIds[c], f] + types[typeIds[c], f], in that order.
 *
 * An id of −1 contributes zero. Requires: other ids lie in their table; nobody else can check them in time.
 */
export function embeddingKernel(tile: number): Kernel<typeof embeddingArguments> {
  let kernel = kernels.get(tile);
  if (!kernel) {
    kernel = defineKernel({
      key: `embedding_f32_tile${tile}`,
      arguments: embeddingArguments,
      emit: (vm, args) => emitEmbedding(vm, args, tile),
    });
    kernels.set(tile, kernel);
  }
  return kernel;
}

function emitEmbedding(
  vm: VectorMachine,
  args: ArgumentReader<typeof embeddingArguments>,
  tile: number,
): void {
  emitZeroRow(vm, args);
  const sum = vm.vector();
  const part = vm.vector();
  // Features done before this block, and features in it.
  const begin = vm.integer();
  const count = vm.integer();
  const features = args.integer("features");
  vm.forRange(begin, 0, features, blockFeatures, () => {
    vm.subtractInteger(count, features, begin);
    vm.when(count, "greater", blockFeatures, () => vm.setInteger(count, blockFeatures));
    const column = vm.integer();
    const columns = args.integer("columns");
    vm.forRange(column, 0, columns, 1, () => {
      const pieces = lookups.map(([table, ids]) => emitRowPiece(vm, args, table, ids, column, begin));
      const target = args.pointer("result");
      const offset = vm.integer();
      vm.multiplyInteger(offset, begin, 4 * tile);
      vm.addInteger(target, target, offset);
      vm.shiftLeftInteger(offset, column, 2);
      vm.addInteger(target, target, offset);
      vm.free(offset);
      const staging = args.pointer("scratch");
      const element = vm.integer();
      const addPieces = (load: (piece: Integer) => void) =>
        pieces.forEach((piece, index) => {
          load(piece);
          if (index === 0) vm.move(sum, part);
          else vm.add(sum, sum, part);
        });

      const left = vm.integer();
      vm.shiftRightInteger(left, count, Math.log2(vm.lanes));
      vm.repeat(left, () => {
        addPieces((piece) => vm.load(part, piece, 0));
        vm.store(staging, 0, sum);
        for (let lane = 0; lane < vm.lanes; lane++) {
          vm.loadI32(element, staging, 4 * lane);
          vm.storeI32(target, 4 * tile * lane, element);
        }
        for (const piece of pieces) vm.addInteger(piece, piece, 4 * vm.lanes);
        vm.addInteger(target, target, 4 * tile * vm.lanes);
      });
      vm.andInteger(left, count, vm.lanes - 1);
      vm.repeat(left, () => {
        addPieces((piece) => vm.broadcast(part, piece, 0));
        vm.storeLane0(target, 0, sum);
        for (const piece of pieces) vm.addInteger(piece, piece, 4);
        vm.addInteger(target, target, 4 * tile);
      });
      vm.free(...pieces, target, staging, element, left);
    });
    vm.free(column, columns);
  });
  vm.free(sum, part, begin, count, features);
}

/** Fills the row that id −1 points to. */
function emitZeroRow(vm: VectorMachine, args: ArgumentReader<typeof embeddingArguments>): void {
  const zero = vm.integer();
  const row = args.pointer("scratch");
  const features = args.integer("features");
  vm.setInteger(zero, 0);
  vm.repeat(features, () => {
    vm.storeI32(row, stagingBytes, zero);
    vm.addInteger(row, row, 4);
  });
  vm.free(zero, row, features);
}

/** The address of feature `begin` in the row that a list of ids names for a column, in a new register. */
function emitRowPiece(
  vm: VectorMachine,
  args: ArgumentReader<typeof embeddingArguments>,
  table: "words" | "positions" | "types",
  ids: "wordIds" | "positionIds" | "typeIds",
  column: Integer,
  begin: Integer,
): Integer {
  const piece = args.pointer(table);
  const id = args.pointer(ids);
  const scaled = vm.integer();
  vm.shiftLeftInteger(scaled, column, 2);
  vm.addInteger(id, id, scaled);
  vm.loadI32(id, id, 0);
  vm.free(scaled);
  vm.when(id, "less", 0, () => {
    const scratch = args.pointer("scratch");
    vm.addInteger(piece, scratch, stagingBytes);
    vm.free(scratch);
  }, () => {
    const features = args.integer("features");
    vm.multiplyInteger(id, id, features);
    vm.shiftLeftInteger(id, id, 2);
    vm.addInteger(piece, piece, id);
    vm.free(features);
  });
  vm.shiftLeftInteger(id, begin, 2);
  vm.addInteger(piece, piece, id);
  vm.free(id);
  return piece;
}
