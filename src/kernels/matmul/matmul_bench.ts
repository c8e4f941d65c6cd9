/**
 * Rates of the dense products at BERT's shapes, one worker, beside the machine's measured peak.
 *
 * ```sh
 * deno run -A src/kernels/matmul/matmul_bench.ts [tile …]
 * ```
 * @module
 */
import { randomKey, RandomStream } from "../../core/random.ts";
import { elementCount, rows, tiled, type ValueType } from "../../graph/graph.ts";
import type { Operation } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { matmulWeightGradient } from "./gradient.ts";
import { matmul } from "./operation.ts";
import { measurePeak } from "../../../bench/machine.ts";
import { timeOperation } from "./timing.ts";

/** Output features, input features, columns. */
const shapes = [
  { name: "small attention", features: 384, depth: 384, columns: 512 },
  { name: "small up", features: 1536, depth: 384, columns: 512 },
  { name: "small down", features: 384, depth: 1536, columns: 512 },
  { name: "base attention", features: 768, depth: 768, columns: 128 },
  { name: "base up", features: 3072, depth: 768, columns: 128 },
  { name: "base down", features: 768, depth: 3072, columns: 128 },
  { name: "base attention", features: 768, depth: 768, columns: 512 },
  { name: "base up", features: 3072, depth: 768, columns: 512 },
  { name: "base down", features: 768, depth: 3072, columns: 512 },
] as const;

const tiles = Deno.args.length > 0 ? Deno.args.map(Number) : [32, 64];
const random = new RandomStream(randomKey(1, "matmul_bench"));
const numbers = (type: ValueType) =>
  Float32Array.from({ length: elementCount(type) }, () => random.uniform() - 0.5);

for (const machine of availableMachines().slice(0, 1)) {
  const peak = measurePeak(machine);
  console.log(`${machine.isa}: peak of independent fmas ${peak.toFixed(1)} GFLOP/s`);
  for (const tile of tiles) {
    for (const { name, features, depth, columns } of shapes) {
      const x = tiled(depth, columns);
      const y = tiled(features, columns);
      const line: string[] = [];
      const measure = async <A>(
        label: string,
        operation: Operation<A>,
        attributes: A,
        inputTypes: (ValueType | undefined)[],
      ) => {
        const inputs = inputTypes.map((type) => type && numbers(type));
        const { seconds, result } = await timeOperation({
          machine,
          tile,
          operation,
          attributes,
          inputTypes,
          inputs,
        });
        const outputTypes = operation.infer(inputTypes, attributes);
        const [expected] = operation.reference(inputs, { attributes, inputTypes, outputTypes });
        const error = result.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
        if (!(error < 1e-3)) throw new Error(`${label} is wrong by ${error}`);
        const rate = 2 * features * depth * columns / seconds / 1e9;
        line.push(`${label} ${rate.toFixed(1).padStart(5)} (${Math.round(rate / peak * 100)} %)`);
      };
      const attributes = { transposed: false, activation: "none" } as const;
      await measure("forward", matmul, attributes, [x, rows(features, depth), rows(features), undefined]);
      await measure("transposed", matmul, { ...attributes, transposed: true }, [
        x,
        rows(depth, features),
        undefined,
        undefined,
      ]);
      await measure("weight gradient", matmulWeightGradient, {}, [y, x]);
      console.log(`  tile ${tile}  ${name} ${features}×${depth}×${columns}: ${line.join("   ")}`);
    }
  }
}
