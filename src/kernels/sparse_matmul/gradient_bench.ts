/**
 * Times of the three products of training, dense and sparse, at BERT-base's shapes, one worker.
 *
 * ```sh
 * deno run -A src/kernels/sparse_matmul/gradient_bench.ts [columns] [sparsity …]
 * ```
 * @module
 */
import { chooseBlocking } from "./blocking.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { elementCount, indices as indexList, rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { levelOneBytes, selectMachine } from "../../machines/mod.ts";
import { usualTile } from "../../plan/plan.ts";
import { gatherValues } from "../gather/operation.ts";
import { matmulWeightGradient } from "../matmul/gradient.ts";
import { matmul } from "../matmul/operation.ts";
import { measurePeak } from "../../../bench/machine.ts";
import { timeOperation } from "../matmul/timing.ts";
import { sparseMatmulInputGradient, sparseMatmulWeightGradient } from "./gradient.ts";
import { sparseMatmul } from "./operation.ts";
import { type PackedStructure, type SparsePattern, valueCount } from "./pack.ts";
import { trainingStructure } from "./training_structure.ts";
import { packedTypes } from "./types.ts";

const [columns = 512, ...sparsities] = Deno.args.map(Number);
const random = new RandomStream(randomKey(1, "gradient_bench"));
const machine = selectMachine();
const tile = usualTile(machine.lanes);
const none = { activation: "none" } as const;

const numbers = (length: number) => Float32Array.from({ length }, () => random.uniform() - 0.5);

async function milliseconds<A>(
  operation: Operation<A>,
  attributes: A,
  operands: readonly (readonly [ValueType, NumberArray?] | undefined)[],
): Promise<number> {
  const inputTypes = operands.map((operand) => operand?.[0]);
  const inputs = operands.map((operand) => operand && (operand[1] ?? numbers(elementCount(operand[0]))));
  const { seconds } = await timeOperation({ machine, tile, operation, attributes, inputTypes, inputs });
  return seconds * 1000;
}

/** Whole blocks, that share of them left out. */
function randomMask(pattern: SparsePattern, features: number, depth: number, sparsity: number): Uint32Array {
  const height = pattern === "4x1" ? 4 : 1;
  const mask = new Uint32Array(Math.ceil(features * depth / 32));
  for (let first = 0; first < features; first += height) {
    for (let input = 0; input < depth; input++) {
      if (random.uniform() < sparsity) continue;
      for (let bit = first * depth + input; bit < (first + height) * depth; bit += depth) {
        mask[bit >>> 5] |= 1 << (bit & 31);
      }
    }
  }
  return mask;
}

console.log(
  `${machine.isa}, peak ${measurePeak(machine).toFixed(0)} GFLOP/s, ${columns} columns`,
);
for (const [features, depth] of [[768, 768], [3072, 768], [768, 3072]]) {
  const [x, y, weight] = [tiled(depth, columns), tiled(features, columns), rows(features, depth)];
  const dense = [
    await milliseconds(matmul, { transposed: false, ...none }, [[x], [weight], undefined, undefined]),
    await milliseconds(matmul, { transposed: true, ...none }, [[y], [weight], undefined, undefined]),
    await milliseconds(matmulWeightGradient, {}, [[y], [x]]),
  ];
  const print = (name: string, times: readonly number[]) => {
    const cells = times.map((time, i) => `${time.toFixed(2)} ms (${(dense[i] / time).toFixed(2)} ×)`);
    const sum = (list: readonly number[]) => list.reduce((total, time) => total + time, 0);
    const all = (sum(dense) / sum(times)).toFixed(2);
    console.log(`  ${name}: forward ${cells[0]}, of x ${cells[1]}, of the weight ${cells[2]}, all ${all} ×`);
  };
  console.log(`${features} × ${depth}`);
  print("dense", dense);
  for (const sparsity of sparsities.length > 0 ? sparsities : [0.8, 0.9, 0.95]) {
    for (const pattern of ["unstructured", "4x1"] as const) {
      const cut = (outputs: number, inputs: number) =>
        chooseBlocking({ pattern, rows: outputs, depth: inputs }, {
          lanes: machine.lanes,
          tile,
          workers: 1,
          levelOneBytes: levelOneBytes(),
        });
      const { structure, indices, transposed } = trainingStructure({
        rows: features,
        depth,
        mask: randomMask(pattern, features, depth, sparsity),
        pattern,
        cut: cut(features, depth),
        transposedCut: cut(depth, features),
      });
      const packed = (
        of: PackedStructure,
        list: Uint8Array,
      ): [[ValueType, NumberArray], [ValueType, NumberArray]] => {
        const types = packedTypes(of);
        return [[types.values, numbers(valueCount(of))], [types.indices, list]];
      };
      const operands = packed(structure, indices);
      // By the transpose it takes two operations: its values are gathered first.
      const gradX = transposed
        ? await milliseconds(gatherValues, {}, [operands[0], [
          indexList(transposed.permutation.length),
          transposed.permutation,
        ]]) +
          await milliseconds(sparseMatmul, { structure: transposed.structure, ...none }, [
            [y],
            ...packed(transposed.structure, transposed.indices),
          ])
        : await milliseconds(sparseMatmulInputGradient, { structure }, [[y], ...operands]);
      print(`${pattern}, ${100 * sparsity} % zeros`, [
        await milliseconds(sparseMatmul, { structure, ...none }, [[x], ...operands]),
        gradX,
        await milliseconds(sparseMatmulWeightGradient, { structure }, [[y], [x], operands[1]]),
      ]);
    }
  }
}
