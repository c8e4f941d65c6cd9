/**
 * The dense matmul kernel: columns (tokens) in the lanes, weights broadcast.
 *
 * Loops, outermost first: panels of the depth, tiles of columns, blocks of rows, groups of columns, depth. A panel
 * of x (`depthPanel` × tile) and the weights of a row block stay in the L1 cache; sums pass from panel to panel
 * through y.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  type Block,
  type BlockEnds,
  chooseBlock,
  emitActivation,
  emitProducts,
  emitResume,
  emitStart,
  emitStore,
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
  /** Full blocks of rows. */
  blocks: "integer",
  /** Rows after them. */
  singles: "integer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the matmul kernel. */
export type MatmulArguments = typeof matmulArguments;

/** Bytes of x that a panel of the depth may take: half of the smallest L1 cache in use (32 KiB). */
const panelBytes = 16384;

/** Depth of a panel for that tile: a multiple of 4. */
function depthPanelFor(tile: number): number {
  return Math.max(4, Math.floor(panelBytes / (tile * 4)) & ~3);
}

/** The constants for a machine: block sizes from its registers. */
export function matmulConstants(
  shape: Omit<MatmulConstants, "block" | "singleVectors">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): MatmulConstants {
  const block = (maximumRows: number) =>
    chooseBlock({
      vectorRegisters: machine.vectorRegisters,
      vectorsPerRow: shape.tile / machine.lanes,
      activation: shape.activation,
      maximumRows,
    });
  return { ...shape, block: block(8), singleVectors: block(1).vectors };
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
  const { rows, depth, tile, transposed, bias, addend, activation, block, singleVectors } = constants;
  const key = [
    `matmul_f32_${rows}x${depth}${transposed ? "_transposed" : ""}`,
    ...(bias ? ["bias"] : []),
    ...(activation === "none" ? [] : [activation]),
    ...(addend ? ["addend"] : []),
    `tile${tile}_block${block.rows}x${block.vectors}_${singleVectors}`,
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
  const { rows, depth, tile, block, singleVectors, activation } = constants;
  const rowBytes = tile * 4;
  // Between an activation and the addend there is no place for partial sums when y is the addend: one panel then.
  const panel = activation !== "none" && constants.addend ? depth : Math.min(depth, depthPanelFor(tile));

  const depthBegin = vm.integer();
  vm.forRange(depthBegin, 0, depth, panel, () => {
    const x = args.pointer("x");
    addMultiple(vm, x, depthBegin, rowBytes);
    const y = args.pointer("y");
    const tiles = args.integer("tiles");
    vm.repeat(tiles, () => {
      const weight = args.pointer("weight");
      addMultiple(vm, weight, depthBegin, constants.transposed ? rows * 4 : 4);
      const bias = constants.bias ? args.pointer("bias") : undefined;
      const row = vm.integer();
      vm.moveInteger(row, y);
      for (
        const [name, shape] of [["blocks", block], ["singles", { rows: 1, vectors: singleVectors }]] as const
      ) {
        const count = args.integer(name);
        vm.repeat(count, () => {
          emitRowBlock(vm, args, constants, shape, panel, { depthBegin, x, weight, bias, y: row });
          vm.addInteger(weight, weight, shape.rows * (constants.transposed ? 4 : depth * 4));
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

/** One block of rows over a whole tile and one panel of the depth. */
function emitRowBlock(
  vm: VectorMachine,
  args: ArgumentReader<MatmulArguments>,
  constants: MatmulConstants,
  shape: Block,
  panel: number,
  at: {
    readonly depthBegin: Integer;
    readonly x: Integer;
    readonly weight: Integer;
    readonly bias: Integer | undefined;
    readonly y: Integer;
  },
): void {
  const { rows, depth, tile, transposed, activation } = constants;
  const rowBytes = tile * 4;
  const strides = {
    x: rowBytes,
    weightRow: transposed ? 4 : depth * 4,
    weightDepth: transposed ? rows * 4 : 4,
  };
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
    vm.repeat(fours, () => emitProducts(vm, accumulators, x, weight, strides, 4));
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

/** d += index · factor */
function addMultiple(vm: VectorMachine, d: Integer, index: Integer, factor: number): void {
  const product = vm.integer();
  vm.multiplyInteger(product, index, factor);
  vm.addInteger(d, d, product);
  vm.free(product);
}
