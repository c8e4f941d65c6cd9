/**
 * The loss kernel: cross-entropy, a teacher's loss, and the gradient of both in one go.
 *
 * A vector of columns passes over its classes a few times: maxima, sums of exponentials, gradient. What one pass finds
 * for the next waits in the worker's scratch memory, the frame: with a teacher it would not fit in registers.
 * @module
 */
import type { Vector } from "../../assemblers/vector_machine.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import { ColumnVector, lossArguments, type Matrix } from "./column_vector.ts";
import { emitGradient } from "./emit_gradient.ts";
import { emitTask } from "./emit_task.ts";
import { emitTeacher } from "./emit_teacher.ts";
import { emitInverseCount } from "./labelled_mean.ts";
import { type LossVariant, variantKey } from "./variant.ts";

const kernels = new Map<string, Kernel<typeof lossArguments>>();

/**
 * Column losses and gradient of the loss that `softmaxCrossEntropyReference` defines, for the columns of some tiles.
 *
 * Shapes:   logits, teacherLogits, gradLogits tiled [classes, columns] and labels, columnLosses [columns], all from the
 *           call's first column on; allLabels i32 [allColumns]; loss of the batch = mean of the column losses.
 * Layout:   columns in the lanes.
 * Requires: −1 ≤ labels < classes; gradLogits may be the logits, not the teacher's.
 * Numerics: f32. The label's logit is found by comparing row numbers, exact below 2²⁴ classes. Columns without a
 *           label are selected away, so that NaN there does no harm.
 * Cost:     about 40 instructions a vector of logits; with a teacher 150.
 */
export function softmaxCrossEntropyKernel(variant: LossVariant): Kernel<typeof lossArguments> {
  const key = variantKey(variant);
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: lossArguments,
      emit: (vm, args) => emitLoss(new ColumnVector(vm, args, variant)),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitLoss(at: ColumnVector): void {
  const { labelled, taught } = at.variant;
  emitScales(at);
  at.forEach(() => {
    emitHighest(at, "logits", "highest");
    if (taught) emitHighest(at, "teacherLogits", "teacherHighest");
    if (labelled) emitTask(at);
    if (taught) emitTeacher(at);
    emitGradient(at);
  });
  at.free();
}

/** 1/n, and (1 − h) · n / Σ weights of the labels. */
function emitScales(at: ColumnVector): void {
  const { vm, args } = at;
  const { labelled, weighted, taught } = at.variant;
  const scale = vm.vector();
  emitInverseCount(vm, args, scale);
  at.store("inverseCount", scale);
  if (labelled && (weighted || taught)) {
    const taskShare = args.float("taskShare");
    if (weighted) {
      const weightSum = labelWeightSum(at);
      vm.multiply(weightSum, weightSum, scale);
      vm.divide(taskShare, taskShare, weightSum);
      vm.free(weightSum);
    }
    at.store("taskScale", taskShare);
    vm.free(taskShare);
  }
  vm.free(scale);
}

/** Σ of the weights of all labels, or 1 where that is 0. One after the other: there are a few hundred. */
function labelWeightSum(at: ColumnVector): Vector {
  const { vm, args } = at;
  const [sum, weight] = [vm.vector(), vm.vector()];
  const [labels, count, label] = [
    args.pointer("allLabels"),
    args.integer("allColumns"),
    vm.integer(),
  ];
  vm.constantF32(sum, 0);
  vm.repeat(count, () => {
    vm.loadI32(label, labels, 0);
    vm.when(label, "greaterOrEqual", 0, () => {
      const weights = args.pointer("classWeights");
      vm.shiftLeftInteger(label, label, 2);
      vm.addInteger(weights, weights, label);
      vm.broadcast(weight, weights, 0);
      vm.add(sum, sum, weight);
      vm.free(weights);
    });
    vm.addInteger(labels, labels, 4);
  });
  const [smallest, one] = [at.constant(2 ** -126), at.constant(1)];
  vm.selectLess(sum, sum, smallest, one, sum);
  vm.free(weight, labels, count, label, smallest, one);
  return sum;
}

/** The largest logit of each column. */
function emitHighest(at: ColumnVector, matrix: Matrix, slot: "highest" | "teacherHighest"): void {
  const { vm } = at;
  const [highest, x] = [at.constant(-Infinity), vm.vector()];
  at.forEachClass([matrix], ([source]) => {
    vm.load(x, source, 0);
    vm.maximum(highest, highest, x);
  });
  at.store(slot, highest);
  vm.free(highest, x);
}
