/**
 * Places buffers with known lifetimes into one range of memory so that buffers alive at the same time never overlap.
 * @module
 */

/** A buffer and the closed interval of phases in which its content matters. */
export interface BufferLifetime {
  readonly bytes: number;
  readonly firstPhase: number;
  readonly lastPhase: number;
}

/** Offsets by buffer, and the size of the range that holds them all. */
export interface MemoryLayout {
  readonly offsets: readonly number[];
  readonly totalBytes: number;
}

/** Buffers start at cache lines, which are also whole AVX-512 vectors. */
export const bufferAlignment = 64;

/** Rounds up to a multiple. */
export function alignUp(value: number, multiple: number = bufferAlignment): number {
  return Math.ceil(value / multiple) * multiple;
}

/**
 * Greedy by size: the largest buffer first, each at the lowest offset that is free during its whole lifetime.
 * Within a few percent of the lower bound on encoder graphs, and deterministic.
 */
export function layoutBuffers(buffers: readonly BufferLifetime[]): MemoryLayout {
  const offsets = new Array<number>(buffers.length).fill(0);
  const placed: number[] = [];
  let totalBytes = 0;
  const bySize = buffers.map((_, index) => index).sort((a, b) =>
    buffers[b].bytes - buffers[a].bytes || a - b
  );
  for (const index of bySize) {
    const buffer = buffers[index];
    const size = alignUp(buffer.bytes);
    let offset = 0;
    // `placed` is kept in order of offset, so one pass finds the first gap that is long enough.
    for (const other of placed) {
      const neighbour = buffers[other];
      if (neighbour.lastPhase < buffer.firstPhase || neighbour.firstPhase > buffer.lastPhase) continue;
      if (offset + size <= offsets[other]) break;
      offset = Math.max(offset, offsets[other] + alignUp(neighbour.bytes));
    }
    offsets[index] = offset;
    const position = placed.findIndex((other) => offsets[other] > offset);
    placed.splice(position < 0 ? placed.length : position, 0, index);
    totalBytes = Math.max(totalBytes, offset + size);
  }
  return { offsets, totalBytes };
}
