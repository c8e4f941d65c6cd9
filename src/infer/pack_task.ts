/**
 * Packing one matrix on a worker. Its values have been read to the place of the packed ones, which has room for them;
 * they are put in order there.
 * @module
 */
import { type PackedStructure, writePacked } from "../kernels/sparse_matmul/pack.ts";
import type { Task } from "../plan/executor.ts";
import type { StoredMatrix } from "../checkpoint/sparse_bitmask.ts";

/** A matrix to pack. */
export interface PackRequest extends Pick<StoredMatrix, "shape" | "bitmask" | "nonZeros"> {
  readonly structure: PackedStructure;
  /** Where the packed matrix shall lie, and its values lie now, row after row. */
  readonly address: number;
}

/** Values of the matrix at hand: memory used again, since fresh pages cost more than copying into old ones. */
let scratch = new Float32Array(0);

/** See above. */
export const task: Task<PackRequest, void> = {
  name: "packMatrix",
  run({ buffer }, { shape, bitmask, nonZeros, structure, address }) {
    if (scratch.length < nonZeros) scratch = new Float32Array(nonZeros);
    const values = scratch.subarray(0, nonZeros);
    values.set(new Float32Array(buffer, address, nonZeros));
    writePacked(structure, { shape, bitmask, values }, new Uint8Array(buffer, address, structure.byteLength));
  },
};
