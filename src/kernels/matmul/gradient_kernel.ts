/**
 * The weight gradient kernel: a product over columns, computed as the forward product is.
 *
 * Columns lie in the lanes of both operands, so a direct product would end every sum with a reduction over lanes.
 * Instead a panel of x (`panelFeatures` × the columns of a call) is transposed into scratch memory, where features lie
 * in the lanes; then gradY is broadcast like a weight, sums need no reduction, and they land row-major where they
 * belong. Transposing costs two moves per element, paid back by every row of gradY.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { type Block, chooseBlock, emitProducts, emitResume, emitStore, takeAccumulators } from "./block.ts";

/** What is baked into the code. */
export interface WeightGradientConstants {
  /** Features of gradY, N. */
  readonly rows: number;
  /** Features of x, K. */
  readonly depth: number;
  readonly tile: number;
  /** The full register block; its vectors are a power of two. */
  readonly block: Block;
  /** Features of x transposed at once: a power of two, a multiple of the block's. */
  readonly panelFeatures: number;
}

const weightGradientArguments = {
  /** First row of gradY in the call's first tile. */
  gradY: "pointer",
  /** First feature of x in the call's first tile. */
  x: "pointer",
  /** First row, first feature of the result. */
  gradWeight: "pointer",
  /** Scratch memory of `weightGradientScratchBytes`. */
  scratch: "pointer",
  /** Full blocks of rows. */
  blocks: "integer",
  /** Rows after them. */
  singles: "integer",
  /** Features of x. */
  features: "integer",
  /** Tiles of columns, at most `weightGradientTiles`. */
  tiles: "integer",
  /** 0 to start from zero, 1 to add to the result. */
  resume: "integer",
} as const;

/** Arguments of the weight gradient kernel. */
export type WeightGradientArguments = typeof weightGradientArguments;

/** Columns of a call, when the tile is not larger: with 32 features they fill half of an L1 cache of 32 KiB. */
const panelColumns = 128;

/** Tiles a call may cover. */
export function weightGradientTiles(tile: number): number {
  return Math.max(1, Math.floor(panelColumns / tile));
}

/** Bytes of scratch memory a call needs. */
export function weightGradientScratchBytes({ tile, panelFeatures }: WeightGradientConstants): number {
  return weightGradientTiles(tile) * tile * panelFeatures * 4;
}

/** The constants for a machine: block sizes from its registers. */
export function weightGradientConstants(
  shape: Pick<WeightGradientConstants, "rows" | "depth" | "tile">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): WeightGradientConstants {
  const panelFeatures = Math.max(32, 4 * machine.lanes);
  const block = chooseBlock({
    vectorRegisters: machine.vectorRegisters,
    vectorsPerRow: panelFeatures / machine.lanes,
    activation: "none",
    maximumRows: 8,
  });
  return { ...shape, block, panelFeatures };
}

const kernels = new Map<string, Kernel<WeightGradientArguments>>();

/**
 * gradWeight[n, k] (+)= Σ_c gradY[n, c] · x[k, c] for a range of rows n, features k and tiles of columns.
 *
 * Shapes:   gradY tiled [rows, …], x tiled [depth, …], gradWeight [rows, depth] row-major.
 * Requires: nothing overlaps.
 * Numerics: f32 sums in the order of the columns, one fma each.
 * Cost:     2 · rows · features · columns operations; a call reads its gradY once per `panelFeatures` features.
 */
