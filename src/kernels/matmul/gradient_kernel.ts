/**
 * The weight gradient kernel: a product over columns, computed as the forward product is.
 *
 * Columns lie in the lanes of both operands, so a direct product would end every sum with a reduction over lanes.
 * Instead a panel of x (`panelFeatures` × `panelColumns`) is transposed into scratch memory, where features lie in the
 * lanes; then gradY is broadcast like a weight, and sums need no reduction. Transposing is paid back by every row of
 * gradY.
 *
 * Sums wait for the next panel of columns in scratch memory too, where they are contiguous. The rows of the result lie
 * pages apart: writing a few cache lines of each took 5 to 13 % of the time of 128 columns, so that happens once.
 * @module
 */
import type { Integer, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import {
  addMultiple,
  type Block,
  chooseBlock,
  emitProducts,
  emitResume,
  emitStore,
  prefetchNextRows,
  takeAccumulators,
} from "./block.ts";

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
  /** Rows a call may compute: a multiple of the block's. */
  readonly panelRows: number;
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
  /** Full blocks of rows, with the rows after them at most `panelRows`. */
  blocks: "integer",
  /** Rows after them. */
  singles: "integer",
  /** Features of x. */
  features: "integer",
  /** Tiles of columns. */
  tiles: "integer",
} as const;

/** Arguments of the weight gradient kernel. */
export type WeightGradientArguments = typeof weightGradientArguments;

/** Columns transposed at once, when the tile is not larger: with 64 features they fill an L1 cache of 32 KiB. */
const panelColumns = 128;

/** Rows whose sums wait at once: with 64 features they take 192 KiB of the L2 cache. */
const waitingRows = 768;

/** Tiles of a panel of columns. */
function panelTiles({ tile }: WeightGradientConstants): number {
  return Math.max(1, Math.floor(panelColumns / tile));
}

/** Bytes of scratch memory before the waiting sums: a panel of x. */
function transposedBytes(constants: WeightGradientConstants): number {
  return panelTiles(constants) * constants.tile * constants.panelFeatures * 4;
}

/** Bytes of scratch memory a call needs. */
export function weightGradientScratchBytes(constants: WeightGradientConstants): number {
  return transposedBytes(constants) + constants.panelRows * constants.panelFeatures * 4;
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
  return { ...shape, block, panelFeatures, panelRows: block.rows * Math.floor(waitingRows / block.rows) };
}

const kernels = new Map<string, Kernel<WeightGradientArguments>>();

/**
 * gradWeight[n, k] = Σ_c gradY[n, c] · x[k, c] for a range of rows n, features k and tiles of columns.
 *
 * Shapes:   gradY tiled [rows, …], x tiled [depth, …], gradWeight [rows, depth] row-major.
 * Requires: nothing overlaps.
 * Numerics: f32 sums in the order of the columns, one fma each.
 * Cost:     2 · rows · features · columns operations; a call reads its gradY once per `panelFeatures` features, and x once.
 */
export function weightGradientKernel(constants: WeightGradientConstants): Kernel<WeightGradientArguments> {
  const { rows, depth, tile, block, panelFeatures, panelRows } = constants;
  const key = `matmul_weight_gradient_f32_${rows}x${depth}_tile${tile}` +
    `_block${block.rows}x${block.vectors}_panel${panelRows}x${panelFeatures}`;
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
  const { rows, depth, tile, block, panelFeatures } = constants;
  const features = args.integer("features");
  const feature = vm.integer();
  vm.forRange(feature, 0, features, panelFeatures, () => {
    const tiles = args.integer("tiles");
    const firstTile = vm.integer();
    vm.forRange(firstTile, 0, tiles, panelTiles(constants), () => {
      const place = { features, feature, tiles, firstTile };
      emitTranspose(vm, args, constants, place);
      const gradY = args.pointer("gradY");
      addMultiple(vm, gradY, firstTile, rows * tile * 4);
      const sums = sumsAt(vm, args, constants);
      const result = resultAt(vm, args, feature);
      for (const blockRows of [block.rows, 1]) {
        const count = args.integer(blockRows === 1 ? "singles" : "blocks");
        vm.repeat(count, () => {
          const shape = { rows: blockRows, vectors: block.vectors };
          for (let vector = 0; vector * vm.lanes < panelFeatures; vector += block.vectors) {
            emitSums(vm, args, constants, shape, {
              ...place,
              gradY,
              sums,
              result,
              offset: vector * vm.lanes * 4,
            });
          }
          vm.addInteger(gradY, gradY, blockRows * tile * 4);
          vm.addInteger(sums, sums, blockRows * panelFeatures * 4);
          vm.addInteger(result, result, blockRows * depth * 4);
        });
        vm.free(count);
      }
      vm.free(gradY, sums, result);
    });
    vm.free(tiles, firstTile);
    emitLastFeatures(vm, args, constants, features, feature);
  });
  vm.free(feature, features);
}

