/**
 * The weights of a session in the form the kernels read: linear layers packed sparse where that is faster, the rest
 * dense.
 * @module
 */
import { bertTensorShapes } from "../../models/config.ts";
import { encodeBitmask } from "../checkpoint/sparse_bitmask.ts";
import type { Model } from "../checkpoint/model_folder.ts";
import { bytesOf } from "../checkpoint/safetensors.ts";
import { type PackedStructure, packSparseFromEntries } from "../kernels/sparse_matmul/pack.ts";
import { alignUp } from "../plan/memory.ts";
import { isPrunable } from "../pruning/sparsity.ts";

/** How one linear layer runs. */
export interface LayerChoice {
  /** Checkpoint name of the weight. */
  readonly name: string;
  /** Outputs. */
  readonly rows: number;
  /** Inputs. */
  readonly columns: number;
  /** Share of zeros. */
  readonly sparsity: number;
  /** What multiplies by it. */
  readonly kernel: "dense" | "unstructured" | "4x1";
  /** Why. */
  readonly reason: string;
  /** Bytes the kernel reads. */
  readonly weightBytes: number;
}

/** Weights ready to be copied into an arena. */
export interface LoadedWeights {
  /** Bytes by checkpoint name; empty after `release`. */
  readonly values: ReadonlyMap<string, { readonly bytes: Uint8Array; readonly byteLength: number }>;
  /** Structure of the layers that run sparse, by weight name. */
  readonly structures: ReadonlyMap<string, PackedStructure>;
  readonly layers: readonly LayerChoice[];
  /** Arena bytes, alignment included. */
  readonly totalBytes: number;
  /** Lets go of the bytes once they are in the arena; their lengths stay known. */
  release(): void;
}

/**
 * Densities (stored share of a matrix) below which the sparse kernels beat the dense one. Measured by
 * `bench --kernels` style sweeps in `src/kernels/sparse_matmul/sparse_matmul_bench.ts`.
 */
const breakEvenDensity = { "unstructured": 0.4, "4x1": 0.7 } as const;

/** A 4×1 block holds up to four weights; a matrix counts as pruned in blocks when they are this full on average. */
const blockFill = 0.9;

/** Reads all weights of a model and chooses a kernel for each prunable layer. */
export async function loadWeights(model: Model, options: { dense: boolean }): Promise<LoadedWeights> {
  const values = new Map<string, { bytes: Uint8Array; byteLength: number }>();
  const structures = new Map<string, PackedStructure>();
  const layers: LayerChoice[] = [];
  let totalBytes = 0;
  const put = (name: string, bytes: Uint8Array) => {
    values.set(name, { bytes, byteLength: bytes.length });
    totalBytes += alignUp(bytes.length);
  };
  for (const [name, shape] of bertTensorShapes(model.config)) {
    if (!isPrunable(name)) {
      put(name, bytesOf(await model.tensors.weight(name, shape)));
      continue;
    }
    const [rows, columns] = shape;
    const matrix = await model.tensors.sparse(name) ??
      encodeBitmask(await model.tensors.weight(name, shape), [rows, columns]);
    const density = matrix.values.length / (rows * columns);
    const blocks = options.dense ? undefined : packSparseFromEntries(matrix, { pattern: "4x1" });
    const inBlocks = blocks !== undefined &&
      matrix.values.length >= blockFill * 4 * blocks.structure.storedBlocks;
    const pattern = inBlocks ? "4x1" as const : "unstructured" as const;
    const isSparse = !options.dense && density < breakEvenDensity[pattern];
    if (isSparse) {
      const packed = inBlocks ? blocks! : packSparseFromEntries(matrix, { pattern: "unstructured" });
      structures.set(name, packed.structure);
      put(name, packed.bytes);
    } else {
      put(name, bytesOf(await model.tensors.weight(name, shape)));
    }
    layers.push({
      name,
      rows,
      columns,
      sparsity: 1 - density,
      kernel: isSparse ? pattern : "dense",
      reason: options.dense
        ? "dense was asked for"
        : `density ${density.toFixed(3)}, break-even of ${pattern} ${breakEvenDensity[pattern]}`,
      weightBytes: values.get(name)!.byteLength,
    });
  }
  const empty = new Uint8Array();
  return {
    values,
    structures,
    layers,
    totalBytes,
    release() {
      for (const value of values.values()) value.bytes = empty;
    },
  };
}
