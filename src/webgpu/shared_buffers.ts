/**
 * Lets values that never live at the same time take turns in one buffer.
 *
 * Unlike the arena of the CPU (`src/plan/memory.ts`), a buffer holds one value at a time: WebGPU refuses a call that reads
 * and writes the same buffer, wherever in it.
 * @module
 */
import { alignUp, type BufferLifetime } from "../plan/memory.ts";

/** Who takes turns in which buffer. */
export interface BufferSharing {
  readonly byteLengths: readonly number[];
  /** The buffer of each value, in the order of the values. */
  readonly assignment: readonly number[];
}

/** Buffers are whole ranges: those begin at multiples of it. */
const bufferGrain = 256;

/**
 * Greedy by size: the largest value first, each in the smallest buffer that is long enough and free during its whole life,
 * or in a new one. Deterministic.
 *
 * With `reuse`, a sharing that exists, the result begins with its buffers and adds others only when none fits. A value goes
 * where `reuse` had the value of that number if it can. So lifetimes that are the same with sizes that are no larger, as of a
 * smaller batch, need nothing more and come out assigned the same.
 */
export function shareBuffers(values: readonly BufferLifetime[], reuse?: BufferSharing): BufferSharing {
  const byteLengths = [...reuse?.byteLengths ?? []];
  const holders: BufferLifetime[][] = byteLengths.map(() => []);
  const assignment = new Array<number>(values.length);
  const bySize = [...values.keys()].sort((a, b) => values[b].bytes - values[a].bytes || a - b);
  for (const index of bySize) {
    const value = values[index];
    const fits = (buffer: number) =>
      byteLengths[buffer] >= value.bytes && !holders[buffer].some((holder) => overlap(holder, value));
    const candidates = [...byteLengths.keys()].filter(fits).sort((a, b) => byteLengths[a] - byteLengths[b]);
    const preferred = candidates.find((buffer) => buffer === reuse?.assignment[index]);
    let chosen = preferred ?? candidates[0];
    if (chosen === undefined) {
      chosen = byteLengths.push(alignUp(Math.max(value.bytes, 1), bufferGrain)) - 1;
      holders.push([]);
    }
    holders[chosen].push(value);
    assignment[index] = chosen;
  }
  return { byteLengths, assignment };
}

function overlap(a: BufferLifetime, b: BufferLifetime): boolean {
  return a.firstPhase <= b.lastPhase && b.firstPhase <= a.lastPhase;
}
