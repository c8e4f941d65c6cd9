/**
 * Sums of outer products of gradients, block by block: what an empirical Fisher matrix is made of.
 *
 * A block and its gradients lie in the L1 cache while all gradients pass over it, so that memory is read and written once
 * for many of them: 2 · size multiply-adds for each gradient and each byte that moves.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { defineKernel, type Kernel } from "../kernel.ts";

/** What a kernel is compiled for. */
export interface FisherShape {
  /** Rows and columns of a block: a multiple of 16, at most `largestFisherBlock`. */
  readonly size: number;
  /** Gradients that there is room for. */
  readonly capacity: number;
  /** Whether the sums begin with these gradients, whatever they held before. */
  readonly begins: boolean;
}

/** Beyond, code would grow for nothing: memory and time grow with the size too. */
export const largestFisherBlock = 128;

/** Block sizes are multiples of it: whole vectors on every machine. */
export const fisherBlockStep = 16;

const fisherArguments = {
  gradients: "pointer",
  fisher: "pointer",
  blocks: "integer",
  count: "integer",
} as const;

/** A kernel of a shape. */
export type FisherKernel = Kernel<typeof fisherArguments>;

const known = new Map<string, FisherKernel>();

/**
 * fisher[b][i][j] += Σ_{k < count} gradients[b][k][i] · gradients[b][k][j] for j ≤ i, with fisher [blocks, size, size]
 * and gradients [blocks, capacity, size]; with `begins` = in place of +=. What lies above the diagonal is undefined: the matrices are symmetric.
 *
 * Numerics: the sums of a call run in f32 in the order of the gradients, and are then added to what was there.
 */
export function fisherKernel({ size, capacity, begins }: FisherShape): FisherKernel {
  if (!(size > 0 && size <= largestFisherBlock && size % fisherBlockStep === 0)) {
    throw new RangeError(
      `Cannot sum Fisher blocks of ${size} × ${size}: wanted a multiple of ${fisherBlockStep}, ` +
        `at most ${largestFisherBlock}`,
    );
  }
  const key = `fisher_${begins ? "begin_" : ""}${size}_of_${capacity}_f32`;
  const kernel = known.get(key) ?? defineKernel({
    key,
    arguments: fisherArguments,
    emit(vm, args) {
      const gradients = args.pointer("gradients");
      const fisher = args.pointer("fisher");
      const blocks = args.integer("blocks");
      const count = args.integer("count");
      vm.repeat(blocks, () => {
        emitBlock(vm, { size, begins }, { gradients, fisher, count });
        vm.addInteger(gradients, gradients, 4 * capacity * size);
        vm.addInteger(fisher, fisher, 4 * size * size);
      });
      vm.free(gradients, fisher, blocks, count);
    },
  });
  known.set(key, kernel);
  return kernel;
}

interface BlockPlace {
  readonly gradients: Integer;
  readonly fisher: Integer;
  readonly count: Integer;
}

/** Registers hold a few rows of three vectors at most, and only those that reach below the diagonal. */
function emitBlock(vm: VectorMachine, shape: Omit<FisherShape, "capacity">, place: BlockPlace): void {
  const rows = vm.vectorRegisters >= 32 ? 8 : 4;
  const widest = 3;
  for (let row = 0; row < shape.size; row += rows) {
    const vectors = Math.ceil((row + rows) / vm.lanes);
    for (let vector = 0; vector < vectors; vector += widest) {
      emitTile(vm, shape, { row, rows, vector, vectors: Math.min(widest, vectors - vector) }, place);
    }
  }
}

interface Tile {
  readonly row: number;
  readonly rows: number;
  readonly vector: number;
  readonly vectors: number;
}

function emitTile(
  vm: VectorMachine,
  { size, begins }: Omit<FisherShape, "capacity">,
  { row, rows, vector, vectors }: Tile,
  { gradients, fisher, count }: BlockPlace,
): void {
  const sums = Array.from({ length: rows }, () => Array.from({ length: vectors }, () => vm.vector()));
  const columns = Array.from({ length: vectors }, () => vm.vector());
  const factor = vm.vector();
  const [pointer, left] = [vm.integer(), vm.integer()];
  const offsetOf = (index: number) => 4 * vm.lanes * (vector + index);
  for (const sum of sums.flat()) vm.constantF32(sum, 0);
  vm.moveInteger(pointer, gradients);
  vm.moveInteger(left, count);
  vm.repeat(left, () => {
    columns.forEach((column, index) => vm.load(column, pointer, offsetOf(index)));
    sums.forEach((sumsOfRow, index) => {
      vm.broadcast(factor, pointer, 4 * (row + index));
      sumsOfRow.forEach((sum, at) => vm.fma(sum, factor, columns[at]));
    });
    vm.addInteger(pointer, pointer, 4 * size);
  });
  sums.forEach((sumsOfRow, index) => {
    sumsOfRow.forEach((sum, at) => {
      const offset = 4 * size * (row + index) + offsetOf(at);
      if (!begins) {
        vm.load(factor, fisher, offset);
        vm.add(sum, sum, factor);
      }
      vm.store(fisher, offset, sum);
    });
  });
  vm.free(factor, pointer, left, ...columns, ...sums.flat());
}
