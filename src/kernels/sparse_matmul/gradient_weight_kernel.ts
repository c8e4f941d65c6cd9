/**
 * The gradient of the stored weights: a product of two dense matrices, sampled where a weight is stored.
 *
 * Columns lie in the lanes of both operands, so every sum ends with a reduction over lanes. For each group of entries
 * of a chunk the kernel therefore passes over all columns of the call before it reduces: the entries' sums are in
 * registers, the row of gradY (four rows with `4x1`) is loaded once for all of them, and rows of x come from memory,
 * from the second-level cache as a rule, each vector once.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";
import { type ArgumentReader, defineKernel, type Kernel } from "../kernel.ts";
import { takeAccumulators } from "../matmul/block.ts";
import {
  chooseVectors,
  emitWalk,
  rowAddress,
  type WalkChunk,
  type WalkConstants,
  walkKey,
} from "./gradient_walk.ts";
import { groupRows } from "./pack.ts";

/** What is baked into the code. */
export interface SparseWeightGradientConstants extends WalkConstants {
  /** Most entries of a pass over the columns. */
  readonly entries: number;
  /** Whether the sums are added to what an earlier call left. */
  readonly resume: boolean;
}

const sparseWeightGradientArguments = {
  /** First row of the output block, first tile. */
  gradY: "pointer",
  /** First tile of x. */
  x: "pointer",
  /** First index of the output block. */
  indices: "pointer",
  /** Gradient of the output block's first value. */
  gradValues: "pointer",
  /** Tiles of columns, at least one. */
  tiles: "integer",
} as const;

/** Arguments of the kernel. */
export type SparseWeightGradientArguments = typeof sparseWeightGradientArguments;

/**
 * The constants for a machine: up to 16 entries of single weights or four of blocks, as its registers allow. Fewer read
 * gradY more often: on AVX-512, 768 × 3072 at 90 % zeros, 512 columns, 16, 8 and 4 single ones took 6.0, 6.2 and 6.4 ms,
 * 4, 2 and 1 blocks 3.7, 4.3 and 5.2.
 */
export function sparseWeightGradientConstants(
  shape: Omit<SparseWeightGradientConstants, "vectors" | "entries">,
  machine: { readonly lanes: number; readonly vectorRegisters: number },
): SparseWeightGradientConstants {
  const height = groupRows(shape.pattern);
  const isWide = machine.vectorRegisters >= 32;
  const entries = height === 1 ? (isWide ? 16 : 8) : (isWide ? 4 : 2);
  const vectors = chooseVectors(
    { tile: shape.tile, most: 4 },
    machine,
    // The sums, rows of gradY, and a vector of x where it serves several rows.
    (vectors) => height * (entries + vectors) + (height > 1 ? 1 : 0),
  );
  return { ...shape, vectors, entries };
}

const kernels = new Map<string, Kernel<SparseWeightGradientArguments>>();

/**
 * gradValues[e] (+)= Σ_c gradY[row(e), c] · x[input(e), c] for the stored weights of an output block.
 *
 * Shapes:   gradY tiled [rows, …], x tiled [depth, …], gradValues in the order of the packed values.
 * Requires: nothing overlaps; the tile is a power of two.
 * Numerics: f32 sums lane by lane in the order of the columns, one fma each, then over lanes. The gradient of a value
 *           that belongs to no row, in a last incomplete group of four, is 0.
 * Cost:     2 · stored weights · columns operations; a call reads a row of x for each entry, and gradY once a chunk.
 */
export function sparseWeightGradientKernel(
  constants: SparseWeightGradientConstants,
): Kernel<SparseWeightGradientArguments> {
  const key = `sparse_matmul_weight_gradient_f32_${walkKey(constants)}_entries${constants.entries}` +
    (constants.resume ? "_resume" : "");
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      key,
      arguments: sparseWeightGradientArguments,
      emit: (vm, args) => emitWeightGradient(vm, args, constants),
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

function emitWeightGradient(
  vm: VectorMachine,
  args: ArgumentReader<SparseWeightGradientArguments>,
  constants: SparseWeightGradientConstants,
): void {
  const { entries: most, resume } = constants;
  const height = groupRows(constants.pattern);
  const x = args.pointer("x");
  const indices = args.pointer("indices");
  const gradValues = args.pointer("gradValues");
  emitWalk(vm, constants, { inputs: x, indices, gradY: () => args.pointer("gradY") }, (chunk) => {
    chunk.entries(most, (count) => {
      const sums = takeAccumulators(vm, { rows: count, vectors: chunk.rows });
      for (const sum of sums.flat()) vm.constantF32(sum, 0);
      const [xTile, gradTile] = [vm.integer(), vm.integer()];
      vm.moveInteger(xTile, x);
      vm.moveInteger(gradTile, chunk.gradRow);
      const tiles = args.integer("tiles");
      vm.repeat(tiles, () => {
        emitTile(vm, constants, chunk, sums, { x: xTile, gradY: gradTile, indices });
        vm.addInteger(xTile, xTile, constants.depth * constants.tile * 4);
        vm.addInteger(gradTile, gradTile, constants.rows * constants.tile * 4);
      });
      vm.free(xTile, gradTile, tiles);
      sums.forEach((entry, e) => {
        for (let r = 0; r < height; r++) {
          const offset = (e * height + r) * 4;
          if (r < chunk.rows) emitSum(vm, entry[r], gradValues, offset, resume);
          else emitZero(vm, gradValues, offset);
        }
      });
      vm.free(...sums.flat());
      vm.addInteger(gradValues, gradValues, count * height * 4);
    });
  });
  vm.free(x, indices, gradValues);
}

/** sums[e][r] += gradY[r] · x[input(e)] lane by lane over a tile. */
function emitTile(
  vm: VectorMachine,
  { tile, vectors }: SparseWeightGradientConstants,
  { rows }: WalkChunk,
  sums: readonly (readonly Vector[])[],
  at: { readonly x: Integer; readonly gradY: Integer; readonly indices: Integer },
): void {
  const vectorBytes = vm.lanes * 4;
  const gradients = takeAccumulators(vm, { rows, vectors });
  for (let strip = 0; strip < tile * 4; strip += vectors * vectorBytes) {
    gradients.forEach((row, r) =>
      row.forEach((vector, v) => vm.load(vector, at.gradY, r * tile * 4 + strip + v * vectorBytes))
    );
    sums.forEach((entry, e) => {
      const input = vm.integer();
      vm.moveInteger(input, at.x);
      rowAddress(vm, at.indices, 2 * e, input, tile);
      for (let v = 0; v < vectors; v++) {
        const offset = strip + v * vectorBytes;
        if (rows === 1) {
          vm.fmaLoad(entry[0], gradients[0][v], input, offset);
        } else {
          const column = vm.vector();
          vm.load(column, input, offset);
          entry.forEach((sum, r) => vm.fma(sum, gradients[r][v], column));
          vm.free(column);
        }
      }
      vm.free(input);
    });
  }
  vm.free(...gradients.flat());
}

/** Stores the sum over the lanes. */
function emitSum(vm: VectorMachine, sum: Vector, target: Integer, offset: number, resume: boolean): void {
  vm.sumLanes(sum, sum);
  if (resume) {
    const before = vm.vector();
    vm.broadcast(before, target, offset);
    vm.add(sum, before, sum);
    vm.free(before);
  }
  vm.storeLane0(target, offset, sum);
}

function emitZero(vm: VectorMachine, target: Integer, offset: number): void {
  const zero = vm.vector();
  vm.constantF32(zero, 0);
  vm.storeLane0(target, offset, zero);
  vm.free(zero);
}
