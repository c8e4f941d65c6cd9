/**
 * What the losses share: the mean over the columns that count, and how workers share the columns.
 *
 * A loss has a list i32 [columns] in which −1 marks the columns that do not count. Its kernel writes the loss of each
 * column; these are summed afterwards, in one order, so that the number of workers changes no bit.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type Operand, splitRange, type Step, type Target } from "../../graph/operation.ts";
import { callKernel, defineKernel, type KernelCall } from "../kernel.ts";

/** Arguments of kernels that ask how many columns count. */
export const labelArguments = {
  /** i32 [columns] of the whole batch, −1 = does not count */
  allLabels: "pointer",
  allColumns: "integer",
} as const;

/** The part of an `ArgumentReader` that is used here. */
interface LabelReader {
  pointer(name: "allLabels"): Integer;
  integer(name: "allColumns"): Integer;
}

/**
 * d = 1 / the number of labels that are not negative, or 1 if there are none: then what it is multiplied by is 0.
 * Exact below 2²⁴ columns.
 */
export function emitInverseCount(
  vm: VectorMachine,
  args: LabelReader,
  d: Vector,
): void {
  const address = args.pointer("allLabels");
  const size = args.integer("allColumns");
  const position = vm.integer();
  const [label, none, unit] = [vm.vector(), vm.vector(), vm.vector()];
  vm.constantF32(none, 0);
  vm.constantF32(unit, 1);
  vm.constantF32(d, 0);
  vm.forRange(position, 0, size, vm.lanes, () => {
    vm.load(label, address, 0);
    vm.i32ToF32(label, label);
    vm.selectLess(label, label, none, none, unit);
    vm.add(d, d, label);
    vm.addInteger(address, address, vm.lanes * 4);
  });
  vm.sumLanes(d, d);
  vm.maximum(d, d, unit);
  vm.divide(d, unit, d);
  vm.free(address, size, position, label, none, unit);
}

/** mean [1] = Σ losses [columns] / the number of labels. Columns without a label must have the loss 0. */
const labelledMeanKernel = defineKernel({
  key: "labelled_mean",
  arguments: { ...labelArguments, losses: "pointer", mean: "pointer" },
  emit(vm, args) {
    const [total, loss] = [vm.vector(), vm.vector()];
    const [losses, columns, position] = [args.pointer("losses"), args.integer("allColumns"), vm.integer()];
    vm.constantF32(total, 0);
    vm.forRange(position, 0, columns, vm.lanes, () => {
      vm.load(loss, losses, 0);
      vm.add(total, total, loss);
      vm.addInteger(losses, losses, vm.lanes * 4);
    });
    vm.sumLanes(total, total);
    emitInverseCount(vm, args, loss);
    vm.multiply(total, total, loss);
    const mean = args.pointer("mean");
    vm.storeLane0(mean, 0, total);
    vm.free(total, loss, losses, columns, position, mean);
  },
});

/** What the steps of a loss are made of. */
export interface LossSteps {
  /** Name of the operation. */
  readonly name: string;
  readonly labels: Operand;
  /** f32 [1] */
  readonly loss: Operand;
  /** f32 [columns] */
  readonly columnLosses: Operand;
  /** Elements of the matrices: how much work there is. */
  readonly work: number;
  readonly target: Target;
  /** The call that computes columns `begin` to `end`, whole tiles; `worker` makes it. */
  readonly columnsCall: (range: { begin: number; end: number }, worker: number) => KernelCall;
}

/** Elements from which on a loss is worth a barrier: some 50 µs of one worker's time. */
const sharedElements = 2 ** 15;

/** Losses and gradients of the columns, by all workers where there is enough work for a barrier, then the mean. */
export function lossSteps(
  { name, labels, loss, columnLosses, work, target, columnsCall }: LossSteps,
): Step[] {
  const columns = columnLosses.type.shape[0];
  const { tile, workers } = target;
  const mean = callKernel(labelledMeanKernel, {
    allLabels: labels.address,
    allColumns: columns,
    losses: columnLosses.address,
    mean: loss.address,
  });
  const byFirst = (...calls: KernelCall[]) =>
    Array.from({ length: workers }, (_, worker) => worker ? [] : calls);
  if (workers === 1 || work < sharedElements) {
    return [{ name, calls: byFirst(columnsCall({ begin: 0, end: columns }, 0), mean) }];
  }
  const shares = splitRange(columns, workers, tile).map((range, worker) =>
    range.begin === range.end ? [] : [columnsCall(range, worker)]
  );
  return [{ name, calls: shares }, { name: `${name} mean`, calls: byFirst(mean) }];
}
