/**
 * Which Fisher matrices are in memory at the same time, where there is not memory for all.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { formatBytes } from "../core/memory.ts";

/** Matrices that are in memory together: one list for each arena. */
export type Wave<T> = readonly (readonly T[])[];

/** What there is to share out, and where. */
export interface WaveRequest<T> {
  readonly matrices: readonly T[];
  readonly bytesOf: (matrix: T) => number;
  readonly nameOf: (matrix: T) => string;
  /** Bytes of all arenas together. */
  readonly budget: number;
  /** Bytes that an arena can have. */
  readonly arenaBytes: number;
}

/**
 * Deals out matrices to as few waves as their order allows, each to the first arena with room for it. Throws `InputError`
 * when one alone is too large.
 */
export function planWaves<T>({ matrices, bytesOf, nameOf, budget, arenaBytes }: WaveRequest<T>): Wave<T>[] {
  const rooms: number[] = [];
  for (let left = budget; left > 0; left -= arenaBytes) rooms.push(Math.min(left, arenaBytes));
  const waves: T[][][] = [];
  let left: number[] = [];
  for (const matrix of matrices) {
    const bytes = bytesOf(matrix);
    if (!(bytes <= (rooms[0] ?? 0))) {
      throw new InputError(
        `The Fisher matrix of ${nameOf(matrix)} takes ${formatBytes(bytes)}, and there are ${
          formatBytes(Math.max(0, rooms[0] ?? 0))
        } for it: take smaller Fisher blocks`,
      );
    }
    let arena = left.findIndex((room) => bytes <= room);
    if (arena < 0) {
      left = [...rooms];
      waves.push(rooms.map(() => []));
      arena = 0;
    }
    waves.at(-1)![arena].push(matrix);
    left[arena] -= bytes;
  }
  return waves.map((wave) => wave.filter((list) => list.length > 0));
}
