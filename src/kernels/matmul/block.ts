/**
 * The register block under every product: rows × vectors accumulators that stay in registers while the depth
 * runs. One weight is broadcast and multiplies a row of columns.
 *
 * Blocks, tails and panels never change a result: each output element is the sum of its products in the order
 * of the depth, one `fma` at a time, and passing through memory between two panels does not round an f32.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { emitGelu } from "../emit_math.ts";
import type { Activation } from "./reference.ts";

/** Size of a register block: output rows, and vectors of columns. */
export interface Block {
  readonly rows: number;
  readonly vectors: number;
}

/** Temporaries `emitGelu` takes while all accumulators are live. */
export const geluTemporaries = 5;

/**
 * The block of at most `maximumRows` with the fewest loads per fma that fits the registers. Its `vectors` divide
 * `vectorsPerRow`. Eight accumulators hide a latency of four cycles at two fmas a cycle; more only save loads.
 */
export function chooseBlock(
  { vectorRegisters, vectorsPerRow, activation, maximumRows }: {
    readonly vectorRegisters: number;
    readonly vectorsPerRow: number;
    readonly activation: Activation;
    readonly maximumRows: number;
  },
): Block {
  let best: Block = { rows: 1, vectors: 1 };
  const loadsPerFma = ({ rows, vectors }: Block) => (rows + vectors) / (rows * vectors);
  for (let vectors = 1; vectors <= vectorsPerRow; vectors++) {
    if (vectorsPerRow % vectors !== 0) continue;
    for (let rows = 1; rows <= maximumRows; rows++) {
      // Beside the accumulators: a row of x and one weight while summing, the temporaries of the activation after.
      const others = Math.max(vectors + 1, activation === "gelu" ? geluTemporaries : 0);
      if (rows * vectors + others > vectorRegisters) break;
      if (loadsPerFma({ rows, vectors }) < loadsPerFma(best)) best = { rows, vectors };
    }
  }
  return best;
}

/** Takes the accumulators of a block, [row][vector]. */
export function takeAccumulators(vm: VectorMachine, { rows, vectors }: Block): Vector[][] {
  return Array.from({ length: rows }, () => Array.from({ length: vectors }, () => vm.vector()));
}

/** Distances in bytes between the operands of a block. */
export interface BlockStrides {
  /** Between two depths of x. */
  readonly x: number;
  /** Between two rows of the weight. */
  readonly weightRow: number;
  /** Between two depths of the weight. */
  readonly weightDepth: number;
}

/**
 * accumulators[r][v] += weight[r, k] · x[k, v] for the next `count` depths; moves both pointers on.
 *
 * Both pointers move at every depth, so that a loop uses few different constant offsets: V8 keeps memory base + offset
 * in a register per distinct offset, and spills them when an unrolled loop has many. At 6 × 2 that was measured
 * as 80 % of peak against 66 %. Over a single vector a weight is used once, and loaded where it is used: 12 % faster.
 */
export function emitProducts(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  x: Integer,
  weight: Integer,
  strides: BlockStrides,
  count: number,
): void {
  const columns = accumulators[0].map(() => vm.vector());
  const broadcast = columns.length > 1 ? vm.vector() : undefined;
  for (let k = 0; k < count; k++) {
    columns.forEach((vector, v) => vm.load(vector, x, v * vm.lanes * 4));
    accumulators.forEach((row, r) => {
      if (broadcast) {
        vm.broadcast(broadcast, weight, r * strides.weightRow);
        row.forEach((accumulator, v) => vm.fma(accumulator, broadcast, columns[v]));
      } else {
        vm.fmaBroadcast(row[0], columns[0], weight, r * strides.weightRow);
      }
    });
    vm.addInteger(x, x, strides.x);
    vm.addInteger(weight, weight, strides.weightDepth);
  }
  vm.free(...columns, ...(broadcast ? [broadcast] : []));
}

/**
 * Asks for what the next block of rows will read where this one is now: the hardware foresees no jump between rows. Those
 * of a weight lie `depth` weights apart, most of a page or several; those of gradY, which the weight gradient broadcasts,
 * a tile of columns (256 bytes for 64). On AVX-512 with 512 columns the weight gradient went from 82 to 86 % of peak, the
 * product of 768 × 3072 from 87 to 90 %, and with 128 columns from 82 to 90 %.
 *
 * Over a single vector of columns a turn is too short for it: 16 columns lost 14 %.
 */
export function prefetchNextRows(
  vm: VectorMachine,
  { rows, vectors }: Block,
  weight: Integer,
  rowStride: number,
): void {
  if (vectors === 1) return;
  for (let r = 0; r < rows; r++) vm.prefetch(weight, (rows + r) * rowStride);
}

/** Where a block's results begin and end. Absent addresses stand for operands that were left out. */
export interface BlockEnds {
  /** First result of the block. */
  readonly y: Integer;
  /** Bytes between two rows of y and of the addend. */
  readonly rowStride: number;
  /** First bias of the block. */
  readonly bias: Integer | undefined;
  /** First addend of the block. */
  readonly addend: Integer | undefined;
  readonly activation: Activation;
}

/** accumulators = bias, plus the addend when there is no activation between the two. */
export function emitStart(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  { rowStride, bias, addend, activation }: BlockEnds,
): void {
  const addendFirst = addend !== undefined && activation === "none";
  accumulators.forEach((row, r) => {
    if (addendFirst) {
      row.forEach((accumulator, v) => vm.load(accumulator, addend, r * rowStride + v * vm.lanes * 4));
      if (!bias) return;
      const broadcast = vm.vector();
      vm.broadcast(broadcast, bias, r * 4);
      for (const accumulator of row) vm.add(accumulator, accumulator, broadcast);
      vm.free(broadcast);
    } else if (bias) {
      vm.broadcast(row[0], bias, r * 4);
      for (const accumulator of row.slice(1)) vm.move(accumulator, row[0]);
    } else {
      for (const accumulator of row) vm.constantF32(accumulator, 0);
    }
  });
}

/** accumulators = what an earlier panel of the depth left in y. */
export function emitResume(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  { y, rowStride }: Pick<BlockEnds, "y" | "rowStride">,
): void {
  accumulators.forEach((row, r) =>
    row.forEach((accumulator, v) => vm.load(accumulator, y, r * rowStride + v * vm.lanes * 4))
  );
}

/** accumulators = gelu(accumulators) + addend; nothing for activation `none`, which `emitStart` has completed. */
export function emitActivation(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  { rowStride, addend, activation }: BlockEnds,
): void {
  if (activation === "none") return;
  accumulators.forEach((row, r) =>
    row.forEach((accumulator, v) => {
      emitGelu(vm, accumulator, accumulator);
      if (!addend) return;
      const other = vm.vector();
      vm.load(other, addend, r * rowStride + v * vm.lanes * 4);
      vm.add(accumulator, accumulator, other);
      vm.free(other);
    })
  );
}

/** y = accumulators. */
export function emitStore(
  vm: VectorMachine,
  accumulators: readonly (readonly Vector[])[],
  { y, rowStride }: Pick<BlockEnds, "y" | "rowStride">,
): void {
  accumulators.forEach((row, r) =>
    row.forEach((accumulator, v) => vm.store(y, r * rowStride + v * vm.lanes * 4, accumulator))
  );
}

/** d += index · factor */
export function addMultiple(vm: VectorMachine, d: Integer, index: Integer, factor: number): void {
  const product = vm.integer();
  vm.multiplyInteger(product, index, factor);
  vm.addInteger(d, d, product);
  vm.free(product);
}
