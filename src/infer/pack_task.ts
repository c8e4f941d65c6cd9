/**
 * Packing one matrix on a worker. Its values have been read to the place of the packed ones, which has room for them;
 * they are put in order there.
 * @module
 */
import { Scratch } from "../core/scratch.ts";
import { type PackedStructure, writePacked } from "../kernels/sparse_matmul/pack.ts";
import type { Task } from "../plan/executor.ts";
import type { StoredMatrix } from "../checkpoint/sparse_bitmask.ts";

/** A matrix to pack. */
export interface PackRequest extends Pick<StoredMatrix, "shape" | "bitmask" | "nonZeros"> {
  readonly structure: PackedStructure;
  /** Where the packed matrix shall lie, and its values lie now, row after row. */
  readonly address: number;
}

/** Values of the matrix at hand. */
const scratch = new Scratch();

/** See above. */
export const task: Task<PackRequest, void> = {
  name: "packMatrix",
  run({ buffer }, { shape, bitmask, nonZeros, structure, address }) {
    const values = scratch.copy(new Float32Array(buffer, address, nonZeros));
    writePacked(structure, { shape, bitmask, values }, new Uint8Array(buffer, address, structure.byteLength));
  },
};
