/**
 * The linear layer: y = act(op(W)·x + bias) + addend.
 * @module
 */
import { UnsupportedError } from "../../core/errors.ts";
import { rows, sameType, tiled, type ValueType } from "../../graph/graph.ts";
import { type Operation, type Placement, shapeError, type Step, type Target } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { sumColumns } from "../sum_columns/operation.ts";
import { matmulWeightGradient } from "./gradient.ts";
import { type MatmulConstants, matmulConstants, matmulKernel, matmulScratchBytes } from "./kernel.ts";
import { type Activation, matmulReference } from "./reference.ts";
import { splitGrid } from "./shares.ts";

/** How a matmul differs from a plain product. */
export interface MatmulAttributes {
  /** Whether the weight is [K, N], as in the gradient of x, instead of [N, K]. */
  readonly transposed: boolean;
  readonly activation: Activation;
}

/**
 * Inputs x tiled [K, C], weight rows [N, K] ([K, N] if transposed), bias? rows [N], addend? tiled [N, C];
 * result tiled [N, C].
 */
export const matmul: Operation<MatmulAttributes> = {
  name: "matmul",
  inPlace: [[3, 0]],

  infer(inputs, { transposed }) {
    const [x, weight, bias, addend] = inputs;
    const wanted = `x tiled [K, C], weight rows ${transposed ? "[K, N]" : "[N, K]"}, ` +
      "bias rows [N] or nothing, addend tiled [N, C] or nothing, all f32";
    if (x?.layout !== "tiled" || x.dtype !== "f32" || weight?.shape.length !== 2) {
      throw shapeError("matmul", wanted, inputs);
    }
    const [depth, columns] = x.shape;
    const features = weight.shape[transposed ? 1 : 0];
    const result = tiled(features, columns);
    const fits = (type: ValueType | undefined, want: ValueType) => type === undefined || sameType(type, want);
    if (
      !sameType(weight, transposed ? rows(depth, features) : rows(features, depth)) ||
      !fits(bias, rows(features)) || !fits(addend, result)
    ) throw shapeError("matmul", wanted, inputs);
    return [result];
  },

  reference([x, weight, bias, addend], { attributes, inputTypes, outputTypes }) {
    const [features, columns] = outputTypes[0].shape;
    const shape = { ...attributes, rows: features, depth: inputTypes[0]!.shape[0], columns };
    return [matmulReference(shape, x!, weight!, bias, addend)];
  },

  gradient({ graph, node, outputGradients: [gradY] }) {
    const { transposed, activation } = node.attributes;
    if (transposed || activation !== "none") {
      throw new UnsupportedError(
        `Cannot differentiate matmul with transposed ${transposed}, activation ${activation}: ` +
          "wanted transposed false, activation none",
      );
    }
    if (!gradY) return [];
    const [x, weight, bias, addend] = node.inputs;
    const backward = { transposed: true, activation } as const;
    return [
      graph.apply(matmul, backward, [gradY, weight, undefined, undefined])[0],
      graph.apply(matmulWeightGradient, {}, [gradY, x])[0],
      bias && graph.apply(sumColumns, {}, [gradY])[0],
      addend && gradY,
    ];
  },

  scratchBytes({ attributes, inputs, outputs: [y] }, target) {
    return matmulScratchBytes(constantsFor(attributes, inputs.map((input) => input?.type), y.type, target));
  },

  lower({ attributes, inputs, outputs: [y], target, scratch }: Placement<MatmulAttributes>): Step[] {
    const [x, weight, bias, addend] = inputs;
    const { tile, workers } = target;
    const [features, columns] = y.type.shape;
    const depth = x!.type.shape[0];
    const constants = constantsFor(attributes, inputs.map((input) => input?.type), y.type, target);
    const kernel = matmulKernel(constants);
    const blockRows = constants.block.rows;
    const shares = splitGrid({
      rows: features,
      rowGrain: blockRows,
      columns: columns / tile,
      columnGrain: 1,
      workers,
    });
    const calls = shares.map((share, worker) => {
      const list: KernelCall[] = [];
      const firstTile = share.columns.begin;
      const tiles = share.columns.end - firstTile;
      for (let row = share.rows.begin; tiles > 0 && row < share.rows.end; row += constants.panelRows) {
        const count = Math.min(constants.panelRows, share.rows.end - row);
        const resultOffset = (firstTile * features + row) * tile * 4;
        list.push(callKernel(kernel, {
          x: x!.address + firstTile * depth * tile * 4,
          weight: weight!.address + row * 4 * (attributes.transposed ? 1 : depth),
          bias: bias ? bias.address + row * 4 : 0,
          addend: addend ? addend.address + resultOffset : 0,
          y: y.address + resultOffset,
          scratch: scratch(worker),
          rows: count,
          blocks: Math.floor(count / blockRows),
          singles: count % blockRows,
          tiles,
        }));
      }
      return list;
    });
    return [{ name: "matmul", calls }];
  },
};

function constantsFor(
  { transposed, activation }: MatmulAttributes,
  [x, , bias, addend]: readonly (ValueType | undefined)[],
  y: ValueType,
  target: Target,
): MatmulConstants {
  return matmulConstants({
    rows: y.shape[0],
    depth: x!.shape[0],
    tile: target.tile,
    transposed,
    bias: bias !== undefined,
    addend: addend !== undefined,
    activation,
  }, target);
}
