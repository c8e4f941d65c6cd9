/**
 * Linear layers as text: kernel, tile, panel and block with what they take of which cache, each worker's share, why.
 * @module
 */
import type { PackedStructure } from "../kernels/sparse_matmul/pack.ts";
import { splitBlocks } from "../kernels/sparse_matmul/shares.ts";
import type { Cache } from "../machines/mod.ts";
import type { LayerChoice } from "./weights.ts";

/** The run that is described. */
export interface DescribedRun {
  /** Token columns, a multiple of the tile. */
  readonly columns: number;
  /** Columns of a tile. */
  readonly tile: number;
  /** Workers that share a layer. */
  readonly workers: number;
  /** Caches of the processor; empty where it cannot be asked. */
  readonly caches: readonly Cache[];
}

/** A line per layer. */
export function describeLayers(
  layers: readonly LayerChoice[],
  structures: ReadonlyMap<string, PackedStructure>,
  run: DescribedRun,
): string[] {
  return layers.map((layer) => {
    const { name, rows, columns, sparsity, kernel, reason } = layer;
    const structure = structures.get(name);
    return [
      `${name}  ${rows} × ${columns}  ${(sparsity * 100).toFixed(1)} % zeros  ${kernel}`,
      ...(structure
        ? describeBlocking(structure, run)
        : [`${kibibytes(layer.weightBytes)} of weights, ${fits(layer.weightBytes, run.caches)}`]),
      reason,
    ].join("; ");
  });
}

function describeBlocking(structure: PackedStructure, run: DescribedRun): string[] {
  const { panelInputs, blockRows, blockEntries, byteLength } = structure;
  const blocks = blockEntries.length - 1;
  const panelBytes = panelInputs * run.tile * 4;
  return [
    `panels of ${panelInputs} inputs (${kibibytes(panelBytes)} of x, ${fits(panelBytes, run.caches)})`,
    `${blocks} ${blocks === 1 ? "block" : "blocks"} of ${blockRows} rows ` +
    `(${kibibytes(byteLength / blocks)} of weights, ${fits(byteLength / blocks, run.caches)})`,
    `${kibibytes(byteLength)} in all, ${fits(byteLength, run.caches)}`,
    `shares ${shares(structure, run).map((share) => `${(share * 100).toFixed(1)} %`).join(" | ")}`,
  ];
}

/** The smallest cache that holds so much. */
function fits(bytes: number, caches: readonly Cache[]): string {
  const data = caches.filter(({ kind }) => kind !== "instruction");
  if (data.length === 0) return "caches unknown";
  const cache = data.find(({ sizeBytes }) => bytes <= sizeBytes);
  return cache ? `fits L${cache.level} of ${kibibytes(cache.sizeBytes)}` : "fits no cache";
}

/** Each worker's part of the multiplications. */
function shares({ blockEntries }: PackedStructure, { columns, tile, workers }: DescribedRun): number[] {
  const tiles = columns / tile;
  const total = Math.max(1, blockEntries.at(-1)! * tiles);
  return splitBlocks(blockEntries, tiles, workers).map((share) =>
    (blockEntries[share.blocks.end] - blockEntries[share.blocks.begin]) *
    (share.tiles.end - share.tiles.begin) / total
  );
}

function kibibytes(bytes: number): string {
  return bytes < 2 ** 20 ? `${(bytes / 1024).toFixed(0)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