/** The panels a call is at. */
interface PanelPlace {
  readonly features: Integer;
  /** First of the panel. */
  readonly feature: Integer;
  readonly tiles: Integer;
  /** First of the panel of columns. */
  readonly firstTile: Integer;
}

/** Where the sums of the first row wait, in a fresh register. */
function sumsAt(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  constants: WeightGradientConstants,
): Integer {
  const sums = args.pointer("scratch");
  vm.addInteger(sums, sums, transposedBytes(constants));
  return sums;
}

/** Where the results of the first row and a panel of features begin, in a fresh register. */
function resultAt(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  feature: Integer,
): Integer {
  const result = args.pointer("gradWeight");
  addMultiple(vm, result, feature, 4);
  return result;
}

/** The tiles of the panel of columns, in a fresh register. */
function tilesOfPanel(
  vm: VectorMachine,
  constants: WeightGradientConstants,
  { tiles, firstTile }: PanelPlace,
): Integer {
  const count = vm.integer();
  vm.subtractInteger(count, tiles, firstTile);
  const most = panelTiles(constants);
  vm.when(count, "greater", most, () => vm.setInteger(count, most));
  return count;
}

/**
 * scratch[column, f] = x[feature + f, column] for the features there are. Columns of the rest keep what they had: their
 * sums go nowhere.
 */
function emitTranspose(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  constants: WeightGradientConstants,
  place: PanelPlace,
): void {
  const { depth, tile, panelFeatures } = constants;
  const rowBytes = tile * 4;
  const source = args.pointer("x");
  const target = args.pointer("scratch");
  addMultiple(vm, source, place.feature, rowBytes);
  addMultiple(vm, source, place.firstTile, depth * rowBytes);
  const tiles = tilesOfPanel(vm, constants, place);
  vm.repeat(tiles, () => {
    const from = vm.integer();
    const to = vm.integer();
    const left = vm.integer();
    vm.moveInteger(from, source);
    vm.moveInteger(to, target);
    vm.subtractInteger(left, place.features, place.feature);
    vm.when(left, "greater", panelFeatures, () => vm.setInteger(left, panelFeatures));
    vm.shiftRightInteger(left, left, 2);
    vm.repeat(left, () => {
      const rows = [vm.vector(), vm.vector(), vm.vector(), vm.vector()] as const;
      for (let column = 0; column < tile; column += vm.lanes) {
        rows.forEach((row, j) => vm.load(row, from, j * rowBytes + column * 4));
        vm.storeColumns(to, column * panelFeatures * 4, panelFeatures * 4, rows);
      }
      vm.free(...rows);
      vm.addInteger(from, from, 4 * rowBytes);
      vm.addInteger(to, to, 16);
    });
    // Up to three features are left when the panel is the last.
    vm.subtractInteger(left, place.features, place.feature);
    vm.when(left, "less", panelFeatures, () => {
      const value = vm.integer();
      vm.andInteger(left, left, 3);
      vm.repeat(left, () => {
        for (let column = 0; column < tile; column++) {
          vm.loadI32(value, from, column * 4);
          vm.storeI32(to, column * panelFeatures * 4, value);
        }
        vm.addInteger(from, from, rowBytes);
        vm.addInteger(to, to, 4);
      });
      vm.free(value);
    });
    vm.free(from, to, left);
    vm.addInteger(source, source, depth * rowBytes);
    vm.addInteger(target, target, tile * panelFeatures * 4);
  });
  vm.free(source, target, tiles);
}

