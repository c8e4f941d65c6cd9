import assert from "node:assert/strict";
import { packSparse } from "../kernels/sparse_matmul/pack.ts";
import { describeLayers } from "./describe_layers.ts";
import type { LayerChoice } from "./weights.ts";

Deno.test("describeLayers says how a layer is cut, what fits which cache, who does how much, and why", () => {
  // The first block of 4 rows holds 3 of 4 weights.
  const weight = new Float32Array(8 * 512);
  weight[0] =
    weight[600] =
    weight[1100] =
    weight[4 * 512] =
      1;
  const { structure, bytes } = packSparse(weight, [8, 512], {
    pattern: "unstructured",
    panelInputs: 256,
    blockRows: 4,
  });
  const layer: LayerChoice = {
    name: "w",
    rows: 8,
    columns: 512,
    sparsity: 1 - 4 / weight.length,
    kernel: "unstructured",
    reason: "density 0.001",
    weightBytes: bytes.length,
  };
  const dense: LayerChoice = {
    ...layer,
    name: "v",
    kernel: "dense",
    reason: "asked for",
    weightBytes: 1 << 24,
  };
  const caches = [
    { level: 1, kind: "instruction", sizeBytes: 1 << 30, lineBytes: 64 },
    { level: 1, kind: "data", sizeBytes: 32 << 10, lineBytes: 64 },
    { level: 2, kind: "unified", sizeBytes: 1 << 20, lineBytes: 64 },
  ] as const;
  const describe = (run: { columns: number; workers: number }) =>
    describeLayers([layer, dense], new Map([["w", structure]]), { tile: 64, caches, ...run });
  assert.deepEqual(describe({ columns: 64, workers: 2 }), [
    "w  8 × 512  99.9 % zeros  unstructured; panels of 256 inputs (64 KiB of x, fits L2 of 1.0 MiB); " +
    "2 blocks of 4 rows (0 KiB of weights, fits L1 of 32 KiB); 0 KiB in all, fits L1 of 32 KiB; " +
    "shares 75.0 % | 25.0 %; density 0.001",
    "v  8 × 512  99.9 % zeros  dense; 16.0 MiB of weights, fits no cache; asked for",
  ]);
  assert.match(describe({ columns: 128, workers: 2 })[0], /shares 50.0 % \| 50.0 %/);
  const [unknown] = describeLayers([layer], new Map(), { columns: 64, tile: 64, workers: 1, caches: [] });
  assert.match(unknown, /caches unknown/);
});
