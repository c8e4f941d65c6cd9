/**
 * The gradient of an embedding table: columns of a tiled gradient added to the rows their ids name.
 *
 * A call owns a range of features of every row. It clears them, then walks the columns in order, so each element is
 * one sum in token order whoever computes it, and no two workers touch one element.
 * @module
 */
import type { VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";

/** Arguments of `embeddingGradientKernel`. */
export const embeddingGradientArguments = {
  /** The share's first feature of the first column. */
  gradX: "pointer",
  ids: "pointer",
  /** The share's first feature of row 0. */
  gradTable: "pointer",
  /** Features of a whole row, and of this share. */
  features: "integer",
  featureCount: "integer",
  rows: "integer",
  tiles: "integer",
} as const;

/** Rows of a tile whose columns are walked together: they stay in the first-level cache. */
const blockFeatures = 64;

const kernels = new Map<number, Kernel<typeof embeddingGradientArguments>>();

/** gradTable[r, f] = Σ over columns c with ids[c] = r, in order, of gradX[f, c]; ids of −1 are skipped. */
export function embeddingGradientKernel(tile: number): Kernel<typeof embeddingGradientArguments> {
  let kernel = kernels.get(tile);
  if (!kernel) {
    kernel = defineKernel({
      key: `embedding_gradient_f32_tile${tile}`,
      arguments: embeddingGradientArguments,
      emit(vm, args) {
        emitClear(vm, args);
        emitScatter(vm, args, tile);
      },
    });
    kernels.set(tile, kernel);
  }
  return kernel;
}

/** Zero in the share's features of every row. */
function emitClear(vm: VectorMachine, args: ArgumentReader<typeof embeddingGradientArguments>): void {
  const zero = vm.vector();
  vm.constantF32(zero, 0);
  const row = args.pointer("gradTable");
  const rowBytes = args.integer("features");
  vm.shiftLeftInteger(rowBytes, rowBytes, 2);
  const rows = args.integer("rows");
  const featureCount = args.integer("featureCount");
  vm.repeat(rows, () => {
    const element = vm.integer();
    const left = vm.integer();
    vm.moveInteger(element, row);
    vm.shiftRightInteger(left, featureCount, Math.log2(vm.lanes));
    vm.repeat(left, () => {
      vm.store(element, 0, zero);
      vm.addInteger(element, element, 4 * vm.lanes);
    });
    vm.andInteger(left, featureCount, vm.lanes - 1);
    vm.storeFirst(element, 0, zero, left);
    vm.addInteger(row, row, rowBytes);
    vm.free(element, left);
  });
  vm.free(zero, row, rowBytes, rows, featureCount);
}

function emitScatter(
  vm: VectorMachine,
  args: ArgumentReader<typeof embeddingGradientArguments>,
  tile: number,
): void {
  const sum = vm.vector();
  const addend = vm.vector();
  // Features of the share done before this block.
  const begin = vm.integer();
  const featureCount = args.integer("featureCount");
  vm.forRange(begin, 0, featureCount, blockFeatures, () => {
    const count = vm.integer();
    vm.subtractInteger(count, featureCount, begin);
    vm.when(count, "greater", blockFeatures, () => vm.setInteger(count, blockFeatures));

    const ids = args.pointer("ids");
    const source = args.pointer("gradX");
    const tiles = args.integer("tiles");
    const columns = vm.integer();
    const offset = vm.integer();
    vm.multiplyInteger(offset, begin, 4 * tile);
    vm.addInteger(source, source, offset);
    vm.free(offset);
    vm.repeat(tiles, () => {
      vm.setInteger(columns, tile);
      vm.repeat(columns, () => {
        const row = vm.integer();
        vm.loadI32(row, ids, 0);
        vm.when(row, "greaterOrEqual", 0, () => {
          const other = args.integer("features");
          vm.multiplyInteger(row, row, other);
          vm.addInteger(row, row, begin);
          vm.shiftLeftInteger(row, row, 2);
          vm.free(other);
          const table = args.pointer("gradTable");
          vm.addInteger(row, row, table);
          vm.free(table);

          const gradient = vm.integer();
          const left = vm.integer();
          vm.moveInteger(gradient, source);
          vm.moveInteger(left, count);
          vm.repeat(left, () => {
            vm.broadcast(sum, row, 0);
            vm.broadcast(addend, gradient, 0);
            vm.add(sum, sum, addend);
            vm.storeLane0(row, 0, sum);
            vm.addInteger(row, row, 4);
            vm.addInteger(gradient, gradient, 4 * tile);
          });
          vm.free(gradient, left);
        });
        vm.free(row);
        vm.addInteger(ids, ids, 4);
        vm.addInteger(source, source, 4);
      });
      // From the end of a row to its start in the next tile: past the tile's other features.
      const otherRows = args.integer("features");
      vm.subtractInteger(otherRows, otherRows, 1);
      vm.multiplyInteger(otherRows, otherRows, 4 * tile);
      vm.addInteger(source, source, otherRows);
      vm.free(otherRows);
    });
    vm.free(ids, source, tiles, columns, count);
  });
  vm.free(sum, addend, begin, featureCount);
}
