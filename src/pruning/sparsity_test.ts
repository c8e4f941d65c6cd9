import assert from "node:assert/strict";
import { bertGolden } from "../graph/golden/mod.ts";
import { setBit } from "./bitset.ts";
import { isPrunable, sparsityOfMasks, sparsityOfWeights } from "./sparsity.ts";

const layer = "bert.encoder.layer.0";

Deno.test("isPrunable picks the six linear layers of each encoder layer and nothing else", () => {
  const prunable = bertGolden().parameters.map(({ name }) => name).filter(isPrunable);
  assert.deepEqual(
    prunable,
    [0, 1].flatMap((index) =>
      [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
      ].map((part) => `bert.encoder.layer.${index}.${part}.weight`)
    ),
  );
});

Deno.test("isPrunable reads names with any prefix or none, and only whole names", () => {
  assert.ok(isPrunable("encoder.layer.11.output.dense.weight"));
  assert.ok(isPrunable("roberta.encoder.layer.3.attention.self.key.weight"));
  assert.ok(!isPrunable("bert.encoder.layer.0.output.dense.weight_scale"));
  assert.ok(!isPrunable("my_encoder.layer.0.output.dense.weight"));
  assert.ok(!isPrunable("cls.predictions.transform.dense.weight"));
});

Deno.test("sparsityOfWeights counts zeros of either sign in the prunable weights only", () => {
  const report = sparsityOfWeights([
    { name: `${layer}.output.dense.weight`, values: Float32Array.of(0, -0, 1, 2) },
    { name: `${layer}.output.dense.bias`, values: Float32Array.of(0, 0) },
    { name: `${layer}.intermediate.dense.weight`, values: Float32Array.of(1, 0, 1, 1, 1, 1) },
  ]);
  assert.deepEqual(report, {
    overall: 0.3,
    weights: 10,
    zeros: 3,
    layers: [
      { name: `${layer}.output.dense.weight`, weights: 4, zeros: 2, sparsity: 0.5 },
      { name: `${layer}.intermediate.dense.weight`, weights: 6, zeros: 1, sparsity: 1 / 6 },
    ],
  });
});

Deno.test("sparsityOfMasks counts pruned weights, not the unused bits of the last word", () => {
  const mask = new Uint32Array(2);
  for (let index = 0; index < 30; index++) setBit(mask, index);
  const name = `${layer}.output.dense.weight`;
  const report = sparsityOfMasks([{ name, rows: 5, columns: 8, mask }]);
  assert.deepEqual(report.layers, [{ name, weights: 40, zeros: 10, sparsity: 0.25 }]);
  assert.equal(report.overall, 0.25);
});

Deno.test("a model without prunable weights has sparsity 0", () => {
  assert.deepEqual(sparsityOfWeights([]), { overall: 0, weights: 0, zeros: 0, layers: [] });
});
