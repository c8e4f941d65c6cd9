/**
 * The gradients of a linear layer with a pruned weight: of its stored weights, and of its activations.
 * @module
 */
import { describeType, sameType, tiled, type ValueType } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { sparseInputGradientConstants, sparseInputGradientKernel } from "./gradient_input_kernel.ts";
import { sparseWeightGradientConstants, sparseWeightGradientKernel } from "./gradient_weight_kernel.ts";
import { groupRows, type PackedStructure } from "./pack.ts";
import { sparseInputGradientReference, sparseWeightGradientReference } from "./reference.ts";
import { splitBlocks } from "./shares.ts";
import { packedTypes } from "./types.ts";

/** How the weight is packed. */
export interface SparseGradientAttributes {
  readonly structure: PackedStructure;
}

/**
 * Bytes of a panel of x that a call of the weight gradient passes over again and again, so the columns of a call. Few
 * columns keep the panel close, many save reductions over lanes, of which blocks have four for each row of x they read.
 * Milliseconds on one core, AVX-512, 768 × 3072 at 90 % zeros, 512 columns; panels of 128 inputs, for blocks of 384:
 *
 * | bytes  | 64 KiB | 128 KiB | 512 KiB | 1 MiB |
 * | ------ | ------ | ------- | ------- | ----- |
 * | single | 4.33   | 4.32    | 5.04    | 5.04  |
 * | 4x1    | 5.02   | 4.93    | 3.07    | 3.02  |
 */
const panelBytes = { "unstructured": 128 << 10, "4x1": 1 << 20 } as const;

/**
 * Inputs gradY tiled [N, C], x tiled [K, C], indices u8 [bytes]; result rows [stored values] =
 * Σ_c gradY[row, c] · x[input, c] in packed order.
 */
export const sparseMatmulWeightGradient: Operation<SparseGradientAttributes> = {
  name: "sparseMatmulWeightGradient",

  infer(inputs, { structure }) {
    const [gradY, x, indices] = inputs;
    const packed = packedTypes(structure);
    const columns = gradY?.shape[1] ?? 0;
    if (
      !isType(gradY, tiled(structure.rows, columns)) || !isType(x, tiled(structure.depth, columns)) ||
      !isType(indices, packed.indices)
    ) {
      throw shapeError(
        "sparseMatmulWeightGradient",
        `f32 tiled [${structure.rows}, C], f32 tiled [${structure.depth}, C], ${
          describeType(packed.indices)
        }`,
        inputs,
      );
    }
    return [packed.values];
  },

  reference([gradY, x, indices], { attributes: { structure }, inputTypes }) {
    const columns = inputTypes[0]!.shape[1];
    return [sparseWeightGradientReference(structure, columns, gradY!, x!, indices as Uint8Array)];
  },

  lower(
    { attributes: { structure }, inputs, outputs: [result], target }: Placement<SparseGradientAttributes>,
  ): Step[] {
    const [gradY, x, indices] = inputs;
    const { pattern, rows, depth, panelInputs, blockRows, blockEntries, indexOffsets } = structure;
    const { tile, workers } = target;
    const tiles = x!.type.shape[1] / tile;
    const tilesPerCall = Math.max(
      1,
      Math.floor(panelBytes[pattern] / (Math.min(panelInputs, depth) * tile * 4)),
    );
    const shape = { pattern, rows, depth, panelInputs, tile };
    const [begin, resume] = [false, true].map((resume) =>
      sparseWeightGradientKernel(sparseWeightGradientConstants({ ...shape, resume }, target))
    );
    // One column tile to share: a worker owns whole output blocks.
    const calls = splitBlocks(blockEntries, 1, workers).map(({ blocks, tiles: share }) => {
      const list: KernelCall[] = [];
      if (share.begin === share.end) return list;
      for (let first = 0; first < tiles; first += tilesPerCall) {
        for (let block = blocks.begin; block < blocks.end; block++) {
          list.push(callKernel(first === 0 ? begin : resume, {
            gradY: gradY!.address + (first * rows + block * blockRows) * tile * 4,
            x: x!.address + first * depth * tile * 4,
            indices: indices!.address + indexOffsets[block] - indexOffsets[0],
            gradValues: result.address + blockEntries[block] * groupRows(pattern) * 4,
            tiles: Math.min(tilesPerCall, tiles - first),
          }));
        }
      }
      return list;
    });
    return [{ name: "sparseMatmulWeightGradient", calls }];
  },
};

