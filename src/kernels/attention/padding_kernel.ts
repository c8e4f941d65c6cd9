/**
 * Zeros in the columns that belong to no sequence.
 * @module
 */
import { defineKernel, type Kernel } from "../kernel.ts";

const paddingArguments = {
  /** First row to clear, in the first tile. */
  matrix: "pointer",
  /** i32: the first column to clear. */
  end: "pointer",
  columns: "integer",
  /** Columns in a tile; all columns for a row-major matrix. */
  tile: "integer",
  /** Bytes of a tile, all its rows together. */
  tileBytes: "integer",
  /** Rows to clear. */
  rows: "integer",
} as const;

/** matrix[row, column] = 0 for all columns from `end` on. `tile` is a multiple of the lanes. */
export const zeroPaddingKernel: Kernel<typeof paddingArguments> = defineKernel({
  key: "zero_padding_f32",
  arguments: paddingArguments,
  emit(vm, args) {
    const zero = vm.vector();
    vm.constantF32(zero, 0);
    const columns = args.integer("columns");
    const tile = args.integer("tile");
    const matrix = args.pointer("matrix");
    const tileStart = vm.integer();
    vm.forRange(tileStart, 0, columns, tile, () => {
      const from = args.pointer("end");
      vm.loadI32(from, from, 0);
      vm.subtractInteger(from, from, tileStart);
      vm.when(from, "less", 0, () => vm.setInteger(from, 0));
      vm.when(from, "less", tile, () => {
        // First up to the border of a vector, then whole vectors: nobody else's column is touched.
        const count = vm.integer();
        vm.setInteger(count, 0);
        vm.subtractInteger(count, count, from);
        vm.andInteger(count, count, vm.lanes - 1);
        const aligned = vm.integer();
        vm.addInteger(aligned, from, count);
        vm.subtractInteger(aligned, tile, aligned);
        vm.shiftRightInteger(aligned, aligned, Math.log2(vm.lanes));
        const row = vm.integer();
        vm.shiftLeftInteger(row, from, 2);
        vm.addInteger(row, row, matrix);
        const rows = args.integer("rows");
        const position = vm.integer();
        const left = vm.integer();
        vm.repeat(rows, () => {
          vm.storeFirst(row, 0, zero, count);
          vm.shiftLeftInteger(position, count, 2);
          vm.addInteger(position, position, row);
          vm.moveInteger(left, aligned);
          vm.repeat(left, () => {
            vm.store(position, 0, zero);
            vm.addInteger(position, position, vm.lanes * 4);
          });
          vm.shiftLeftInteger(left, tile, 2);
          vm.addInteger(row, row, left);
        });
        vm.free(count, aligned, row, rows, position, left);
      });
      vm.free(from);
      const tileBytes = args.integer("tileBytes");
      vm.addInteger(matrix, matrix, tileBytes);
      vm.free(tileBytes);
    });
    vm.free(zero, columns, tile, matrix, tileStart);
  },
});
