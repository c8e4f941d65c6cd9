import assert from "node:assert/strict";
import { availableMachines } from "../src/machines/mod.ts";
import { measureReadBandwidth } from "./bandwidth.ts";
import { benchKernels, breakEven, formatKernels, type KernelRow } from "./kernels.ts";

for (const { isa } of availableMachines()) {
  Deno.test(`benchKernels: every kernel has a row with consistent rates and a right answer, ${isa}`, async () => {
    const shapes = [{ name: "odd", outputs: 70, inputs: 130 }];
    const result = await benchKernels({ isa, shapes, tokens: [16], sparsities: [0.5, 0.9], seconds: 0.01 });
    assert.equal(result.machine.isa, isa);
    assert.deepEqual(
      result.rows.map(({ kernel, shape }) => `${kernel} ${shape}`),
      [
        "dense odd",
        "unstructured odd",
        "unstructured odd",
        "4x1 odd",
        "4x1 odd",
        "attention base",
        "layerNorm base",
        "gelu base",
      ],
    );
    for (const row of result.rows) {
      assert(row.time_us > 0 && row.error <= 2e-5, row.kernel);
      const stored = row.gflops / row.dense_equivalent_gflops;
      assert(Math.abs(stored - (1 - row.sparsity)) < 1e-9, row.kernel);
      assert(Math.abs(row.gflops / result.machine.peak_gflops - row.share_of_peak) < 1e-9, row.kernel);
    }
    const lines = formatKernels(result).split("\n");
    assert.equal(lines.length, 4 + result.rows.length + 1 + 2);
  });
}

Deno.test("measureReadBandwidth reads every byte on every machine", () => {
  for (const machine of availableMachines()) {
    assert(measureReadBandwidth(machine, 2 ** 16, 0.01) > 0);
  }
});

Deno.test("breakEven: where the line through the times crosses the dense kernel's", () => {
  const row = (shape: string, sparsity: number, time: number) =>
    ({ kernel: "4x1", shape, tokens: 16, sparsity, speedup_vs_dense: 1 / time }) as KernelRow;
  const rows = [
    // 0.1 + 2 · density and 0.2 + density.
    ...[0.5, 0.8, 0.9].map((sparsity) => row("slow", sparsity, 0.1 + 2 * (1 - sparsity))),
    ...[0.5, 0.8, 0.9].map((sparsity) => row("fast", sparsity, 0.2 + (1 - sparsity))),
  ];
  const { always_faster_from, median_density, least_density } = breakEven(rows, "4x1");
  assert.equal(always_faster_from, 0.8);
  assert(Math.abs(median_density - 0.8) < 1e-9);
  assert(Math.abs(least_density - 0.45) < 1e-9);
});
