import assert from "node:assert/strict";
import { transformersJs } from "./baselines.ts";
import { openSource } from "./engine.ts";
import { benchModel, writeSyntheticModel } from "./model.ts";
import { formatTable, htmlReport } from "./report.ts";
import { agrees, rowLabel } from "./result.ts";

// One test, in a file of its own: a process has transformers.js on WebAssembly or natively, and others have it natively.
Deno.test({
  name: "benchModel on WebAssembly: transformers.js runs on its own WebAssembly, and everybody agrees",
  sanitizeResources: false, // onnxruntime-web keeps its threads until the process ends.
  fn: onWebAssembly,
});

async function onWebAssembly(): Promise<void> {
  const { Worker } = globalThis;
  const folder = await Deno.makeTempDir();
  try {
    await writeSyntheticModel({ preset: "bert-tiny", sparsity: 0.9, pattern: "4x1", folder });
    const machine = { cpu: "test", isa: "wasm", cores: 2, caches: [], peak_gflops: 1 };
    const options = { folder, title: "tiny", tokens: 20, batch: 2, threads: 2, seconds: 0.05, machine };
    const { result } = await benchModel({ ...options, isa: "wasm" });
    assert.deepEqual(result.rows.map(({ engine, backend }) => [engine, backend]), [
      ["lacuna", "wasm"],
      ["lacuna", "wasm"],
      ["onnxruntime", "native"],
      ["transformers.js", "wasm"],
    ]);
    for (const row of result.rows) {
      assert(agrees(row), `${rowLabel(row)} differs by ${row.relative_logit_difference}`);
      assert.equal(row.threads, 2);
    }
    const [sparse, dense, , theirs] = result.rows;
    const ratio = theirs.latency_ms.p50 / Math.min(sparse.latency_ms.p50, dense.latency_ms.p50);
    assert(formatTable(result).includes(`${ratio.toFixed(2)}× as fast as transformers.js dense fp32 wasm`));
    assert.match(await htmlReport(result), /transformers\.js on onnxruntime-web/);
    assert.equal(globalThis.Worker, Worker, "engines opened later start Deno's workers");

    const once = { folder, sparsity: 0, backend: "wasm" } as const;
    await assert.rejects(openSource(transformersJs({ ...once, threads: 3 })), /started it with 2/);
    await assert.rejects(openSource(transformersJs({ ...once, threads: 2 })), Deno.errors.NotFound);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