/** Bytes of gradX that pass by all output blocks before more do: what an L2 cache holds besides weights and gradY. */
const cachedBytes = 800 << 10;

/**
 * Inputs gradY tiled [N, C], values f32 [stored values], indices u8 [bytes], addend? tiled [K, C]; result tiled
 * [K, C] = Wᵀ·gradY + addend.
 *
 * A weight that is not stored is skipped: it contributes nothing even where gradY is NaN or infinite.
 */
export const sparseMatmulInputGradient: Operation<SparseGradientAttributes> = {
  name: "sparseMatmulInputGradient",
  inPlace: [[3, 0]],

  infer(inputs, { structure }) {
    const [gradY, values, indices, addend] = inputs;
    const packed = packedTypes(structure);
    const columns = gradY?.shape[1] ?? 0;
    const result = tiled(structure.depth, columns);
    if (
      !isType(gradY, tiled(structure.rows, columns)) || !isType(values, packed.values) ||
      !isType(indices, packed.indices) || (addend && !isType(addend, result))
    ) {
      throw shapeError(
        "sparseMatmulInputGradient",
        `f32 tiled [${structure.rows}, C], ${describeType(packed.values)}, ${
          describeType(packed.indices)
        }, ` +
          `f32 tiled [${structure.depth}, C] or nothing`,
        inputs,
      );
    }
    return [result];
  },

  reference([gradY, values, indices, addend], { attributes: { structure }, outputTypes }) {
    const packed = { structure, values: values!, indices: indices as Uint8Array };
    return [sparseInputGradientReference(packed, outputTypes[0].shape[1], gradY!, addend)];
  },

  lower(
    { attributes: { structure }, inputs, outputs: [result], target }: Placement<SparseGradientAttributes>,
  ): Step[] {
    const [gradY, values, indices, addend] = inputs;
    const { pattern, rows, depth, panelInputs, blockRows, blockEntries, indexOffsets } = structure;
    const { tile, workers } = target;
    const shape = { pattern, rows, depth, panelInputs, tile };
    const [first, later] = ([addend ? "addend" : "zero", "resume"] as const).map((start) =>
      sparseInputGradientKernel(sparseInputGradientConstants({ ...shape, start }, target))
    );
    const tilesPerCall = Math.max(1, Math.floor(cachedBytes / (depth * tile * 4)));
    const blocks = blockEntries.length - 1;
    // Every row of W adds to any row of the result, so a worker owns whole tiles of columns.
    const calls = splitRange(result.type.shape[1] / tile, workers).map(({ begin, end }) => {
      const list: KernelCall[] = [];
      for (let tileIndex = begin; tileIndex < end; tileIndex += tilesPerCall) {
        const resultOffset = tileIndex * depth * tile * 4;
        for (let block = 0; block < blocks; block++) {
          list.push(callKernel(block === 0 ? first : later, {
            gradY: gradY!.address + (tileIndex * rows + block * blockRows) * tile * 4,
            values: values!.address + blockEntries[block] * groupRows(pattern) * 4,
            indices: indices!.address + indexOffsets[block] - indexOffsets[0],
            addend: addend ? addend.address + resultOffset : 0,
            gradX: result.address + resultOffset,
            tiles: Math.min(tilesPerCall, end - tileIndex),
          }));
        }
      }
      return list;
    });
    return [{ name: "sparseMatmulInputGradient", calls }];
  },
};

function isType(type: ValueType | undefined, wanted: ValueType): boolean {
  return type !== undefined && sameType(type, wanted);
}