export function weightGradientKernel(constants: WeightGradientConstants): Kernel<WeightGradientArguments> {
  const { rows, depth, tile, block, panelFeatures } = constants;
  const key = `matmul_weight_gradient_f32_${rows}x${depth}_tile${tile}` +
    `_block${block.rows}x${block.vectors}_panel${panelFeatures}`;
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: weightGradientArguments,
      emit: (vm, args) => emitWeightGradient(vm, args, constants),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitWeightGradient(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  constants: WeightGradientConstants,
): void {
  const { depth, tile, block, panelFeatures } = constants;
  const features = args.integer("features");
  const feature = vm.integer();
  vm.forRange(feature, 0, features, panelFeatures, () => {
    const width = vm.integer();
    vm.subtractInteger(width, features, feature);
    vm.when(width, "greater", panelFeatures, () => vm.setInteger(width, panelFeatures));
    emitTranspose(vm, args, constants, feature, width);

    const gradY = args.pointer("gradY");
    const result = args.pointer("gradWeight");
    const featureBytes = vm.integer();
    vm.shiftLeftInteger(featureBytes, feature, 2);
    vm.addInteger(result, result, featureBytes);
    vm.free(featureBytes);
    for (const [name, blockRows] of [["blocks", block.rows], ["singles", 1]] as const) {
      const count = args.integer(name);
      vm.repeat(count, () => {
        emitRowBlock(vm, args, constants, blockRows, { gradY, result, width });
        vm.addInteger(gradY, gradY, blockRows * tile * 4);
        vm.addInteger(result, result, blockRows * depth * 4);
      });
      vm.free(count);
    }
    vm.free(gradY, result, width);
  });
  vm.free(feature, features);
}

/** scratch[column, f] = x[feature + f, column] for f < width, over the tiles of the call. */
function emitTranspose(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  { depth, tile, panelFeatures }: WeightGradientConstants,
  feature: Integer,
  width: Integer,
): void {
  const source = args.pointer("x");
  const target = args.pointer("scratch");
  const value = vm.integer();
  vm.multiplyInteger(value, feature, tile * 4);
  vm.addInteger(source, source, value);
  const tiles = args.integer("tiles");
  vm.repeat(tiles, () => {
    const from = vm.integer();
    const to = vm.integer();
    const left = vm.integer();
    vm.moveInteger(from, source);
    vm.moveInteger(to, target);
    vm.moveInteger(left, width);
    vm.repeat(left, () => {
      for (let column = 0; column < tile; column++) {
        vm.loadI32(value, from, column * 4);
        vm.storeI32(to, column * panelFeatures * 4, value);
      }
      vm.addInteger(from, from, tile * 4);
      vm.addInteger(to, to, 4);
    });
    vm.free(from, to, left);
    vm.addInteger(source, source, depth * tile * 4);
    vm.addInteger(target, target, tile * panelFeatures * 4);
  });
  vm.free(source, target, value, tiles);
}

/** A block of rows of the result over one panel of features: groups of vectors, then vectors, then part of one. */
function emitRowBlock(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  constants: WeightGradientConstants,
  blockRows: number,
  { gradY, result, width }: { readonly gradY: Integer; readonly result: Integer; readonly width: Integer },
): void {
  const { block } = constants;
  const vectorBits = Math.log2(vm.lanes);
  const blockBits = Math.log2(block.vectors * vm.lanes);
  /** Bytes from the panel's first feature. */
  const position = vm.integer();
  vm.setInteger(position, 0);
  const groups = vm.integer();
  const emitGroups = (vectors: number) => {
    vm.repeat(groups, () => {
      emitSums(vm, args, constants, { rows: blockRows, vectors }, {
        gradY,
        result,
        position,
        count: undefined,
      });
      vm.addInteger(position, position, vectors * vm.lanes * 4);
    });
  };
  vm.shiftRightInteger(groups, width, blockBits);
  emitGroups(block.vectors);
  if (block.vectors > 1) {
    vm.andInteger(groups, width, (1 << blockBits) - 1);
    vm.shiftRightInteger(groups, groups, vectorBits);
    emitGroups(1);
  }
  vm.andInteger(groups, width, vm.lanes - 1);
  vm.when(groups, "greater", 0, () => {
    emitSums(vm, args, constants, { rows: blockRows, vectors: 1 }, {
      gradY,
      result,
      position,
      count: groups,
    });
  });
  vm.free(position, groups);
}

/** One register block over all columns of the call. With `count`, only so many lanes of it exist. */
function emitSums(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  { rows, depth, tile, panelFeatures }: WeightGradientConstants,
  shape: Block,
  at: {
    readonly gradY: Integer;
    readonly result: Integer;
    readonly position: Integer;
    readonly count: Integer | undefined;
  },
): void {
  const accumulators = takeAccumulators(vm, shape);
  const rowStride = depth * 4;
  const inResult = (body: (y: Integer) => void) => {
    const y = vm.integer();
    vm.addInteger(y, at.result, at.position);
    body(y);
    vm.free(y);
  };
  const eachRow = (body: (accumulator: Vector, offset: number) => void) =>
    accumulators.forEach(([accumulator], r) => body(accumulator, r * rowStride));

  const resume = args.integer("resume");
  vm.when(resume, "equal", 0, () => {
    for (const accumulator of accumulators.flat()) vm.constantF32(accumulator, 0);
  }, () =>
    inResult((y) => {
      const { count } = at;
      if (count) eachRow((accumulator, offset) => vm.loadFirst(accumulator, y, offset, count));
      else emitResume(vm, accumulators, { y, rowStride });
    }));
  vm.free(resume);

  const x = args.pointer("scratch");
  vm.addInteger(x, x, at.position);
  const weight = vm.integer();
  vm.moveInteger(weight, at.gradY);
  const tiles = args.integer("tiles");
  const strides = { x: panelFeatures * 4, weightRow: tile * 4, weightDepth: 4 };
  vm.repeat(tiles, () => {
    const fours = vm.integer();
    vm.setInteger(fours, tile / 4);
    vm.repeat(fours, () => emitProducts(vm, accumulators, x, weight, strides, 4));
    vm.free(fours);
    vm.addInteger(weight, weight, (rows - 1) * tile * 4);
  });
  vm.free(x, weight, tiles);

  inResult((y) => {
    const { count } = at;
    if (count) eachRow((accumulator, offset) => vm.storeFirst(y, offset, accumulator, count));
    else emitStore(vm, accumulators, { y, rowStride });
  });
  vm.free(...accumulators.flat());
}
