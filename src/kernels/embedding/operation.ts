/**
 * The input of an encoder: for each token the sum of its word, position and segment vectors.
 * @module
 */
import { rows, tiled, type ValueType } from "../../graph/graph.ts";
import { type Operation, shapeError, splitRange } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { embeddingGradientKernel } from "./gradient_kernel.ts";
import { embeddingKernel, embeddingScratchBytes } from "./kernel.ts";
import { embeddingGradientReference, embeddingReference } from "./reference.ts";

/** Columns, and features of the gradient, that a worker's share is a multiple of: a cache line. */
const grain = 16;

function isTable(type: ValueType | undefined): type is ValueType {
  return type?.dtype === "f32" && type.layout === "rows" && type.shape.length === 2;
}

function isList(type: ValueType | undefined): type is ValueType {
  return type?.dtype === "i32" && type.shape.length === 1;
}

/**
 * result[f, c] = words[wordIds[c], f] + positions[positionIds[c], f] + types[typeIds[c], f].
 *
 * Operands: three tables [rows, features], three id lists [columns]. An id of −1 contributes zero, so a padding
 * column (−1 in all lists) is zero. Ids beyond a table are the caller's error and are not checked here.
 */
export const embedding: Operation<Record<string, never>> = {
  name: "embedding",

  infer(inputs) {
    const [table, ...otherTables] = inputs.slice(0, 3);
    const [ids, ...otherIds] = inputs.slice(3);
    const fits = inputs.length === 6 && isTable(table) && isList(ids) &&
      otherTables.every((other) => isTable(other) && other.shape[1] === table.shape[1]) &&
      otherIds.every((other) => isList(other) && other.shape[0] === ids.shape[0]);
    if (!fits) {
      throw shapeError(
        "embedding",
        "three f32 tables [rows, features], then three i32 lists [columns]",
        inputs,
      );
    }
    return [tiled(table.shape[1], ids.shape[0])];
  },

  reference([words, positions, types, wordIds, positionIds, typeIds], { outputTypes }) {
    const [features, columns] = outputTypes[0].shape;
    const lookups = [
      { table: words!, ids: wordIds! },
      { table: positions!, ids: positionIds! },
      { table: types!, ids: typeIds! },
    ];
    return [embeddingReference(lookups, features, columns)];
  },

  gradient({ graph, node: { inputs }, outputGradients: [gradX] }) {
    return inputs.map((table, index) =>
      index < 3 && gradX
        ? graph.apply(embeddingGradient, { rows: table!.type.shape[0] }, [gradX, inputs[index + 3]])[0]
        : undefined
    );
  },

  scratchBytes: ({ outputs }) => embeddingScratchBytes(outputs[0].type.shape[0]),

  lower({ inputs, outputs: [result], target: { tile, workers }, scratch }) {
    const [words, positions, types, wordIds, positionIds, typeIds] = inputs.map((input) => input!.address);
    const [features, columns] = result.type.shape;
    const kernel = embeddingKernel(tile);
    const calls = splitRange(columns, workers, grain).map(({ begin, end }, worker) => {
      const tileCalls: KernelCall[] = [];
      for (let column = begin; column < end;) {
        const next = Math.min(end, column - column % tile + tile);
        tileCalls.push(callKernel(kernel, {
          words,
          positions,
          types,
          wordIds: wordIds + 4 * column,
          positionIds: positionIds + 4 * column,
          typeIds: typeIds + 4 * column,
          result: result.address + 4 * ((column - column % tile) * features + column % tile),
          scratch: scratch(worker),
          features,
          columns: next - column,
        }));
        column = next;
      }
      return tileCalls;
    });
    return [{ name: "embedding", calls }];
  },
};

/** What the operands do not tell. */
export interface EmbeddingGradientAttributes {
  /** Rows of the table. */
  readonly rows: number;
}

/** The gradient of one table, [rows, features], of operands (gradX tiled [features, columns], ids [columns]). */
export const embeddingGradient: Operation<EmbeddingGradientAttributes> = {
  name: "embeddingGradient",

  infer(inputs, attributes) {
    const [gradX, ids] = inputs;
    const fits = inputs.length === 2 && gradX?.dtype === "f32" && gradX.layout === "tiled" &&
      isList(ids) && ids.shape[0] === gradX.shape[1];
    if (!fits) {
      throw shapeError("embeddingGradient", "f32 tiled [features, columns], i32 list [columns]", inputs);
    }
    return [rows(attributes.rows, gradX.shape[0])];
  },

  reference([gradX, ids], { outputTypes }) {
    const [rowCount, features] = outputTypes[0].shape;
    return [embeddingGradientReference(gradX!, ids!, rowCount, features)];
  },

  lower({ inputs: [gradX, ids], outputs: [gradTable], target: { tile, workers } }) {
    const [rowCount, features] = gradTable.type.shape;
    const kernel = embeddingGradientKernel(tile);
    const calls = splitRange(features, workers, grain).map(({ begin, end }) =>
      begin === end ? [] : [callKernel(kernel, {
        gradX: gradX!.address + 4 * tile * begin,
        ids: ids!.address,
        gradTable: gradTable.address + 4 * begin,
        features,
        featureCount: end - begin,
        rows: rowCount,
        tiles: gradX!.type.shape[1] / tile,
      })]
    );
    return [{ name: "embeddingGradient", calls }];
  },
};
