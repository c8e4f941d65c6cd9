/**
 * Bringing a pruned matrix into the order of the sparse kernels, on a worker: what is left of its weights and moments
 * moves to the front of their places, and what the kernels must know of its zeros is written beside.
 * @module
 */
import { Scratch } from "../core/scratch.ts";
import type { PackedStructure, SparsePattern } from "../kernels/sparse_matmul/pack.ts";
import { type Cut, takeStored, trainingStructure } from "../kernels/sparse_matmul/training_structure.ts";
import type { Task } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { bitsetWords } from "../pruning/bitset.ts";

/** Where a matrix and what belongs to it lie. Addresses are bytes from the arena's start. */
export interface MatrixPlace {
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly depth: number;
  /** Weights and the optimiser's states, each rows · depth f32. */
  readonly states: readonly number[];
  /** The bits of the weights that are kept, row-major in 32-bit words. */
  readonly mask: number;
}

/** A matrix to compact, and how. */
export interface CompactRequest extends MatrixPlace {
  readonly pattern: SparsePattern;
  readonly cut: Cut;
  readonly transposedCut: Cut;
  /** Room for what a `CompactMatrix` tells the addresses of. */
  readonly room: number;
  readonly roomBytes: number;
}

/** A compact matrix: its values lie at the front of the dense ones' places. */
export interface CompactMatrix {
  readonly structure: PackedStructure;
  readonly transposed?: PackedStructure;
  /** i32 [stored values]: where each belongs in the dense matrix, −1 for none. */
  readonly positions: number;
  /** Operands of `sparseMatmul`. */
  readonly indices: number;
  readonly transposedIndices: number;
  readonly permutation: number;
}

/** For the array at hand. */
const scratch = new Scratch();

/** The order depends on mask and cuts alone, so that it is the same when a run is resumed. */
export const task: Task<CompactRequest, CompactMatrix> = {
  name: "compactMatrix",
  run(memory, { rows, depth, states, pattern, cut, transposedCut, mask: maskAddress, room, roomBytes }) {
    const mask = new Uint32Array(memory.buffer, maskAddress, bitsetWords(rows * depth)).slice();
    const found = trainingStructure({ rows, depth, mask, pattern, cut, transposedCut });
    let end = room;
    const write = (array?: Int32Array | Uint8Array) => {
      const address = end;
      if (!array) return address;
      end = alignUp(end + array.byteLength);
      if (end > room + roomBytes) {
        throw new RangeError(`Cannot compact ${rows} × ${depth}: it takes more than ${roomBytes} bytes`);
      }
      new Uint8Array(memory.buffer, address, array.byteLength)
        .set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      return address;
    };
    const compact: CompactMatrix = {
      structure: found.structure,
      transposed: found.transposed?.structure,
      positions: write(found.positions),
      indices: write(found.indices),
      transposedIndices: write(found.transposed?.indices),
      permutation: write(found.transposed?.permutation),
    };
    for (const address of states) {
      const dense = scratch.copy(new Float32Array(memory.buffer, address, rows * depth));
      takeStored(dense, found.positions, new Float32Array(memory.buffer, address, found.positions.length));
    }
    return compact;
  },
};

/** Bytes of room that are enough for so many weights, however they lie. */
export function roomFor(
  { rows, depth }: Pick<MatrixPlace, "rows" | "depth">,
  weights: number,
  { cut, transposedCut }: Pick<CompactRequest, "cut" | "transposedCut">,
): number {
  const lists = 2 * alignUp(4 * weights);
  return lists + alignUp(indexBound(rows, depth, weights, cut)) +
    alignUp(indexBound(depth, rows, weights, transposedCut));
}

/** Bytes that indices take at most: see `pack.ts` for what is stored. */
function indexBound(rows: number, depth: number, weights: number, { panelInputs, blockRows }: Cut): number {
  const panels = Math.ceil(depth / (panelInputs ?? depth));
  const blocks = Math.ceil(rows / (blockRows ?? 4));
  const chunks = Math.ceil(weights / 16) + 3 * rows * panels;
  return 2 * (weights + chunks + 16 * blocks * panels);
}
