/**
 * The dense matmul kernel: columns (tokens) in the lanes, weights broadcast.
 *
 * Loops, outermost first: panels of the depth, tiles of columns, blocks of rows, groups of columns, depth. A panel
 * of x and the weights of a row block stay in the L1 cache; sums pass from panel to panel through y.
 *
 * A block walks down the depth of its rows. In a transposed weight that is a stride of a whole row per step, a page and
 * a cache set apart: such weights are first copied, a panel at a time, to where the stride is small.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  addMultiple,
  type Block,
  type BlockEnds,
  chooseBlock,
  emitActivation,
  emitProducts,
  emitResume,
  emitStart,
  emitStore,
  prefetchNextRows,
  takeAccumulators,
} from "./block.ts";
import type { Activation } from "./reference.ts";

/** What is baked into the code. */
export interface MatmulConstants {
  /** Features of y in memory, N. */
  readonly rows: number;
  /** Features of x, K. */
  readonly depth: number;
  readonly tile: number;
  readonly transposed: boolean;
  readonly bias: boolean;
  readonly addend: boolean;
  readonly activation: Activation;
  /** The full register block. */
  readonly block: Block;
  /** Vectors of the one-row block that takes the rows left over. */
  readonly singleVectors: number;
  /** Rows a call may compute: a multiple of the block's. */
  readonly panelRows: number;
}

