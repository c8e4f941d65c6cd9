/**
 * Dividing a sparse product among workers by the weights that are stored.
 * @module
 */
import { splitRange } from "../../graph/operation.ts";
import type { Range } from "../matmul/shares.ts";

/** One worker's output blocks and column tiles. */
export interface BlockShare {
  readonly blocks: Range;
  readonly tiles: Range;
}

/**
 * A share per worker, in a grid of block ranges × tile ranges. Block ranges hold nearly equal numbers of entries.
 *
 * Of the grids with as many cells as workers, the one whose largest cell has the fewest entry–tile pairs; among equals
 * the one with the most block ranges, because a worker then reads fewer weights.
 */
export function splitBlocks(blockEntries: readonly number[], tiles: number, workers: number): BlockShare[] {
  let best: { blocks: Range[]; tileParts: number; largest: number } | undefined;
  for (let blockParts = workers; blockParts >= 1; blockParts--) {
    if (workers % blockParts !== 0) continue;
    const blocks = splitByEntries(blockEntries, blockParts);
    const tileParts = workers / blockParts;
    const largest = Math.ceil(tiles / tileParts) *
      Math.max(...blocks.map(({ begin, end }) => blockEntries[end] - blockEntries[begin]));
    if (!best || largest < best.largest) best = { blocks, tileParts, largest };
  }
  const tileRanges = splitRange(tiles, best!.tileParts);
  return best!.blocks.flatMap((blocks) => tileRanges.map((range) => ({ blocks, tiles: range })));
}

/** Cuts the blocks into `parts` ranges, each border where the entries before it are nearest to their share. */
function splitByEntries(blockEntries: readonly number[], parts: number): Range[] {
  const blockCount = blockEntries.length - 1;
  const borders = [0];
  for (let part = 1; part < parts; part++) {
    const wanted = blockEntries[blockCount] * part / parts;
    let border = borders[part - 1];
    const distance = (block: number) => Math.abs(blockEntries[block] - wanted);
    while (border < blockCount && distance(border + 1) <= distance(border)) border++;
    borders.push(border);
  }
  borders.push(blockCount);
  return Array.from({ length: parts }, (_, part) => ({ begin: borders[part], end: borders[part + 1] }));
}
