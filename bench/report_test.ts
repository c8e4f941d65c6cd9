import assert from "node:assert/strict";
import { formatTable, htmlReport } from "./report.ts";
import type { BenchResult, BenchRow } from "./result.ts";

function row(changes: Partial<BenchRow>): BenchRow {
  return {
    engine: "lacuna",
    backend: "native",
    weights: "sparse",
    dtype: "fp32",
    pattern: "4x1",
    sparsity: 0.9,
    threads: 2,
    batch: 1,
    tokens: 128,
    latency_ms: { p50: 12.34, p95: 15, p99: 16, mean: 12.5, std: 1 },
    items_per_second: 80,
    speedup_vs_dense_fp32: 6.5,
    max_abs_logit_difference: 1e-6,
    relative_logit_difference: 2e-6,
    load_ms: 100,
    first_answer_ms: 130,
    rss_mb: 200,
    file_mb: 44,
    ...changes,
  };
}

const result: BenchResult = {
  machine: {
    cpu: "Some CPU <x> & co",
    isa: "wasm-relaxed-simd",
    cores: 2,
    caches: [{ level: 1, kind: "data", bytes: 49152 }, { level: 2, kind: "unified", bytes: 2 ** 21 }],
    peak_gflops: 55.6,
  },
  config: { model: "bert-base", tokens: 128, threads: 2, seconds: 5 },
  rows: [
    row({}),
    row({ engine: "onnxruntime", weights: "dense", pattern: "dense", speedup_vs_dense_fp32: 1 }),
    row({ dtype: "int8", pattern: "1x4", relative_logit_difference: 0.02 }),
  ],
};

Deno.test("formatTable: one aligned line for each engine below the machine", () => {
  const lines = formatTable(result).split("\n");
  assert.equal(
    lines[0],
    "Some CPU <x> & co; 2 cores; L1d 48 KiB, L2 2.00 MiB; wasm-relaxed-simd, 56 GFLOP/s fp32 a core measured",
  );
  assert.equal(lines[1], "model bert-base, tokens 128, threads 2, seconds 5");
  assert.equal(lines.length, 5 + result.rows.length);
  assert.match(lines[3], /^engine +zeros +p50 ms .* file MB$/);
  assert.match(lines[5], /^lacuna sparse fp32 4x1 +90 % +12\.3 .* 6\.50× /);
  assert.match(lines[6], /^onnxruntime dense fp32 /);
  const end = lines[3].length;
  for (const line of lines.slice(5)) assert.equal(line.length, end);
});

Deno.test("formatTable: an fp32 engine with other answers is called out, an int8 engine is not", () => {
  assert(!formatTable(result).includes("!"));
  const wrong = { ...result, rows: [...result.rows, row({ relative_logit_difference: 2e-3 })] };
  assert.match(formatTable(wrong), /^! lacuna sparse fp32 4x1 differs .* by 2\.0e-3 of their range/m);
  const broken = { ...result, rows: [row({ relative_logit_difference: NaN })] };
  assert.match(formatTable(broken), /^! lacuna sparse fp32 4x1 differs .* by NaN/m);
});

Deno.test("formatTable: says why when the caches are unknown", () => {
  const machine = { ...result.machine, caches: "unknown: no /sys here" };
  assert.match(formatTable({ ...result, machine }), /; caches unknown: no \/sys here; /);
});

Deno.test("htmlReport: is self-contained", async () => {
  const html = await htmlReport(result);
  assert.match(html, /^<!DOCTYPE html>/);
  const addresses = html.match(/(?:https?:)?\/\/[a-z0-9.]+[^"' <]*/gi) ?? [];
  assert.deepEqual([...new Set(addresses)].sort(), [
    "http://www.w3.org/1999/xlink",
    "http://www.w3.org/2000/svg",
  ]);
  assert.doesNotMatch(html, /<(script|link|img|iframe|object|embed)\b|@import|url\((?!#)|\bsrc=|\son\w+=/i);
});

Deno.test("htmlReport: shows a chart for speed and latency, the machine, the method and every row", async () => {
  const html = await htmlReport(result);
  assert.equal(html.match(/<svg /g)?.length, 2);
  assert.match(html, /12\.3 ms/);
  assert.match(html, /6\.50×/);
  assert.match(html, /Some CPU &lt;x&gt; &amp; co/);
  assert.doesNotMatch(html, /<x>/);
  assert.equal(html.match(/<tr>/g)?.length, 1 + result.rows.length);
  for (const heading of ["Latency", "Speed-up", "All numbers", "Machine", "Method"]) {
    assert(html.includes(`<h2>${heading}</h2>`), heading);
  }
  assert.match(html, /All fp32 engines agree/);
  // Every colour of a chart comes from the style sheet, or dark mode would be unreadable.
  assert.doesNotMatch(html, /(fill|stroke)="#/);
});

Deno.test("htmlReport: layers get a heat map when their sparsity is given", async () => {
  const layerSparsity = {
    "bert.encoder.layer.0.attention.self.query.weight": 0.9,
    "bert.encoder.layer.1.output.dense.weight": 1,
    "bert.pooler.dense.weight": 0.125,
  };
  const html = await htmlReport(result, { layerSparsity });
  assert.equal(html.match(/<svg /g)?.length, 3);
  for (const text of ["attention.self.query", "layer 0", "layer 1", "90.0", ">100<", "12.5", "other"]) {
    assert(html.includes(text), text);
  }
});

Deno.test("htmlReport: two engines of one description keep a bar each", async () => {
  const html = await htmlReport({ ...result, rows: [row({}), row({})] });
  assert(html.includes("lacuna sparse fp32 4x1 (2)"));
});
