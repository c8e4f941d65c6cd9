import assert from "node:assert/strict";
import { InputError } from "../src/core/errors.ts";
import { measurePreset } from "./grid.ts";
import { formatGrid, type GridCell, type GridPart, mergePart, parseGrid } from "./grid_report.ts";

const machine = { cpu: "Some CPU", isa: "avx2", cores: 4, caches: "unknown: test", peak_gflops: 55.5 };

function cell(changes: Partial<GridCell>): GridCell {
  return {
    tokens: 16,
    batch: 1,
    sparsity: 0,
    pattern: "dense",
    latencyMs: 2,
    p95Ms: 3,
    calls: 40,
    oneThreadMs: 3.8,
    onnxRuntimeMs: 4,
    onnxRuntimeOneThreadMs: 7,
    speedup: 2,
    ...changes,
  };
}

const part = (preset: string, cells: readonly GridCell[]): GridPart => ({
  preset,
  machine,
  threads: 2,
  cells,
});

Deno.test("mergePart replaces the part of its preset and keeps the others, through JSON", () => {
  const [tiny, base] = [part("bert-tiny", [cell({})]), part("bert-base", [cell({ batch: 8 })])];
  const again = part("bert-tiny", [cell({ latencyMs: 1 })]);
  const parts = [tiny, base, again].reduce(mergePart, []);
  assert.deepEqual(parts, [again, base]);
  // Shapes that were not measured again stay, unless they are of another machine.
  const [large, small] = [cell({ batch: 8 }), cell({ latencyMs: 3 })];
  const [{ cells }] = mergePart([part("bert-tiny", [cell({}), large])], part("bert-tiny", [small]));
  assert.deepEqual(cells, [small, large]);
  const elsewhere = { ...part("bert-tiny", [small]), machine: { ...machine, cpu: "another" } };
  assert.deepEqual(mergePart([part("bert-tiny", [cell({}), large])], elsewhere), [elsewhere]);
  assert.deepEqual(parseGrid(JSON.stringify({ parts }), "fp32.json"), parts);
  for (const text of ["[1]", "{}", "nothing", "null"]) {
    assert.throws(() => parseGrid(text, "fp32.json"), InputError, text);
  }
});

Deno.test("formatGrid: a table of latencies for each preset under its machine, and one of threads", () => {
  const sparse = { pattern: "unstructured", sparsity: 0.9 } as const;
  const text = formatGrid([
    part("bert-tiny", [
      cell({}),
      cell({ ...sparse, latencyMs: 0.5, speedup: 8, calls: 160, oneThreadMs: undefined }),
      cell({ tokens: 384, calls: 2 }),
    ]),
    part("bert-base", [cell({ calls: undefined, oneThreadMs: undefined })]),
  ]);
  const [, tiny, base] = text.split("\n## ");
  const lines = tiny.split("\n");
  assert.deepEqual(lines.slice(2, 9), [
    "Some CPU, 4 cores, caches unknown: test; avx2, 56 GFLOP/s fp32 a core measured; 2 threads.",
    "",
    "| tokens × batch | calls | ONNX Runtime ms | dense | unstructured 90 % |",
    "| --- | --- | --- | --- | --- |",
    "| 16 × 1 | 40 | 4.00 | 2.00 (2.0×) | 0.50 (8.0×) |",
    "| 384 × 1 | 2 | 4.00 | 2.00 (2.0×) |  |",
    "",
  ]);
  assert.deepEqual(lines.slice(9, 14), [
    "One thread, in ms (times as fast with 2):",
    "",
    "| tokens × batch | ONNX Runtime | dense |",
    "| --- | --- | --- |",
    "| 16 × 1 | 7.00 (1.75×) | 3.80 (1.90×) |",
  ]);
  assert.match(base, /\| 16 × 1 \| {2}\| 4\.00 \| 2\.00 \(2\.0×\) \|\n$/);
});

Deno.test("measurePreset: a point for every shape and model, measured on one thread too where that is shown", async () => {
  const notes: string[] = [];
  const { cells, threads } = await measurePreset({
    preset: "bert-tiny",
    tokens: [16, 5],
    batches: [2],
    threads: 2,
    seconds: 0.001,
    note: (text) => notes.push(text),
  });
  assert.equal(threads, 2);
  assert.deepEqual(cells.map(({ tokens }) => tokens), [...Array(7).fill(16), ...Array(7).fill(5)]);
  for (const cell of cells) {
    assert(cell.calls! >= 2 && cell.latencyMs > 0 && cell.p95Ms >= cell.latencyMs);
    assert.equal(cell.speedup, cell.onnxRuntimeMs / cell.latencyMs);
    assert.equal(cell.relativeLogitDifference !== undefined, cell.pattern === "dense");
    assert.equal(cell.oneThreadMs !== undefined, cell.sparsity === 0 || cell.sparsity === 0.9);
    assert(cell.onnxRuntimeOneThreadMs! > 0);
  }
  assert.match(
    notes.at(-2)!,
    /^bert-tiny 5 tokens × 2: ONNX Runtime .* 1 of 2 shapes, about \d+\.\d min left$/,
  );
});

Deno.test("grid.ts says in one line what is wrong with its flags, and exits with 2", async () => {
  for (
    const [flags, message] of [
      [["--tokens", "16,0"], /^grid: --tokens is 16,0: wanted whole numbers from 1, with commas between\n$/],
      [["--nothing"], /^grid: .*--nothing.*\n$/],
    ] as const
  ) {
    const args = ["run", "--no-check", "-A", new URL("grid.ts", import.meta.url).href, ...flags];
    const { code, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    assert.equal(code, 2);
    assert.match(new TextDecoder().decode(stderr), message);
  }
});
