/**
 * The gradient of a vector of columns: the last pass over its classes.
 * @module
 */
import type { Integer } from "../../assemblers/vector_machine.ts";
import { emitExp } from "../emit_math.ts";
import type { ColumnVector, FrameSlot, Matrix } from "./column_vector.ts";

/** gradLogits from the exponentials, once more computed where a teacher's are wanted too. */
export function emitGradient(at: ColumnVector): void {
  const { vm, args } = at;
  const { labelled, smoothed, weighted, taught } = at.variant;
  const [gradient, x, label, zero] = [vm.vector(), vm.vector(), at.label(), at.constant(0)];
  const [row, one] = [at.constant(0), at.constant(1)];
  const [factor, labelMass] = [vm.vector(), vm.vector()];
  if (labelled) {
    at.load(factor, "taskFactor");
    at.load(labelMass, "labelMass");
  }
  const weights = weighted && smoothed ? args.pointer("classWeights") : undefined;
  const emitTask = (source: Integer) => {
    vm.load(gradient, source, 0);
    if (taught) {
      at.load(x, "highest");
      vm.subtract(gradient, gradient, x);
      emitExp(vm, gradient, gradient);
    }
    vm.multiply(gradient, gradient, factor);
    // labelMass in the label's row, 0 in the others: row < label or label < row.
    vm.selectLess(x, row, label, zero, labelMass);
    vm.selectLess(x, label, row, zero, x);
    vm.subtract(gradient, gradient, x);
    if (!smoothed) return;
    at.load(x, "classMass");
    if (weights) {
      const weight = vm.vector();
      vm.broadcast(weight, weights, 0);
      vm.multiply(x, x, weight);
      vm.addInteger(weights, weights, 4);
      vm.free(weight);
    }
    vm.subtract(gradient, gradient, x);
  };
  /** x = softmax(logits / T) · h · T / n */
  const emitSoftmax = (source: Integer, slots: readonly [FrameSlot, FrameSlot]) => {
    const [inverse, highest] = [args.float("inverseTemperature"), vm.vector()];
    at.load(highest, slots[0]);
    at.loadScaled(x, source, highest, inverse);
    vm.free(inverse, highest);
    emitExp(vm, x, x);
    at.multiplyBy(x, slots[1]);
  };
  const matrices: Matrix[] = taught ? ["gradLogits", "logits", "teacherLogits"] : ["gradLogits"];
  at.forEachClass(matrices, ([target, source, teacherSource]) => {
    if (labelled) emitTask(source ?? target);
    else vm.constantF32(gradient, 0);
    if (taught) {
      emitSoftmax(source, ["highest", "studentFactor"]);
      vm.add(gradient, gradient, x);
      emitSoftmax(teacherSource, ["teacherHighest", "teacherFactor"]);
      vm.subtract(gradient, gradient, x);
    }
    vm.selectLess(gradient, label, zero, zero, gradient);
    vm.store(target, 0, gradient);
    vm.add(row, row, one);
  });
  if (weights) vm.free(weights);
  vm.free(gradient, x, label, zero, row, one, factor, labelMass);
}