/** One register block over a panel of columns. */
function emitSums(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  constants: WeightGradientConstants,
  shape: Block,
  at: PanelPlace & {
    readonly gradY: Integer;
    readonly sums: Integer;
    readonly result: Integer;
    /** Bytes from the panel's first feature to the block's. */
    readonly offset: number;
  },
): void {
  const { rows, depth, tile, panelFeatures } = constants;
  const accumulators = takeAccumulators(vm, shape);
  const withOffset = (base: Integer, body: (address: Integer) => void) => {
    const address = vm.integer();
    vm.addInteger(address, base, at.offset);
    body(address);
    vm.free(address);
  };
  const waiting = panelFeatures * 4;

  vm.when(at.firstTile, "equal", 0, () => {
    for (const accumulator of accumulators.flat()) vm.constantF32(accumulator, 0);
  }, () => withOffset(at.sums, (y) => emitResume(vm, accumulators, { y, rowStride: waiting })));

  const x = args.pointer("scratch");
  vm.addInteger(x, x, at.offset);
  const weight = vm.integer();
  vm.moveInteger(weight, at.gradY);
  const tiles = tilesOfPanel(vm, constants, at);
  const strides = { x: waiting, weightRow: tile * 4, weightDepth: 4 };
  vm.repeat(tiles, () => {
    const fours = vm.integer();
    vm.setInteger(fours, tile / 4);
    vm.repeat(fours, () => {
      emitProducts(vm, accumulators, x, weight, strides, 4);
      prefetchNextRows(vm, shape, weight, strides.weightRow);
    });
    vm.free(fours);
    vm.addInteger(weight, weight, (rows - 1) * tile * 4);
  });
  vm.free(x, weight, tiles);

  const wait = () => withOffset(at.sums, (y) => emitStore(vm, accumulators, { y, rowStride: waiting }));
  const left = vm.integer();
  vm.subtractInteger(left, at.tiles, at.firstTile);
  vm.when(left, "greater", panelTiles(constants), wait, () => {
    vm.subtractInteger(left, at.features, at.feature);
    vm.when(
      left,
      "less",
      panelFeatures,
      wait,
      () => withOffset(at.result, (y) => emitStore(vm, accumulators, { y, rowStride: depth * 4 })),
    );
  });
  vm.free(left, ...accumulators.flat());
}

/** Moves the waiting sums of a panel that has fewer features than others to the result. */
function emitLastFeatures(
  vm: VectorMachine,
  args: ArgumentReader<WeightGradientArguments>,
  constants: WeightGradientConstants,
  features: Integer,
  feature: Integer,
): void {
  const { depth, block, panelFeatures } = constants;
  const width = vm.integer();
  vm.subtractInteger(width, features, feature);
  vm.when(width, "less", panelFeatures, () => {
    const sums = sumsAt(vm, args, constants);
    const result = resultAt(vm, args, feature);
    const rows = args.integer("blocks");
    vm.multiplyInteger(rows, rows, block.rows);
    const singles = args.integer("singles");
    vm.addInteger(rows, rows, singles);
    vm.free(singles);
    vm.repeat(rows, () => {
      const [from, to, left] = [vm.integer(), vm.integer(), vm.integer()];
      const vector = vm.vector();
      vm.moveInteger(from, sums);
      vm.moveInteger(to, result);
      vm.shiftRightInteger(left, width, Math.log2(vm.lanes));
      vm.repeat(left, () => {
        vm.load(vector, from, 0);
        vm.store(to, 0, vector);
        vm.addInteger(from, from, vm.lanes * 4);
        vm.addInteger(to, to, vm.lanes * 4);
      });
      vm.andInteger(left, width, vm.lanes - 1);
      vm.loadFirst(vector, from, 0, left);
      vm.storeFirst(to, 0, vector, left);
      vm.free(from, to, left, vector);
      vm.addInteger(sums, sums, panelFeatures * 4);
      vm.addInteger(result, result, depth * 4);
    });
    vm.free(sums, result, rows);
  });
  vm.free(width);
}
