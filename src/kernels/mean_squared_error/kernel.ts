/**
 * The kernel of the squared error: losses and gradient in one pass.
 * @module
 */
import type { Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { emitInverseCount, labelArguments } from "../softmax_cross_entropy/labelled_mean.ts";

const errorArguments = {
  ...labelArguments,
  predictions: "pointer",
  targets: "pointer",
  /** 0 without a teacher. */
  teacher: "pointer",
  gradPredictions: "pointer",
  labels: "pointer",
  columnLosses: "pointer",
  outputs: "integer",
  columns: "integer",
  /** (1 − h) / outputs and h / outputs. */
  targetShare: "float",
  teacherShare: "float",
} as const;

/** What is compiled into the kernel. */
export interface SquaredErrorVariant {
  /** Columns in a tile. */
  readonly tile: number;
  /** Whether targets count: hardness below 1. */
  readonly targeted: boolean;
  /** Whether a teacher counts: hardness above 0. */
  readonly taught: boolean;
}

const kernels = new Map<string, Kernel<typeof errorArguments>>();

/**
 * Column losses and gradient of the loss that `meanSquaredErrorReference` defines, for the columns of some tiles.
 *
 * Shapes:   matrices tiled [outputs, columns] and labels, columnLosses [columns], all from the call's first column on;
 *           allLabels i32 [allColumns].
 * Layout:   columns in the lanes, one pass over the outputs.
 * Requires: gradPredictions may be the predictions, nothing else.
 * Numerics: f32. Columns that do not count are selected away, so that NaN there does no harm.
 */
export function meanSquaredErrorKernel(variant: SquaredErrorVariant): Kernel<typeof errorArguments> {
  const { tile, targeted, taught } = variant;
  const key = `mean_squared_error_tile${tile}${taught ? targeted ? "_taught" : "_teacher_only" : ""}`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: errorArguments,
      emit: (vm, args) => emitErrors(vm, args, variant),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitErrors(
  vm: VectorMachine,
  args: ArgumentReader<typeof errorArguments>,
  { tile, targeted, taught }: SquaredErrorVariant,
): void {
  const shares = [
    ...targeted ? [{ name: "targets" as const, share: args.float("targetShare") }] : [],
    ...taught ? [{ name: "teacher" as const, share: args.float("teacherShare") }] : [],
  ];
  const [scale, zero] = [vm.vector(), vm.vector()];
  emitInverseCount(vm, args, scale);
  vm.add(scale, scale, scale);
  vm.constantF32(zero, 0);
  const [columns, tileStart, inTile] = [args.integer("columns"), vm.integer(), vm.integer()];
  const [offset, labels, losses] = [vm.integer(), args.pointer("labels"), args.pointer("columnLosses")];
  const [label, loss] = [vm.vector(), vm.vector()];
  vm.setInteger(offset, 0);
  vm.forRange(tileStart, 0, columns, tile, () => {
    vm.forRange(inTile, 0, tile, vm.lanes, () => {
      vm.load(label, labels, 0);
      vm.i32ToF32(label, label);
      vm.constantF32(loss, 0);
      emitColumns();
      vm.selectLess(loss, label, zero, zero, loss);
      vm.store(losses, 0, loss);
      for (const address of [offset, labels, losses]) vm.addInteger(address, address, vm.lanes * 4);
    });
    // From the first row's next tile to the first row of the next tile.
    const rest = args.integer("outputs");
    vm.subtractInteger(rest, rest, 1);
    vm.multiplyInteger(rest, rest, tile * 4);
    vm.addInteger(offset, offset, rest);
    vm.free(rest);
  });
  vm.free(scale, zero, columns, tileStart, inTile, offset, labels, losses, label, loss);
  vm.free(...shares.map(({ share }) => share));

  /** Adds the errors of a vector of columns to `loss`, and writes their gradient. */
  function emitColumns(): void {
    const pointer = (name: "predictions" | "gradPredictions" | "targets" | "teacher") => {
      const address = args.pointer(name);
      vm.addInteger(address, address, offset);
      return address;
    };
    const [source, target, rows] = [
      pointer("predictions"),
      pointer("gradPredictions"),
      args.integer("outputs"),
    ];
    const wanted = shares.map(({ name, share }) => ({ address: pointer(name), share }));
    const [prediction, gradient, error, weighted]: Vector[] = Array.from({ length: 4 }, () => vm.vector());
    vm.repeat(rows, () => {
      vm.load(prediction, source, 0);
      vm.constantF32(gradient, 0);
      for (const { address, share } of wanted) {
        vm.load(error, address, 0);
        vm.subtract(error, prediction, error);
        vm.multiply(weighted, error, share);
        vm.add(gradient, gradient, weighted);
        vm.fma(loss, weighted, error);
      }
      vm.multiply(gradient, gradient, scale);
      vm.selectLess(gradient, label, zero, zero, gradient);
      vm.store(target, 0, gradient);
      for (const address of [source, target, ...wanted.map((each) => each.address)]) {
        vm.addInteger(address, address, tile * 4);
      }
    });
    vm.free(source, target, rows, prediction, gradient, error, weighted);
    vm.free(...wanted.map(({ address }) => address));
  }
}
