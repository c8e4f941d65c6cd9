/**
 * The two gradients of layer normalisation: with respect to its argument, by strips of columns, and with respect to
 * gamma and beta, by features.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  emitFeatureLoop,
  emitInverseFeatures,
  emitStripLoop,
  stripArguments,
  takeVectors,
} from "./strips.ts";

// With respect to the argument --------------------------------------------------------------------------------

/** Arguments of `layerNormGradientKernel`. */
export const layerNormGradientArguments = {
  gradY: "pointer",
  summed: "pointer",
  means: "pointer",
  inverseStds: "pointer",
  gamma: "pointer",
  gradX: "pointer",
  ...stripArguments,
} as const;

/** Registers held for each vector of a strip, and besides, at the peak. */
export const layerNormGradientRegisters = { perVector: 4, others: 4 } as const;

const gradientKernels = new Map<string, Kernel<typeof layerNormGradientArguments>>();

/**
 * gradX = (g − mean(g) − n · mean(g · n)) / std with n = (summed − mean) / std and g = gradY · gamma.
 *
 * Requires: `gradX` overlaps `gradY` and `summed` not at all or entirely.
 * Numerics: f32 sums over features in order, one chain per column; a column of zeros in gradY gives zeros.
 */
export function layerNormGradientKernel(
  { tile, vectors }: { readonly tile: number; readonly vectors: number },
): Kernel<typeof layerNormGradientArguments> {
  const key = `layer_norm_gradient_f32_tile${tile}x${vectors}`;
  let kernel = gradientKernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: layerNormGradientArguments,
      emit: (vm, args) => emitGradient(vm, args, tile, vectors),
    });
    gradientKernels.set(key, kernel);
  }
  return kernel;
}

function emitGradient(
  vm: VectorMachine,
  args: ArgumentReader<typeof layerNormGradientArguments>,
  tile: number,
  vectors: number,
): void {
  const vectorBytes = 4 * vm.lanes;
  const inverseFeatures = emitInverseFeatures(vm, args);
  emitStripLoop(vm, args, tile, vectors, ({ offset, columnOffset }) => {
    const at = (name: "gradY" | "summed" | "gradX" | "means" | "inverseStds", by: Integer): Integer => {
      const pointer = args.pointer(name);
      vm.addInteger(pointer, pointer, by);
      return pointer;
    };
    const readRow = (name: "means" | "inverseStds") => {
      const pointer = at(name, columnOffset);
      const row = takeVectors(vm, vectors);
      row.forEach((vector, i) => vm.load(vector, pointer, i * vectorBytes));
      vm.free(pointer);
      return row;
    };
    const means = readRow("means");
    const inverseStds = readRow("inverseStds");
    const meanG = takeVectors(vm, vectors);
    const meanGN = takeVectors(vm, vectors);
    for (const accumulator of [...meanG, ...meanGN]) vm.constantF32(accumulator, 0);
    const [scale, g, n] = takeVectors(vm, 3);

    /** Visits every feature with g and n of each vector in registers. */
    const pass = (gradX: Integer | undefined, body: (i: number) => void) => {
      const gradY = at("gradY", offset);
      const summed = at("summed", offset);
      const gamma = args.pointer("gamma");
      const matrices = [gradY, summed, ...(gradX ? [gradX] : [])];
      emitFeatureLoop(vm, args, tile, { matrices, parameters: [gamma] }, () => {
        vm.broadcast(scale, gamma, 0);
        for (let i = 0; i < vectors; i++) {
          vm.load(g, gradY, i * vectorBytes);
          vm.multiply(g, g, scale);
          vm.load(n, summed, i * vectorBytes);
          vm.subtract(n, n, means[i]);
          vm.multiply(n, n, inverseStds[i]);
          body(i);
        }
      });
      vm.free(...matrices, gamma);
    };
    pass(undefined, (i) => {
      vm.add(meanG[i], meanG[i], g);
      vm.fma(meanGN[i], g, n);
    });
    for (const accumulator of [...meanG, ...meanGN]) vm.multiply(accumulator, accumulator, inverseFeatures);
    const gradX = at("gradX", offset);
    pass(gradX, (i) => {
      vm.subtract(g, g, meanG[i]);
      vm.fmaNegated(g, n, meanGN[i]);
      vm.multiply(g, g, inverseStds[i]);
      vm.store(gradX, i * vectorBytes, g);
    });
    vm.free(scale, g, n, ...means, ...inverseStds, ...meanG, ...meanGN);
  });
  vm.free(inverseFeatures);
}

// With respect to gamma and beta ------------------------------------------------------------------------------

