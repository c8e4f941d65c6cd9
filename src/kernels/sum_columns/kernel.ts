/**
 * The sum over columns: limited by reading the matrix once.
 * @module
 */
import type { Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";

/** Rows summed at once: enough accumulators to hide the latency of an addition. */
export const sumColumnsBlockRows = 8;

const sumColumnsArguments = {
  /** First row of the first tile. */
  gradY: "pointer",
  /** First sum. */
  sums: "pointer",
  /** Full blocks of rows. */
  blocks: "integer",
  /** Rows after them. */
  singles: "integer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the kernel. */
export type SumColumnsArguments = typeof sumColumnsArguments;

const kernels = new Map<string, Kernel<SumColumnsArguments>>();

/**
 * sums[n] = Σ_c gradY[n, c] for a range of rows of a tiled matrix with `rows` features.
 *
 * Numerics: one accumulator per lane over all columns in order, then the fixed tree of `sumLanes`; the same for
 *           every row, whichever block it is in.
 */
export function sumColumnsKernel(
  { rows, tile }: { readonly rows: number; readonly tile: number },
): Kernel<SumColumnsArguments> {
  const key = `sum_columns_f32_${rows}_tile${tile}`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: sumColumnsArguments,
      emit: (vm, args) => emitSumColumns(vm, args, rows, tile),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitSumColumns(
  vm: VectorMachine,
  args: ArgumentReader<SumColumnsArguments>,
  rows: number,
  tile: number,
): void {
  const rowBytes = tile * 4;
  const first = args.pointer("gradY");
  const sums = args.pointer("sums");
  for (const [name, blockRows] of [["blocks", sumColumnsBlockRows], ["singles", 1]] as const) {
    const count = args.integer(name);
    vm.repeat(count, () => {
      const accumulators: Vector[] = Array.from({ length: blockRows }, () => vm.vector());
      for (const accumulator of accumulators) vm.constantF32(accumulator, 0);
      const position = vm.integer();
      vm.moveInteger(position, first);
      const tiles = args.integer("tiles");
      const value = vm.vector();
      vm.repeat(tiles, () => {
        for (let column = 0; column < rowBytes; column += vm.lanes * 4) {
          accumulators.forEach((accumulator, r) => {
            vm.load(value, position, r * rowBytes + column);
            vm.add(accumulator, accumulator, value);
          });
        }
        vm.addInteger(position, position, rows * rowBytes);
      });
      vm.free(position, tiles, value);
      accumulators.forEach((accumulator, r) => {
        vm.sumLanes(accumulator, accumulator);
        vm.storeLane0(sums, r * 4, accumulator);
      });
      vm.free(...accumulators);
      vm.addInteger(first, first, blockRows * rowBytes);
      vm.addInteger(sums, sums, blockRows * 4);
    });
    vm.free(count);
  }
  vm.free(first, sums);
}
