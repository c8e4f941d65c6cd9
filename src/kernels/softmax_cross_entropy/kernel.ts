/**
 * The loss kernel: cross-entropy and its gradient in one go.
 * @module
 */
import type { VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitExp } from "../emit_math.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { emitLog } from "./emit_log.ts";

const lossArguments = {
  logits: "pointer",
  /** i32 [columns], −1 = no label */
  labels: "pointer",
  /** One f32. */
  loss: "pointer",
  gradLogits: "pointer",
  classes: "integer",
  columns: "integer",
} as const;

const kernels = new Map<number, Kernel<typeof lossArguments>>();

/**
 * loss = mean over labelled columns of log Σ exp(logits) − logits[label]; gradLogits = (softmax − onehot) / count.
 *
 * Shapes:   logits, gradLogits tiled [classes, columns]; labels i32 [columns]; loss [1].
 * Layout:   columns in the lanes; three passes over a vector of columns: maximum, exponentials, gradient.
 * Requires: −1 ≤ labels < classes; gradLogits may be the logits.
 * Numerics: f32. The label's logit is found by comparing row numbers, exact below 2²⁴ classes. Columns without a
 *           label are selected away, so that NaN there does no harm.
 * Cost:     about 40 instructions a vector of logits.
 */
export function softmaxCrossEntropyKernel(tile: number): Kernel<typeof lossArguments> {
  let kernel = kernels.get(tile);
  if (!kernel) {
    kernel = defineKernel({
      key: `softmax_cross_entropy_tile${tile}`,
      arguments: lossArguments,
      emit: (vm, args) => emitLoss(vm, args, tile),
    });
    kernels.set(tile, kernel);
  }
  return kernel;
}

function emitLoss(vm: VectorMachine, args: ArgumentReader<typeof lossArguments>, tile: number): void {
  const inverseCount = vm.vector();
  emitInverseCount();
  const total = vm.vector();
  const zero = vm.vector();
  const one = vm.vector();
  vm.constantF32(total, 0);
  vm.constantF32(zero, 0);
  vm.constantF32(one, 1);

  const logits = args.pointer("logits");
  const gradLogits = args.pointer("gradLogits");
  const labels = args.pointer("labels");
  const columns = args.integer("columns");
  const tileStart = vm.integer();
  const inTile = vm.integer();
  const source = vm.integer();
  const target = vm.integer();
  vm.forRange(tileStart, 0, columns, tile, () => {
    vm.forRange(inTile, 0, tile, vm.lanes, () => {
      emitColumns();
      vm.addInteger(labels, labels, vm.lanes * 4);
      vm.addInteger(logits, logits, vm.lanes * 4);
      vm.addInteger(gradLogits, gradLogits, vm.lanes * 4);
    });
    // From the first row's next tile to the first row of the next tile.
    const rest = args.integer("classes");
    vm.subtractInteger(rest, rest, 1);
    vm.multiplyInteger(rest, rest, tile * 4);
    vm.addInteger(logits, logits, rest);
    vm.addInteger(gradLogits, gradLogits, rest);
    vm.free(rest);
  });
  vm.sumLanes(total, total);
  vm.multiply(total, total, inverseCount);
  const loss = args.pointer("loss");
  vm.storeLane0(loss, 0, total);
  vm.free(inverseCount, total, zero, one);
  vm.free(loss, logits, gradLogits, labels, columns, tileStart, inTile, source, target);

  /** 1 / the number of labels, or 1 if there are none: then everything it is multiplied by is 0. */
  function emitInverseCount(): void {
    const address = args.pointer("labels");
    const size = args.integer("columns");
    const position = vm.integer();
    const [label, none, unit] = [vm.vector(), vm.vector(), vm.vector()];
    vm.constantF32(none, 0);
    vm.constantF32(unit, 1);
    vm.constantF32(inverseCount, 0);
    vm.forRange(position, 0, size, vm.lanes, () => {
      vm.load(label, address, 0);
      vm.i32ToF32(label, label);
      vm.selectLess(label, label, none, none, unit);
      vm.add(inverseCount, inverseCount, label);
      vm.addInteger(address, address, vm.lanes * 4);
    });
    vm.sumLanes(inverseCount, inverseCount);
    vm.maximum(inverseCount, inverseCount, unit);
    vm.divide(inverseCount, unit, inverseCount);
    vm.free(address, size, position, label, none, unit);
  }

  /** One vector of columns, whose addresses are in `logits`, `gradLogits` and `labels`. */
  function emitColumns(): void {
    const [x, y, highest, sum, label, labelLogit, row] = Array.from({ length: 7 }, () => vm.vector());
    const forEachClass = (body: () => void) => {
      vm.moveInteger(source, logits);
      vm.moveInteger(target, gradLogits);
      vm.constantF32(row, 0);
      const classes = args.integer("classes");
      vm.repeat(classes, () => {
        body();
        vm.add(row, row, one);
        vm.addInteger(source, source, tile * 4);
        vm.addInteger(target, target, tile * 4);
      });
      vm.free(classes);
    };

    vm.constantF32(highest, -Infinity);
    forEachClass(() => {
      vm.load(x, source, 0);
      vm.maximum(highest, highest, x);
    });

    vm.load(label, labels, 0);
    vm.i32ToF32(label, label);
    vm.constantF32(sum, 0);
    vm.constantF32(labelLogit, 0);
    forEachClass(() => {
      vm.load(x, source, 0);
      vm.subtract(x, x, highest);
      // Rows are numbered upwards, so the last row that is not beyond the label is the label's.
      vm.selectLess(labelLogit, label, row, labelLogit, x);
      emitExp(vm, x, x);
      vm.add(sum, sum, x);
      vm.store(target, 0, x);
    });

    emitLog(vm, x, sum);
    vm.subtract(x, x, labelLogit);
    vm.selectLess(x, label, zero, zero, x);
    vm.add(total, total, x);

    vm.divide(sum, inverseCount, sum);
    forEachClass(() => {
      vm.load(x, target, 0);
      vm.multiply(x, x, sum);
      // inverseCount in the label's row, 0 in the others: row < label or label < row.
      vm.selectLess(y, row, label, zero, inverseCount);
      vm.selectLess(y, label, row, zero, y);
      vm.subtract(x, x, y);
      vm.selectLess(x, label, zero, zero, x);
      vm.store(target, 0, x);
    });
    vm.free(x, y, highest, sum, label, labelLogit, row);
  }
}
