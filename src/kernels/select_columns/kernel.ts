/**
 * The kernels that gather columns and scatter them back: one element at a time, since columns lie across the lanes.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";

const columnArguments = {
  /** The long matrix, tiled [features, any number of columns], at the first row to do. */
  whole: "pointer",
  /** The matrix of the selected columns, tiled [features, selected], at the first row to do. */
  selection: "pointer",
  /** i32 [selected]: for each column of `selection` the one of `whole`, or −1. */
  columns: "pointer",
  selected: "integer",
  /** Columns of `whole`. */
  wholeColumns: "integer",
  /** Rows to do. */
  rows: "integer",
  /** Bytes of a tile of either matrix, all its rows together. */
  tileBytes: "integer",
} as const;

/** A kernel over the rows of two matrices and a list of columns. */
export type ColumnKernel = Kernel<typeof columnArguments>;

type Arguments = ArgumentReader<typeof columnArguments>;

const gathers = new Map<number, ColumnKernel>();
const scatters = new Map<number, ColumnKernel>();

/** selection[·, s] = whole[·, columns[s]], 0 where columns[s] is −1. */
export function selectColumnsKernel(tile: number): ColumnKernel {
  let kernel = gathers.get(tile);
  if (!kernel) {
    kernel = defineKernel({
      key: `select_columns_tile${tile}`,
      arguments: columnArguments,
      emit: (vm, args) => emitGather(vm, args, tile),
    });
    gathers.set(tile, kernel);
  }
  return kernel;
}

/** whole[·, c] = Σ selection[·, s] over the s, in order, with columns[s] = c. */
export function selectColumnsGradientKernel(tile: number): ColumnKernel {
  let kernel = scatters.get(tile);
  if (!kernel) {
    kernel = defineKernel({
      key: `select_columns_gradient_tile${tile}`,
      arguments: columnArguments,
      emit: (vm, args) => emitScatter(vm, args, tile),
    });
    scatters.set(tile, kernel);
  }
  return kernel;
}

function emitGather(vm: VectorMachine, args: Arguments, tile: number): void {
  const value = vm.vector();
  forEachSelected(vm, args, tile, (selection, column) => {
    vm.when(column, "less", 0, () => {
      const rows = args.integer("rows");
      vm.constantF32(value, 0);
      vm.repeat(rows, () => {
        vm.storeLane0(selection, 0, value);
        vm.addInteger(selection, selection, tile * 4);
      });
      vm.free(rows);
    }, () => {
      const whole = wholeAddress(vm, args, tile, column);
      const rows = args.integer("rows");
      vm.repeat(rows, () => {
        vm.broadcast(value, whole, 0);
        vm.storeLane0(selection, 0, value);
        vm.addInteger(whole, whole, tile * 4);
        vm.addInteger(selection, selection, tile * 4);
      });
      vm.free(whole, rows);
    });
  });
  vm.free(value);
}

function emitScatter(vm: VectorMachine, args: Arguments, tile: number): void {
  const value = vm.vector();
  clearRows(vm, args, tile, value);
  const sum = vm.vector();
  forEachSelected(vm, args, tile, (selection, column) => {
    vm.when(column, "greaterOrEqual", 0, () => {
      const whole = wholeAddress(vm, args, tile, column);
      const rows = args.integer("rows");
      vm.repeat(rows, () => {
        vm.broadcast(value, selection, 0);
        vm.broadcast(sum, whole, 0);
        vm.add(sum, sum, value);
        vm.storeLane0(whole, 0, sum);
        vm.addInteger(whole, whole, tile * 4);
        vm.addInteger(selection, selection, tile * 4);
      });
      vm.free(rows, whole);
    });
  });
  vm.free(value, sum);
}

/** Zeros in the rows to do of `whole`: consecutive in each tile. */
function clearRows(vm: VectorMachine, args: Arguments, tile: number, zero: Vector): void {
  vm.constantF32(zero, 0);
  const columns = args.integer("wholeColumns");
  const whole = args.pointer("whole");
  const tileBytes = args.integer("tileBytes");
  const [tileStart, address, vectors] = [vm.integer(), vm.integer(), vm.integer()];
  vm.forRange(tileStart, 0, columns, tile, () => {
    const rows = args.integer("rows");
    vm.multiplyInteger(vectors, rows, tile / vm.lanes);
    vm.free(rows);
    vm.moveInteger(address, whole);
    vm.repeat(vectors, () => {
      vm.store(address, 0, zero);
      vm.addInteger(address, address, vm.lanes * 4);
    });
    vm.addInteger(whole, whole, tileBytes);
  });
  vm.free(columns, whole, tileBytes, tileStart, address, vectors);
}

/** Runs `body` for each entry of the list with the address of its column in `selection`, which it may change. */
function forEachSelected(
  vm: VectorMachine,
  args: Arguments,
  tile: number,
  body: (selection: Integer, column: Integer) => void,
): void {
  const columns = args.pointer("columns");
  const selected = args.integer("selected");
  const [tileStart, inTile, tileOffset] = [vm.integer(), vm.integer(), vm.integer()];
  vm.setInteger(tileOffset, 0);
  vm.forRange(tileStart, 0, selected, tile, () => {
    vm.forRange(inTile, 0, tile, 1, () => {
      const selection = args.pointer("selection");
      vm.addInteger(selection, selection, tileOffset);
      const column = vm.integer();
      vm.shiftLeftInteger(column, inTile, 2);
      vm.addInteger(selection, selection, column);
      vm.loadI32(column, columns, 0);
      body(selection, column);
      vm.addInteger(columns, columns, 4);
      vm.free(selection, column);
    });
    const tileBytes = args.integer("tileBytes");
    vm.addInteger(tileOffset, tileOffset, tileBytes);
    vm.free(tileBytes);
  });
  vm.free(columns, selected, tileStart, inTile, tileOffset);
}

/** Address of a column in the first row to do of `whole`; destroys `column`. */
function wholeAddress(vm: VectorMachine, args: Arguments, tile: number, column: Integer): Integer {
  const address = args.pointer("whole");
  const tileBytes = args.integer("tileBytes");
  // The machine has no division; this loop is short beside the copy of a column.
  const passed = vm.integer();
  const limit = vm.integer();
  vm.addInteger(limit, column, 1);
  vm.forRange(passed, tile, limit, tile, () => {
    vm.addInteger(address, address, tileBytes);
    vm.subtractInteger(column, column, tile);
  });
  vm.shiftLeftInteger(column, column, 2);
  vm.addInteger(address, address, column);
  vm.free(tileBytes, passed, limit);
  return address;
}