/** Arguments of `layerNormParameterGradientKernel`; matrices and results point to the share's first feature. */
export const layerNormParameterGradientArguments = {
  gradY: "pointer",
  summed: "pointer",
  means: "pointer",
  inverseStds: "pointer",
  gradGamma: "pointer",
  gradBeta: "pointer",
  /** Features of the whole matrix, and of this share. */
  features: "integer",
  featureCount: "integer",
  tiles: "integer",
} as const;

/** Features summed at once: they share the loads of the statistics, and their chains of additions overlap. */
export const parameterGradientBlock = 4;

const parameterKernels = new Map<number, Kernel<typeof layerNormParameterGradientArguments>>();

/**
 * gradGamma[f] = Σ gradY[f, c] · n[f, c] and gradBeta[f] = Σ gradY[f, c] over all columns c.
 *
 * Numerics: lane l sums the columns l, l + lanes, … in order; the lanes are then added in the machine's fixed tree.
 */
export function layerNormParameterGradientKernel(
  tile: number,
): Kernel<typeof layerNormParameterGradientArguments> {
  let kernel = parameterKernels.get(tile);
  if (!kernel) {
    kernel = defineKernel({
      key: `layer_norm_parameter_gradient_f32_tile${tile}`,
      arguments: layerNormParameterGradientArguments,
      emit: (vm, args) => emitParameterGradient(vm, args, tile),
    });
    parameterKernels.set(tile, kernel);
  }
  return kernel;
}

function emitParameterGradient(
  vm: VectorMachine,
  args: ArgumentReader<typeof layerNormParameterGradientArguments>,
  tile: number,
): void {
  // Bytes from a parameter gradient's start to the current feature; the matrices' rows are `tile` times as long.
  const featureOffset = vm.integer();
  vm.setInteger(featureOffset, 0);

  /** Sums `block` features and moves on to the next. */
  const emitBlock = (block: number) => {
    const gammas = takeVectors(vm, block);
    const betas = takeVectors(vm, block);
    for (const accumulator of [...gammas, ...betas]) vm.constantF32(accumulator, 0);
    const [mean, inverseStd, g, n] = takeVectors(vm, 4);
    const gradY = args.pointer("gradY");
    const summed = args.pointer("summed");
    const means = args.pointer("means");
    const inverseStds = args.pointer("inverseStds");
    const tiles = args.integer("tiles");
    const vectors = vm.integer();
    const jump = vm.integer();
    vm.multiplyInteger(jump, featureOffset, tile);
    for (const matrix of [gradY, summed]) vm.addInteger(matrix, matrix, jump);
    vm.free(jump);
    vm.repeat(tiles, () => {
      vm.setInteger(vectors, tile / vm.lanes);
      vm.repeat(vectors, () => {
        vm.load(mean, means, 0);
        vm.load(inverseStd, inverseStds, 0);
        gammas.forEach((gamma, row) => {
          vm.load(g, gradY, row * tile * 4);
          vm.load(n, summed, row * tile * 4);
          vm.subtract(n, n, mean);
          vm.multiply(n, n, inverseStd);
          vm.fma(gamma, g, n);
          vm.add(betas[row], betas[row], g);
        });
        for (const pointer of [gradY, summed, means, inverseStds]) {
          vm.addInteger(pointer, pointer, 4 * vm.lanes);
        }
      });
      // From the end of a row to its start in the next tile: past the tile's other features.
      const otherRows = args.integer("features");
      vm.subtractInteger(otherRows, otherRows, 1);
      vm.multiplyInteger(otherRows, otherRows, 4 * tile);
      for (const matrix of [gradY, summed]) vm.addInteger(matrix, matrix, otherRows);
      vm.free(otherRows);
    });
    vm.free(gradY, summed, means, inverseStds, tiles, vectors);
    for (const [name, sums] of [["gradGamma", gammas], ["gradBeta", betas]] as const) {
      const pointer = args.pointer(name);
      vm.addInteger(pointer, pointer, featureOffset);
      sums.forEach((sum, row) => {
        vm.sumLanes(g, sum);
        vm.storeLane0(pointer, 4 * row, g);
      });
      vm.free(pointer);
    }
    vm.free(...gammas, ...betas, mean, inverseStd, g, n);
    vm.addInteger(featureOffset, featureOffset, 4 * block);
  };

  const features = args.integer("featureCount");
  const blocks = vm.integer();
  vm.shiftRightInteger(blocks, features, Math.log2(parameterGradientBlock));
  vm.repeat(blocks, () => emitBlock(parameterGradientBlock));
  vm.free(blocks);
  vm.andInteger(features, features, parameterGradientBlock - 1);
  vm.repeat(features, () => emitBlock(1));
  vm.free(features, featureOffset);
}
