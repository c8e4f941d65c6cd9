/**
 * The linear layer with a pruned weight: y = act(W·x + bias) + addend over stored weights only.
 * @module
 */
import { rows, sameType, tiled, type ValueType } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import type { Activation } from "../matmul/reference.ts";
import { sparseMatmulConstants, sparseMatmulKernel } from "./kernel.ts";
import { groupRows, type PackedStructure } from "./pack.ts";
import { sparseMatmulReference } from "./reference.ts";
import { splitBlocks } from "./shares.ts";

/** How the weight is packed, and what follows the product. */
export interface SparseMatmulAttributes {
  readonly structure: PackedStructure;
  readonly activation: Activation;
}

/** Bytes of x that pass by all output blocks before more do: what an L2 cache holds besides weights and results. */
const cachedBytes = 800 << 10;

/**
 * Inputs x tiled [K, C], packed u8 [structure.byteLength], bias? rows [N], addend? tiled [N, C]; result tiled [N, C].
 *
 * A weight that is not stored is skipped: it contributes nothing even where x is NaN or infinite. There is no gradient.
 */
export const sparseMatmul: Operation<SparseMatmulAttributes> = {
  name: "sparseMatmul",

  infer(inputs, { structure }) {
    const [x, packed, bias, addend] = inputs;
    const result = tiled(structure.rows, x?.shape[1] ?? 0);
    const weight: ValueType = { dtype: "u8", layout: "rows", shape: [structure.byteLength] };
    const fits = (type: ValueType | undefined, want: ValueType) => type === undefined || sameType(type, want);
    if (
      !x || !sameType(x, tiled(structure.depth, x.shape[1])) || !packed || !sameType(packed, weight) ||
      !fits(bias, rows(structure.rows)) || !fits(addend, result)
    ) {
      throw shapeError(
        "sparseMatmul",
        `x f32 tiled [${structure.depth}, C], packed u8 rows [${structure.byteLength}], ` +
          `bias f32 rows [${structure.rows}] or nothing, addend f32 tiled [${structure.rows}, C] or nothing`,
        inputs,
      );
    }
    return [result];
  },

  reference([x, packed, bias, addend], { attributes: { structure, activation }, outputTypes }) {
    const columns = outputTypes[0].shape[1];
    return [sparseMatmulReference(structure, activation, columns, x!, packed as Uint8Array, bias, addend)];
  },

  lower({ attributes, inputs, outputs: [y], target }: Placement<SparseMatmulAttributes>): Step[] {
    const [x, packed, bias, addend] = inputs;
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
            values: packed!.address + structure.blockEntries[block] * groupRows(pattern) * 4,
            indices: packed!.address + structure.indexOffsets[block],
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
