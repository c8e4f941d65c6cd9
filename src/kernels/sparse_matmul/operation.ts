/**
 * The linear layer with a pruned weight: y = act(W·x + bias) + addend over stored weights only.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import {
  describeType,
  indices as indexList,
  rows,
  sameType,
  tiled,
  type ValueType,
} from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, type Step } from "../../graph/operation.ts";
import { gatherValues } from "../gather/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import type { Activation } from "../matmul/reference.ts";
import { sumColumns } from "../sum_columns/operation.ts";
import { sparseMatmulInputGradient, sparseMatmulWeightGradient } from "./gradient.ts";
import { sparseMatmulConstants, sparseMatmulKernel } from "./kernel.ts";
import { groupRows, type PackedStructure, valueCount } from "./pack.ts";
import { sparseMatmulReference } from "./reference.ts";
import { splitBlocks } from "./shares.ts";
import { packedTypes } from "./types.ts";

/** How the weight is packed, and what follows the product. */
export interface SparseMatmulAttributes {
  readonly structure: PackedStructure;
  readonly activation: Activation;
  /** A packing of Wᵀ for the gradient of x: `trainingStructure` makes it where the gradient is faster with one. */
  readonly transposed?: PackedStructure;
}

/** Bytes of x that pass by all output blocks before more do: what an L2 cache holds besides weights and results. */
const cachedBytes = 800 << 10;

/**
 * Inputs x tiled [K, C], values f32 [stored values], indices u8 [bytes], bias? rows [N], addend? tiled [N, C]; result
 * tiled [N, C]. With `transposed` two more that only the gradient reads: indices of Wᵀ u8 [bytes], and a permutation
 * i32 [stored values] that gathers the values of Wᵀ from those of W.
 *
 * Values and indices are the two halves of packed weights: two operands, because in training the values change with
 * every step and the indices with the mask only.
 *
 * A weight that is not stored is skipped: it contributes nothing even where x is NaN or infinite.
 */
export const sparseMatmul: Operation<SparseMatmulAttributes> = {
  name: "sparseMatmul",

  infer(inputs, { structure, transposed }) {
    const [x, values, indices, bias, addend, transposedIndices, permutation] = inputs;
    const result = tiled(structure.rows, x?.shape[1] ?? 0);
    const packed = packedTypes(structure);
    const backward = transposed && packedTypes(transposed);
    const order = transposed && indexList(valueCount(transposed));
    const fits = (type: ValueType | undefined, want: ValueType | undefined) =>
      type === want || type !== undefined && want !== undefined && sameType(type, want);
    if (
      !x || !fits(x, tiled(structure.depth, x.shape[1])) || !fits(values, packed.values) ||
      !fits(indices, packed.indices) || bias && !fits(bias, rows(structure.rows)) ||
      addend && !fits(addend, result) || !fits(transposedIndices, backward?.indices) ||
      !fits(permutation, order)
    ) {
      throw shapeError(
        "sparseMatmul",
        `x f32 tiled [${structure.depth}, C], values ${describeType(packed.values)}, ` +
          `indices ${describeType(packed.indices)}, ` +
          `bias f32 rows [${structure.rows}] or nothing, addend f32 tiled [${structure.rows}, C] or nothing` +
          (backward && order
            ? `, indices of the transpose ${describeType(backward.indices)}, permutation ${
              describeType(order)
            }`
            : ""),
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

  gradient({ graph, node, outputGradients: [gradY] }) {
    const { structure, activation, transposed } = node.attributes;
    if (activation !== "none") {
      throw new UnsupportedError(
        `Cannot differentiate sparseMatmul with activation ${activation}: wanted activation none`,
      );
    }
    if (!gradY) return [];
    const [x, values, indices, bias, addend, transposedIndices, permutation] = node.inputs;
    const inputGradient = () => {
      if (!transposed) return graph.apply(sparseMatmulInputGradient, { structure }, [gradY, values, indices]);
      // It could run before the forward pass: then copies of all weights would wait in memory for the backward pass.
      const [gathered] = graph.apply(gatherValues, {}, [values, permutation], gradY);
      const attributes = { structure: transposed, activation };
      return graph.apply(sparseMatmul, attributes, [
        gradY,
        gathered,
        transposedIndices,
        undefined,
        undefined,
      ]);
    };
    return [
      inputGradient()[0],
      graph.apply(sparseMatmulWeightGradient, { structure }, [gradY, x, indices])[0],
      undefined,
      bias && graph.apply(sumColumns, {}, [gradY])[0],
      addend && gradY,
    ];
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