const matmulArguments = {
  /** First tile of x. */
  x: "pointer",
  /** The weight of the first row and depth 0. */
  weight: "pointer",
  /** Bias of the first row; unused without one. */
  bias: "pointer",
  /** Addend of the first row, first tile; unused without one. */
  addend: "pointer",
  /** First row, first tile of y. */
  y: "pointer",
  /** Scratch memory of `matmulScratchBytes`. */
  scratch: "pointer",
  /** Rows to compute, at most `panelRows`, … */
  rows: "integer",
  /** … as full blocks … */
  blocks: "integer",
  /** … and rows after them. */
  singles: "integer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the matmul kernel. */
export type MatmulArguments = typeof matmulArguments;

/** Bytes of x that a panel of the depth may take: an L1 cache, which loses little when it is half as large. */
const panelBytes = 32768;

/** Depth of a panel. */
function panelDepth({ depth, tile, activation, addend }: MatmulConstants): number {
  // Between an activation and the addend there is no place for partial sums when y is the addend: one panel then.
  if (activation !== "none" && addend) return depth;
  return Math.min(depth, Math.max(4, Math.floor(panelBytes / (tile * 4)) & ~3));
}

/** Bytes between two depths of a transposed weight in scratch memory: an odd number of cache lines hits all sets. */
function packedStride({ panelRows }: MatmulConstants): number {
  return (Math.ceil(panelRows * 4 / 64) | 1) * 64;
}

/** Bytes of scratch memory a call needs. */
export function matmulScratchBytes(constants: MatmulConstants): number {
  return constants.transposed ? panelDepth(constants) * packedStride(constants) : 0;
}

/** The constants for a machine: block sizes from its registers. */
export function matmulConstants(
  shape: Omit<MatmulConstants, "block" | "singleVectors" | "panelRows">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): MatmulConstants {
  const chooseRows = (maximumRows: number) =>
    chooseBlock({
      vectorRegisters: machine.vectorRegisters,
      vectorsPerRow: shape.tile / machine.lanes,
      activation: shape.activation,
      maximumRows,
    });
  // With one vector of columns tall blocks save loads of x: 12 rows gave 11 % over 8. V8 has no registers for them.
  const block = chooseRows(machine.lanes > 4 ? 12 : 8);
  // A panel of a row-major weight stays in the L2 cache while all tiles pass; a transposed one is copied, and lies in
  // vectors until the last of its rows. With 512 columns 192 rows of that gave 2 to 4 % over 96, since a panel of x is
  // fetched half as often; 384 gave no more.
  const rowUnit = shape.transposed ? block.rows * machine.lanes : block.rows;
  const panelRows = rowUnit * Math.max(1, Math.floor((shape.transposed ? 192 : 512) / rowUnit));
  return { ...shape, block, singleVectors: chooseRows(1).vectors, panelRows };
}

const kernels = new Map<string, Kernel<MatmulArguments>>();

/**
 * y[n, c] = act(bias[n] + Σ_k op(weight)[n, k] · x[k, c]) + addend[n, c] for a range of rows and tiles.
 *
 * Shapes:   x tiled [depth, tiles·tile], y and addend tiled [rows, tiles·tile], weight [rows, depth] row-major, or
 *           [depth, rows] when transposed.
 * Requires: y must not overlap x; it may be the addend.
 * Numerics: f32 sums in the order of k starting from bias (+ addend without an activation), one fma each.
 * Cost:     2 · rows · depth · columns operations; the weight is read once per tile, x once per row block.
 */
export function matmulKernel(constants: MatmulConstants): Kernel<MatmulArguments> {
  const { rows, depth, tile, transposed, bias, addend, activation, block, singleVectors, panelRows } =
    constants;
  const key = [
    `matmul_f32_${rows}x${depth}${transposed ? "_transposed" : ""}`,
    ...(bias ? ["bias"] : []),
    ...(activation === "none" ? [] : [activation]),
    ...(addend ? ["addend"] : []),
    `tile${tile}_block${block.rows}x${block.vectors}_${singleVectors}_panel${panelRows}`,
  ].join("_");
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: matmulArguments,
      emit: (vm, args) => emitMatmul(vm, args, constants),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitMatmul(
  vm: VectorMachine,
  args: ArgumentReader<MatmulArguments>,
  constants: MatmulConstants,
): void {
  const { rows, depth, tile, transposed, block, singleVectors } = constants;
  const rowBytes = tile * 4;
  const panel = panelDepth(constants);

  const depthBegin = vm.integer();
  vm.forRange(depthBegin, 0, depth, panel, () => {
    if (transposed) emitCopyWeights(vm, args, constants, depthBegin);
    const x = args.pointer("x");
    addMultiple(vm, x, depthBegin, rowBytes);
    const y = args.pointer("y");
    const tiles = args.integer("tiles");
    vm.repeat(tiles, () => {
      const weight = args.pointer(transposed ? "scratch" : "weight");
      if (!transposed) addMultiple(vm, weight, depthBegin, 4);
      const bias = constants.bias ? args.pointer("bias") : undefined;
      const row = vm.integer();
      vm.moveInteger(row, y);
      for (
        const [name, shape] of [["blocks", block], ["singles", { rows: 1, vectors: singleVectors }]] as const
      ) {
        const count = args.integer(name);
        vm.repeat(count, () => {
          emitRowBlock(vm, args, constants, shape, { depthBegin, x, weight, bias, y: row });
          vm.addInteger(weight, weight, shape.rows * (transposed ? 4 : depth * 4));
          vm.addInteger(row, row, shape.rows * rowBytes);
          if (bias) vm.addInteger(bias, bias, shape.rows * 4);
        });
        vm.free(count);
      }
      vm.free(weight, row, ...(bias ? [bias] : []));
      vm.addInteger(x, x, depth * rowBytes);
      vm.addInteger(y, y, rows * rowBytes);
    });
    vm.free(x, y, tiles);
  });
  vm.free(depthBegin);
}

/** scratch[k, n] = weight[depthBegin + k, n] for a panel of the depth and the rows of the call. */
function emitCopyWeights(
  vm: VectorMachine,
  args: ArgumentReader<MatmulArguments>,
  constants: MatmulConstants,
  depthBegin: Integer,
): void {
  const { rows, depth } = constants;
  const panel = panelDepth(constants);
  const source = args.pointer("weight");
  addMultiple(vm, source, depthBegin, rows * 4);
  const target = args.pointer("scratch");
  const depths = vm.integer();
  vm.setInteger(depths, depth);
  vm.subtractInteger(depths, depths, depthBegin);
  vm.when(depths, "greater", panel, () => vm.setInteger(depths, panel));
  vm.repeat(depths, () => {
    const from = vm.integer();
    const to = vm.integer();
    const vector = vm.vector();
    vm.moveInteger(from, source);
    vm.moveInteger(to, target);
    const left = args.integer("rows");
    vm.shiftRightInteger(left, left, Math.log2(vm.lanes));
    vm.repeat(left, () => {
      vm.load(vector, from, 0);
      vm.store(to, 0, vector);
      vm.addInteger(from, from, vm.lanes * 4);
      vm.addInteger(to, to, vm.lanes * 4);
    });
    vm.free(left);
    const rest = args.integer("rows");
    vm.andInteger(rest, rest, vm.lanes - 1);
    vm.loadFirst(vector, from, 0, rest);
    vm.storeFirst(to, 0, vector, rest);
    vm.free(rest, from, to, vector);
    vm.addInteger(source, source, rows * 4);
    vm.addInteger(target, target, packedStride(constants));
  });
  vm.free(source, target, depths);
}

/** One block of rows over a whole tile and one panel of the depth. */
function emitRowBlock(
  vm: VectorMachine,
  args: ArgumentReader<MatmulArguments>,
  constants: MatmulConstants,
  shape: Block,
  at: {
    readonly depthBegin: Integer;
    readonly x: Integer;
    readonly weight: Integer;
    readonly bias: Integer | undefined;
    readonly y: Integer;
  },
): void {
  const { depth, tile, transposed, activation } = constants;
  const rowBytes = tile * 4;
  const strides = {
    x: rowBytes,
    weightRow: transposed ? 4 : depth * 4,
    weightDepth: transposed ? packedStride(constants) : 4,
  };
  const panel = panelDepth(constants);
  const lastBegin = (Math.ceil(depth / panel) - 1) * panel;
  const inPanel = (begin: number, then: () => void, otherwise?: () => void) => {
    if (lastBegin === 0) then();
    else vm.when(at.depthBegin, "equal", begin, then, otherwise);
  };
  const column = vm.integer();
  // Addresses of results are made when needed: twelve integer registers leave none to keep them in.
  const withEnds = (body: (ends: BlockEnds) => void) => {
    const y = vm.integer();
    vm.addInteger(y, at.y, column);
    const addend = constants.addend ? args.pointer("addend") : undefined;
    if (addend) {
      const first = args.pointer("y");
      vm.subtractInteger(addend, addend, first);
      vm.addInteger(addend, addend, y);
      vm.free(first);
    }
    body({ y, rowStride: rowBytes, bias: at.bias, addend, activation });
    vm.free(y, ...(addend ? [addend] : []));
  };

  vm.forRange(column, 0, rowBytes, shape.vectors * vm.lanes * 4, () => {
    const accumulators = takeAccumulators(vm, shape);
    withEnds((ends) =>
      inPanel(0, () => emitStart(vm, accumulators, ends), () => emitResume(vm, accumulators, ends))
    );

    const x = vm.integer();
    vm.addInteger(x, at.x, column);
    const weight = vm.integer();
    vm.moveInteger(weight, at.weight);
    const fours = vm.integer();
    vm.setInteger(fours, panel >> 2);
    inPanel(lastBegin, () => vm.setInteger(fours, (depth - lastBegin) >> 2));
    vm.repeat(fours, () => {
      emitProducts(vm, accumulators, x, weight, strides, 4);
      if (!transposed) prefetchNextRows(vm, shape, weight, strides.weightRow);
    });
    if (depth % 4 > 0) {
      inPanel(lastBegin, () => emitProducts(vm, accumulators, x, weight, strides, depth % 4));
    }
    vm.free(x, weight, fours);

    withEnds((ends) => {
      if (activation !== "none") inPanel(lastBegin, () => emitActivation(vm, accumulators, ends));
      emitStore(vm, accumulators, ends);
    });
    vm.free(...accumulators.flat());
  });
  vm.free(column);
}
