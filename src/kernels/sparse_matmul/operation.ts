/**
 * The linear layer with a pruned weight: y = act(W·x + bias) + addend over stored weights only.
 * @module
 */
import { describeType, rows, sameType, tiled, type ValueType } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import type { Activation } from "../matmul/reference.ts";
import { sparseMatmulConstants, sparseMatmulKernel } from "./kernel.ts";
import { groupRows, indexBytes, type PackedStructure, valueCount } from "./pack.ts";
import { sparseMatmulReference } from "./reference.ts";
import { splitBlocks } from "./shares.ts";

/** How the weight is packed, and what follows the product. */
export interface SparseMatmulAttributes {
  readonly structure: PackedStructure;
  readonly activation: Activation;
}

/** Bytes of x that pass by all output blocks before more do: what an L2 cache holds besides weights and results. */
const cachedBytes = 800 << 10;

/** Types of the two halves of packed weights: the values f32 [stored values], and the indices u8 [bytes]. */
export function packedTypes(
  structure: PackedStructure,
): { readonly values: ValueType; readonly indices: ValueType } {
  return {
    values: rows(valueCount(structure)),
    indices: { dtype: "u8", layout: "rows", shape: [indexBytes(structure)] },
  };
}

/**
 * Inputs x tiled [K, C], values f32 [stored values], indices u8 [bytes], bias? rows [N], addend? tiled [N, C];
 * result tiled [N, C].
 *
 * Values and indices are the two halves of packed weights: two operands, because in training the values change with
 * every step and the indices with the mask only.
 *
 * A weight that is not stored is skipped: it contributes nothing even where x is NaN or infinite. There is no gradient.
 */
export const sparseMatmul: Operation<SparseMatmulAttributes> = {
  name: "sparseMatmul",

  infer(inputs, { structure }) {
    const [x, values, indices, bias, addend] = inputs;
    const result = tiled(structure.rows, x?.shape[1] ?? 0);
    const packed = packedTypes(structure);
    const fits = (type: ValueType | undefined, want: ValueType) => type === undefined || sameType(type, want);
    if (
      !x || !sameType(x, tiled(structure.depth, x.shape[1])) || !values || !sameType(values, packed.values) ||
      !indices || !sameType(indices, packed.indices) ||
      !fits(bias, rows(structure.rows)) || !fits(addend, result)
    ) {
      throw shapeError(
        "sparseMatmul",
        `x f32 tiled [${structure.depth}, C], values ${describeType(packed.values)}, ` +
          `indices ${describeType(packed.indices)}, ` +
          `bias f32 rows [${structure.rows}] or nothing, addend f32 tiled [${structure.rows}, C] or nothing`,
        inputs,
      );
    }
    return [result];
  },

  reference([x, values, indices, bias, addend], { attributes: { structure, activation }, outputTypes }) {
    const columns = outputTypes[0].shape[1];
    const packed = { structure, values: values!, indices: indices as Uint8Array };
    return [sparseMatmulReference(packed, activation, columns, x!, bias, addend)];
  },

  lower({ attributes, inputs, outputs: [y], target }: Placement<SparseMatmulAttributes>): Step[] {
    const [x, values, indices, bias, addend] = inputs;
    const { structure, activation } = attributes;
    const { pattern, rows: features, depth, panelInputs, blockRows } = structure;
    const { tile, workers } = target;
    const kernel = sparseMatmulKernel(sparseMatmulConstants({
      pattern,
      rows: features,
      depth,
      panelInputs,
      tile,
      bias: bias !== undefined,
      addend: addend !== undefined,
      activation,
    }, target));
    const shares = splitBlocks(structure.blockEntries, y.type.shape[1] / tile, workers);
    const tilesPerCall = Math.max(1, Math.floor(cachedBytes / (depth * tile * 4)));
    const calls = shares.map(({ blocks, tiles }) => {
      const list: KernelCall[] = [];
      for (let first = tiles.begin; first < tiles.end; first += tilesPerCall) {
        for (let block = blocks.begin; block < blocks.end; block++) {
          const row = block * blockRows;
          const resultOffset = (first * features + row) * tile * 4;
          list.push(callKernel(kernel, {
            x: x!.address + first * depth * tile * 4,
            values: values!.address + structure.blockEntries[block] * groupRows(pattern) * 4,
            indices: indices!.address + structure.indexOffsets[block] - structure.indexOffsets[0],
            bias: bias ? bias.address + row * 4 : 0,
            addend: addend ? addend.address + resultOffset : 0,
            y: y.address + resultOffset,
            rows: Math.min(blockRows, features - row),
            tiles: Math.min(tilesPerCall, tiles.end - first),
          }));
        }
      }
      return list;
    });
    return [{ name: "sparseMatmul", calls }];
  },
};
