/**
 * Dropout over rows of a tiled matrix.
 * @module
 */
import { defineKernel, type Kernel } from "../kernel.ts";
import { emitDropoutKey, emitRandomBits, emitUniform24 } from "./emit_random.ts";

const dropoutArguments = {
  x: "pointer",
  y: "pointer",
  seed: "pointer",
  streamWord: "integer",
  features: "integer",
  /** Rows to do: a row is one feature of one tile. */
  rows: "integer",
  /** Rows left in the first row's tile, itself included. */
  rowsInTile: "integer",
  /** Random index of the first element: column · features + feature. */
  firstIndex: "integer",
  threshold: "float",
  scale: "float",
} as const;

const kernels = new Map<number, Kernel<typeof dropoutArguments>>();

/**
 * y = kept(x) · scale, else 0, for consecutive rows of tiles `tile` columns wide.
 *
 * An element is kept when the upper 24 of its random bits are not below `threshold`; the bits belong to the index
 * column · features + feature, so they do not depend on the tile or on who computes them.
 */
export function dropoutKernel(tile: number): Kernel<typeof dropoutArguments> {
  let kernel = kernels.get(tile);
  if (!kernel) kernels.set(tile, kernel = makeKernel(tile));
  return kernel;
}

function makeKernel(tile: number): Kernel<typeof dropoutArguments> {
  return defineKernel({
    key: `dropout_f32_tile${tile}`,
    arguments: dropoutArguments,
    emit(vm, args) {
      const seed = args.pointer("seed");
      const word = args.integer("streamWord");
      const key = emitDropoutKey(vm, seed, word);
      vm.free(seed, word);
      const threshold = args.float("threshold");
      const scale = args.float("scale");
      const zero = vm.vector();
      vm.constantF32(zero, 0);

      // Indices of a row's first vector, and what leads to the next vector and to the next tile.
      const features = args.integer("features");
      const rowIndex = vm.vector();
      const nextVector = vm.vector();
      const nextTile = vm.vector();
      const step = vm.integer();
      vm.broadcastInteger(nextTile, features);
      vm.laneIndex(rowIndex);
      vm.multiplyI32(rowIndex, rowIndex, nextTile);
      vm.multiplyInteger(step, features, vm.lanes);
      vm.broadcastInteger(nextVector, step);
      vm.multiplyInteger(step, features, tile - 1);
      vm.broadcastInteger(nextTile, step);
      const first = args.integer("firstIndex");
      const index = vm.vector();
      vm.broadcastInteger(index, first);
      vm.addI32(rowIndex, rowIndex, index);
      vm.free(step, first);

      const x = args.pointer("x");
      const y = args.pointer("y");
      const rows = args.integer("rows");
      const rowsInTile = args.integer("rowsInTile");
      const one = vm.vector();
      const value = vm.vector();
      const bits = vm.vector();
      const vectors = vm.integer();
      vm.constantI32(one, 1);
      vm.repeat(rows, () => {
        vm.move(index, rowIndex);
        vm.setInteger(vectors, tile / vm.lanes);
        vm.repeat(vectors, () => {
          emitRandomBits(vm, bits, index, key);
          emitUniform24(vm, bits, bits);
          vm.load(value, x, 0);
          vm.multiply(value, value, scale);
          vm.selectLess(value, bits, threshold, zero, value);
          vm.store(y, 0, value);
          vm.addI32(index, index, nextVector);
          vm.addInteger(x, x, 4 * vm.lanes);
          vm.addInteger(y, y, 4 * vm.lanes);
        });
        vm.addI32(rowIndex, rowIndex, one);
        vm.subtractInteger(rowsInTile, rowsInTile, 1);
        vm.when(rowsInTile, "equal", 0, () => {
          vm.addI32(rowIndex, rowIndex, nextTile);
          vm.moveInteger(rowsInTile, features);
        });
      });
      vm.free(x, y, rows, rowsInTile, features, vectors);
      vm.free(
        one,
        value,
        bits,
        index,
        rowIndex,
        nextVector,
        nextTile,
        zero,
        threshold,
        scale,
        key.low,
        key.high,
      );
    },
  });
}
