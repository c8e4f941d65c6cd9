/**
 * Layer normalisation of strips of columns, in three passes over a strip: sum, squared differences, result.
 *
 * Two passes for the statistics, because the mean square minus the squared mean cancels in f32.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  emitFeatureLoop,
  emitInverseFeatures,
  emitStripLoop,
  stripArguments,
  takeVectors,
} from "./strips.ts";

/** Arguments of `layerNormKernel`. */
export const layerNormArguments = {
  x: "pointer",
  /** Equal to `x` where there is no residual. */
  residual: "pointer",
  gamma: "pointer",
  beta: "pointer",
  y: "pointer",
  /** Where x + residual goes; `y` when nobody needs it. */
  summed: "pointer",
  /** Row of means; unused, as the next, unless training. */
  means: "pointer",
  inverseStds: "pointer",
  epsilon: "float",
  ...stripArguments,
} as const;

/** What is baked into a layer norm kernel. */
export interface LayerNormKernelOptions {
  /** Columns in a tile. */
  readonly tile: number;
  /** Vectors of columns in a strip. */
  readonly vectors: number;
  /** Whether a second matrix is added first. */
  readonly residual: boolean;
  /** Whether the statistics are stored. */
  readonly training: boolean;
}

/** Registers held for each vector of a strip, and besides, at the peak. */
export const layerNormRegisters = { perVector: 2, others: 4 } as const;

const kernels = new Map<string, Kernel<typeof layerNormArguments>>();

/**
 * y = (summed − mean) / std · gamma + beta with summed = x + residual, for the strips given.
 *
 * Requires: `y` and `summed` each overlap `x` and `residual` not at all or entirely.
 * Numerics: f32 sums over features in order, one chain per column, so columns do not influence each other.
 */
export function layerNormKernel(options: LayerNormKernelOptions): Kernel<typeof layerNormArguments> {
  const { tile, vectors, residual, training } = options;
  const key = `layer_norm_f32_tile${tile}x${vectors}${residual ? "_residual" : ""}${
    training ? "_training" : ""
  }`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: layerNormArguments,
      emit: (vm, args) => emitLayerNorm(vm, args, options),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitLayerNorm(
  vm: VectorMachine,
  args: ArgumentReader<typeof layerNormArguments>,
  { tile, vectors, residual, training }: LayerNormKernelOptions,
): void {
  const vectorBytes = 4 * vm.lanes;
  const inverseFeatures = emitInverseFeatures(vm, args);
  emitStripLoop(vm, args, tile, vectors, ({ offset, columnOffset }) => {
    const matrix = (name: "x" | "residual" | "y" | "summed"): Integer => {
      const pointer = args.pointer(name);
      vm.addInteger(pointer, pointer, offset);
      return pointer;
    };
    const means = emitSums(vm, args, { tile, vectors, residual }, matrix);
    for (const mean of means) vm.multiply(mean, mean, inverseFeatures);

    const inverseStds = emitSquares(vm, args, { tile, means }, matrix("summed"));
    const epsilon = args.float("epsilon");
    const one = vm.vector();
    vm.constantF32(one, 1);
    for (const std of inverseStds) {
      vm.multiply(std, std, inverseFeatures);
      vm.add(std, std, epsilon);
      vm.squareRoot(std, std);
      vm.divide(std, one, std);
    }
    vm.free(epsilon, one);

    if (training) {
      for (const [name, row] of [["means", means], ["inverseStds", inverseStds]] as const) {
        const pointer = args.pointer(name);
        vm.addInteger(pointer, pointer, columnOffset);
        row.forEach((vector, i) => vm.store(pointer, i * vectorBytes, vector));
        vm.free(pointer);
      }
    }

    const summed = matrix("summed");
    const y = matrix("y");
    const gamma = args.pointer("gamma");
    const beta = args.pointer("beta");
    const [value, scale, shift] = takeVectors(vm, 3);
    emitFeatureLoop(vm, args, tile, { matrices: [summed, y], parameters: [gamma, beta] }, () => {
      vm.broadcast(scale, gamma, 0);
      vm.broadcast(shift, beta, 0);
      means.forEach((mean, i) => {
        vm.load(value, summed, i * vectorBytes);
        vm.subtract(value, value, mean);
        vm.multiply(value, value, inverseStds[i]);
        vm.multiply(value, value, scale);
        vm.add(value, value, shift);
        vm.store(y, i * vectorBytes, value);
      });
    });
    vm.free(summed, y, gamma, beta, value, scale, shift, ...means, ...inverseStds);
  });
  vm.free(inverseFeatures);
}

/** First pass: stores x + residual and gives its sum over features, in new registers. */
function emitSums(
  vm: VectorMachine,
  args: ArgumentReader<typeof layerNormArguments>,
  { tile, vectors, residual }: { tile: number; vectors: number; residual: boolean },
  matrix: (name: "x" | "residual" | "summed") => Integer,
): Vector[] {
  const x = matrix("x");
  const addend = residual ? matrix("residual") : undefined;
  const summed = matrix("summed");
  const sums = takeVectors(vm, vectors);
  for (const sum of sums) vm.constantF32(sum, 0);
  const [value, other] = takeVectors(vm, 2);
  emitFeatureLoop(vm, args, tile, { matrices: [x, summed, ...(addend ? [addend] : [])] }, () => {
    sums.forEach((sum, i) => {
      vm.load(value, x, 4 * vm.lanes * i);
      if (addend) {
        vm.load(other, addend, 4 * vm.lanes * i);
        vm.add(value, value, other);
      }
      vm.add(sum, sum, value);
      vm.store(summed, 4 * vm.lanes * i, value);
    });
  });
  vm.free(x, summed, ...(addend ? [addend] : []), value, other);
  return sums;
}

/** Second pass: the sum over features of (summed − mean)², in new registers. Frees the pointer. */
function emitSquares(
  vm: VectorMachine,
  args: ArgumentReader<typeof layerNormArguments>,
  { tile, means }: { tile: number; means: readonly Vector[] },
  summed: Integer,
): Vector[] {
  const squares = takeVectors(vm, means.length);
  for (const square of squares) vm.constantF32(square, 0);
  const value = vm.vector();
  emitFeatureLoop(vm, args, tile, { matrices: [summed] }, () => {
    means.forEach((mean, i) => {
      vm.load(value, summed, 4 * vm.lanes * i);
      vm.subtract(value, value, mean);
      vm.fma(squares[i], value, value);
    });
  });
  vm.free(summed, value);
  return squares;
}
