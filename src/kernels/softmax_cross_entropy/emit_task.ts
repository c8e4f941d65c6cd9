/**
 * The cross-entropy of a vector of columns, and what its gradient is made of.
 * @module
 */
import type { Vector } from "../../assemblers/vector_machine.ts";
import { emitExp } from "../emit_math.ts";
import type { ColumnVector } from "./column_vector.ts";
import { emitLog } from "./emit_log.ts";

/** Cross-entropy of each column, and what its gradient is made of. Without a teacher exponentials wait in gradLogits. */
export function emitTask(at: ColumnVector): void {
  const { vm, args } = at;
  const { smoothed, weighted, taught } = at.variant;
  const [x, highest, label, row, one] = [
    vm.vector(),
    vm.vector(),
    at.label(),
    at.constant(0),
    at.constant(1),
  ];
  const [sum, labelLogit] = [at.constant(0), at.constant(0)];
  // Σ of w_c · logit_c, the label's weight, and Σ w_c.
  const logitSum = smoothed ? at.constant(0) : undefined;
  const labelWeight = weighted ? at.constant(0) : undefined;
  const weightSum = weighted && smoothed ? at.constant(0) : undefined;
  at.load(highest, "highest");
  const weights = weighted ? args.pointer("classWeights") : undefined;
  at.forEachClass(taught ? ["logits"] : ["logits", "gradLogits"], ([source, target]) => {
    vm.load(x, source, 0);
    vm.subtract(x, x, highest);
    // Rows are numbered upwards, so the last row that is not beyond the label is the label's.
    vm.selectLess(labelLogit, label, row, labelLogit, x);
    if (weights) {
      const weight = vm.vector();
      vm.broadcast(weight, weights, 0);
      vm.addInteger(weights, weights, 4);
      vm.selectLess(labelWeight!, label, row, labelWeight!, weight);
      if (weightSum) {
        vm.add(weightSum, weightSum, weight);
        // A class of no weight may be ruled out.
        const zero = at.constant(0);
        const product = vm.vector();
        vm.multiply(product, weight, x);
        vm.selectLess(product, zero, weight, product, zero);
        vm.add(logitSum!, logitSum!, product);
        vm.free(zero, product);
      }
      vm.free(weight);
    } else if (logitSum) vm.add(logitSum, logitSum, x);
    emitExp(vm, x, x);
    vm.add(sum, sum, x);
    if (target) vm.store(target, 0, x);
    vm.add(row, row, one);
  });
  if (weights) vm.free(weights);
  vm.free(highest, row, one);
  finishTask(at, { x, label, sum, labelLogit, logitSum, labelWeight, weightSum });
}

/** What the pass over the classes adds up. */
interface TaskSums {
  readonly x: Vector;
  readonly label: Vector;
  readonly sum: Vector;
  readonly labelLogit: Vector;
  readonly logitSum?: Vector;
  readonly labelWeight?: Vector;
  readonly weightSum?: Vector;
}

/** The loss, and the factors that the gradient pass multiplies exponentials and targets with. */
function finishTask(
  at: ColumnVector,
  { x, label, sum, labelLogit, logitSum, labelWeight, weightSum }: TaskSums,
): void {
  const { vm, args } = at;
  const { smoothed, weighted, taught } = at.variant;
  const mass = vm.vector();
  at.load(mass, "inverseCount");
  if (weighted || taught) at.multiplyBy(mass, "taskScale");
  // The label's share of the target, and that of a class of weight 1.
  const [labelMass, classMass] = [vm.vector(), vm.vector()];
  vm.move(labelMass, mass);
  if (labelWeight) vm.multiply(labelMass, labelMass, labelWeight);
  if (smoothed) {
    const [labelShare, classShare] = [args.float("labelShare"), args.float("classShare")];
    vm.multiply(labelMass, labelMass, labelShare);
    vm.multiply(classMass, mass, classShare);
    at.store("classMass", classMass);
    vm.free(labelShare, classShare);
  }
  at.store("labelMass", labelMass);
  // The whole target's: what the probabilities are multiplied with.
  if (weighted) vm.move(mass, labelMass);
  if (weightSum) vm.fma(mass, weightSum, classMass);
  vm.divide(mass, mass, sum);
  at.store("taskFactor", mass);

  emitLog(vm, x, sum);
  vm.subtract(labelLogit, x, labelLogit);
  if (labelWeight) vm.multiply(labelLogit, labelLogit, labelWeight);
  if (logitSum) {
    // (1 − ε) · label's + ε/classes · Σ of w_c (log sum − logit_c)
    const [labelShare, classShare] = [args.float("labelShare"), args.float("classShare")];
    const weights = weightSum ?? classCount(at);
    vm.multiply(x, x, weights);
    vm.subtract(x, x, logitSum);
    vm.multiply(x, x, classShare);
    vm.multiply(labelLogit, labelLogit, labelShare);
    vm.add(labelLogit, labelLogit, x);
    vm.free(labelShare, classShare);
    if (!weightSum) vm.free(weights);
  }
  if (weighted || taught) at.multiplyBy(labelLogit, "taskScale");
  at.storeLoss(labelLogit, label);
  vm.free(x, label, sum, labelLogit, mass, labelMass, classMass);
  for (const register of [logitSum, labelWeight, weightSum]) if (register) vm.free(register);
}

function classCount(at: ColumnVector): Vector {
  const [count, classes] = [at.vm.vector(), at.args.integer("classes")];
  at.vm.broadcastInteger(count, classes);
  at.vm.i32ToF32(count, count);
  at.vm.free(classes);
  return count;
}
