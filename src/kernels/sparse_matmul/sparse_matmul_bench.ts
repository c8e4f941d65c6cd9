/**
 * Rates of the sparse product at BERT's shapes, one worker, beside the dense kernel and the machine's measured peak.
 *
 * Rates are *dense-equivalent*: what a dense kernel would need to finish in the same time.
 *
 * ```sh
 * deno run -A src/kernels/sparse_matmul/sparse_matmul_bench.ts [tile …]
 * ```
 * @module
 */
import { randomKey, RandomStream } from "../../core/random.ts";
import { rows, tiled } from "../../graph/graph.ts";
import { availableMachines } from "../../machines/mod.ts";
import { matmul } from "../matmul/operation.ts";
import { measurePeakGflops, timeOperation } from "../matmul/timing.ts";
import { sparseMatmul } from "./operation.ts";
import { packSparse, type SparsePattern, unpackSparse } from "./pack.ts";

const shapes = [
  { name: "small up", features: 1536, depth: 384, columns: 512 },
  { name: "base attention", features: 768, depth: 768, columns: 128 },
  { name: "base up", features: 3072, depth: 768, columns: 128 },
  { name: "base down", features: 768, depth: 3072, columns: 128 },
] as const;
const patterns: readonly SparsePattern[] = ["unstructured", "4x1"];
const sparsities = [0.5, 0.8, 0.9, 0.95];

const tiles = Deno.args.length > 0 ? Deno.args.map(Number) : [32, 64];
const random = new RandomStream(randomKey(1, "sparse_matmul_bench"));
const numbers = (length: number) => Float32Array.from({ length }, () => random.uniform() - 0.5);

/** Random weights; zeros come in blocks of `blockRows` rows. */
function prunedWeight(features: number, depth: number, sparsity: number, blockRows: number): Float32Array {
  const weight = numbers(features * depth);
  for (let row = 0; row < features; row += blockRows) {
    for (let input = 0; input < depth; input++) {
      if (random.uniform() >= sparsity) continue;
      for (let r = 0; r < blockRows; r++) weight[(row + r) * depth + input] = 0;
    }
  }
  return weight;
}

for (const machine of availableMachines()) {
  const peak = await measurePeakGflops(machine);
  console.log(
    `${machine.isa}: peak of independent fmas ${peak.toFixed(1)} GFLOP/s; rates are dense-equivalent`,
  );
  for (const tile of tiles) {
    for (const { name, features, depth, columns } of shapes) {
      const x = tiled(depth, columns);
      const input = numbers(depth * columns);
      const rate = (seconds: number) => 2 * features * depth * columns / seconds / 1e9;
      const dense = async (weight: Float32Array) =>
        await timeOperation({
          machine,
          tile,
          operation: matmul,
          attributes: { transposed: false, activation: "none" },
          inputTypes: [x, rows(features, depth), undefined, undefined],
          inputs: [input, weight, undefined, undefined],
        });
      const denseRate = rate((await dense(numbers(features * depth))).seconds);
      console.log(`  tile ${tile}  ${name} ${features}×${depth}×${columns}: dense ${denseRate.toFixed(1)}`);
      for (const pattern of patterns) {
        const line: string[] = [];
        for (const sparsity of sparsities) {
          const weight = prunedWeight(features, depth, sparsity, pattern === "4x1" ? 4 : 1);
          const { bytes, structure } = packSparse(weight, [features, depth], { pattern });
          const { seconds, result } = await timeOperation({
            machine,
            tile,
            operation: sparseMatmul,
            attributes: { structure, activation: "none" },
            inputTypes: [
              x,
              { dtype: "u8", layout: "rows", shape: [bytes.length] },
              undefined,
              undefined,
            ],
            inputs: [input, bytes, undefined, undefined],
          });
          const { result: expected } = await dense(unpackSparse(bytes, structure));
          const error = result.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
          if (!(error < 1e-3)) throw new Error(`${pattern} at ${sparsity} is wrong by ${error}`);
          line.push(
            `${sparsity * 100} % ${rate(seconds).toFixed(0).padStart(4)} (${
              (rate(seconds) / denseRate).toFixed(1)
            }×)`,
          );
        }
        console.log(`    ${pattern.padEnd(12)} ${line.join("   ")}`);
      }
    }
  }
}
