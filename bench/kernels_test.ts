import assert from "node:assert/strict";
import { availableMachines } from "../src/machines/mod.ts";
import { measureReadBandwidth } from "./bandwidth.ts";
import { formatKernels } from "./kernel_report.ts";
import type { KernelRow } from "./kernel_round.ts";
import { benchKernels, breakEven } from "./kernels.ts";

for (const { isa } of availableMachines()) {
  Deno.test(`benchKernels: every kernel has a row with consistent rates and a right answer, ${isa}`, async () => {
    const shapes = [{ name: "odd", outputs: 70, inputs: 130 }];
    const sizes = { shapes, trainingShapes: shapes, tokens: [16], sparsities: [0.5, 0.9] };
    const result = await benchKernels({ isa, ...sizes, seconds: 0.01 });
    assert.equal(result.machine.isa, isa);
    const both = ["gradient of x", "gradient of W"];
    const products = ["dense", "unstructured", "unstructured", "4x1", "4x1"];
    const others = ["embedding", "attention", "layerNorm", "gelu"];
    assert.deepEqual(
      result.rows.map(({ kernel, product, shape }) => `${kernel} ${product} ${shape}`),
      [
        ...products.map((kernel) => `${kernel} forward odd`),
        ...others.map((kernel) => `${kernel} forward base`),
        ...products.flatMap((kernel) => both.map((product) => `${kernel} ${product} odd`)),
      ],
    );
    for (const row of result.rows) {
      assert(row.time_us > 0 && row.error <= 2e-5, row.kernel);
      const stored = row.gflops / row.dense_equivalent_gflops;
      assert(Math.abs(stored - (1 - row.sparsity)) < 1e-9, row.kernel);
      assert(Math.abs(row.gflops / result.machine.peak_gflops - row.share_of_peak) < 1e-9, row.kernel);
      const movedShare = row.moved_bytes / row.time_us / 1e3 / result.bandwidth.memory_gb_s;
      assert(Math.abs(movedShare / row.moved_share_of_memory - 1) < 1e-9, row.kernel);
      const twin = result.rows.find(({ kernel, product }) => kernel === "dense" && product === row.product)!;
      const speedup = others.includes(row.kernel) ? 1 : twin.time_us / row.time_us;
      assert(Math.abs(row.speedup_vs_dense / speedup - 1) < 1e-9, row.kernel);
    }
    const moved = (name: string) => result.rows.find(({ kernel }) => kernel === name)!.moved_bytes;
    assert.equal(moved("gelu"), 2 * 4 * 3072 * 16);
    assert.equal(moved("layerNorm"), 4 * (3 * 768 * 16 + 2 * 768));
    assert.equal(moved("attention"), 4 * (4 * 768 * 16 + 2));
    assert.equal(moved("embedding"), 4 * (4 * 768 * 16 + 3 * 16));

    // Three tables, each under its title, heading and rule; then where patterns begin to pay.
    const lines = formatKernels(result).split("\n");
    assert.equal(lines.length, 2 + result.rows.length + 3 * (3 + 1) + 2);
    assert.equal(lines.filter((line) => line.startsWith("gradient of ")).length, 10);
    assert.match(lines.find((line) => line.startsWith("gelu"))!, /GB\/s +\d+ %$/);
  });
}

Deno.test("measureReadBandwidth reads every byte on every machine", () => {
  for (const machine of availableMachines()) {
    assert(measureReadBandwidth(machine, 2 ** 16, 0.01) > 0);
  }
});

Deno.test("breakEven: where the line through the times crosses the dense kernel's", () => {
  const row = (shape: string, sparsity: number, time: number) =>
    ({
      kernel: "4x1",
      product: "forward",
      shape,
      tokens: 16,
      sparsity,
      speedup_vs_dense: 1 / time,
    }) as KernelRow;
  const rows = [
    // 0.1 + 2 · density and 0.2 + density.
    ...[0.5, 0.8, 0.9].map((sparsity) => row("slow", sparsity, 0.1 + 2 * (1 - sparsity))),
    ...[0.5, 0.8, 0.9].map((sparsity) => row("fast", sparsity, 0.2 + (1 - sparsity))),
    // Gradients do not count.
    { ...row("slow", 0.9, 9), product: "gradient of x" } as KernelRow,
  ];
  const { always_faster_from, median_density, least_density } = breakEven(rows, "4x1");
  assert.equal(always_faster_from, 0.8);
  assert(Math.abs(median_density - 0.8) < 1e-9);
  assert(Math.abs(least_density - 0.45) < 1e-9);
});
