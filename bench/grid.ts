/**
 * The whole grid: shapes × sparsities × patterns × lengths × batches, lacuna against ONNX Runtime, in turns.
 *
 *     deno run -A bench/grid.ts --out bench/results/fp32 [--presets bert-tiny,minilm-l6,bert-base] [--seconds 0.5]
 *
 * Writes `<out>.json` and `<out>.md`. For each shape all engines are open at once and take turns on the same ids.
 * @module
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { presetConfig } from "../models/presets.ts";
import { openModel } from "../src/checkpoint/model_folder.ts";
import { chooseThreads } from "../src/core/cores.ts";
import { ensureFolder, writeFileAtomic } from "../src/core/files.ts";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { writeOnnx } from "../src/export/onnx.ts";
import type { Pattern } from "../src/pruning/pattern.ts";
import { onnxRuntime } from "./baselines.ts";
import { compareLogits } from "./compare.ts";
import { type EncodedBatch, type Engine, openSource } from "./engine.ts";
import { lacuna } from "./lacuna.ts";
import { describeMachine, type MachineDescription } from "./machine.ts";
import { interleave } from "./measure.ts";
import { writeSyntheticModel } from "./model.ts";
import { agreementLimit } from "./result.ts";

/** One measured point. */
export interface GridCell {
  readonly preset: string;
  readonly tokens: number;
  readonly batch: number;
  readonly sparsity: number;
  readonly pattern: Pattern | "dense";
  /** Median latency of one call. */
  readonly latencyMs: number;
  readonly p95Ms: number;
  /** Median latency of ONNX Runtime on the same call: the faster of its two files. */
  readonly onnxRuntimeMs: number;
  /** onnxRuntimeMs / latencyMs */
  readonly speedup: number;
  /** Largest logit difference as a share of the range of ONNX Runtime's logits. */
  readonly relativeLogitDifference: number;
}

/** The sparse models of the grid; dense is measured too. */
const variants: readonly { pattern: Pattern; sparsity: number }[] = [
  ...[0.5, 0.7, 0.8, 0.9, 0.95].map((sparsity) => ({ pattern: "unstructured" as const, sparsity })),
  ...[0.5, 0.7, 0.8, 0.9, 0.95].map((sparsity) => ({ pattern: "4x1" as const, sparsity })),
];

const lengths = [16, 64, 128, 384];
const batches = [1, 8, 32];

function randomBatch(batch: number, tokens: number, vocabularySize: number): EncodedBatch {
  const stream = new RandomStream(randomKey(0, "grid", batch, tokens));
  const rows = (draw: () => number) =>
    Array.from({ length: batch }, () => Array.from({ length: tokens }, draw));
  return {
    inputIds: rows(() => stream.below(vocabularySize)),
    attentionMask: rows(() => 1),
    tokenTypeIds: rows(() => 0),
  };
}

interface OpenEngine {
  readonly engine: Engine;
  readonly sparsity: number;
  readonly pattern: GridCell["pattern"] | "onnxruntime";
}

async function measurePreset(
  preset: string,
  threads: number,
  seconds: number,
  note: (text: string) => void,
): Promise<GridCell[]> {
  const folder = await Deno.makeTempDir({ prefix: "lacuna-grid-" });
  const engines: OpenEngine[] = [];
  try {
    // All variants are pruned from the same weights. Zeros cost ONNX Runtime nothing and save it nothing, so its one
    // model is that of the first variant; the others' answers are compared by their own dense run.
    for (const { pattern, sparsity } of [{ pattern: "unstructured" as const, sparsity: 0 }, ...variants]) {
      const model = join(folder, `${pattern}-${sparsity}`);
      await writeSyntheticModel({ preset, sparsity, pattern, folder: model });
      const engine = await openSource(lacuna({ folder: model, threads, sparsity }));
      engines.push({ engine, sparsity, pattern: sparsity === 0 ? "dense" : pattern });
      if (sparsity > 0) continue;
      const { config, tensors } = await openModel(model);
      const shapes = new Map(tensors.names.map((name) => [name, tensors.shape(name)!]));
      const weights = new Map<string, Float32Array>();
      for (const [name, shape] of shapes) weights.set(name, await tensors.weight(name, shape));
      for (const operators of ["standard", "fused"] as const) {
        const path = join(folder, `${operators}.onnx`);
        await writeOnnx(path, config, (name) => weights.get(name)!, { operators });
        const baseline = await openSource(onnxRuntime({ path, dtype: "fp32", sparsity: 0, threads }));
        engines.push({ engine: baseline, sparsity: 0, pattern: "onnxruntime" });
      }
    }

    const cells: GridCell[] = [];
    const { vocabularySize } = presetConfig(preset);
    for (const tokens of lengths) {
      for (const batch of batches) {
        const input = randomBatch(batch, tokens, vocabularySize);
        const measured = await interleave(
          engines.map(({ engine }) => ({ name: engine.name, run: () => engine.run(input) })),
          { seconds, turnMs: 60, warmup: 2 },
        );
        const baselines = engines.flatMap(({ pattern }, i) => pattern === "onnxruntime" ? [i] : []);
        const onnxRuntimeMs = Math.min(...baselines.map((i) => measured[i].summary.p50));
        const expected = await engines[baselines[0]].engine.run(input);
        for (const [i, { engine, pattern, sparsity }] of engines.entries()) {
          if (pattern === "onnxruntime") continue;
          const { p50, p95 } = measured[i].summary;
          const difference = sparsity === 0
            ? compareLogits([await engine.run(input)], [expected]).relative
            : NaN;
          cells.push({
            preset,
            tokens,
            batch,
            sparsity,
            pattern,
            latencyMs: p50,
            p95Ms: p95,
            onnxRuntimeMs,
            speedup: onnxRuntimeMs / p50,
            relativeLogitDifference: difference,
          });
          if (difference > agreementLimit) {
            throw new Error(`${preset}: logits differ by ${difference} of their range`);
          }
        }
        note(`${preset} ${tokens} tokens × ${batch}: ONNX Runtime ${onnxRuntimeMs.toFixed(2)} ms`);
      }
    }
    return cells;
  } finally {
    for (const { engine } of engines) await engine.dispose();
    await Deno.remove(folder, { recursive: true });
  }
}

/** The grid as Markdown: a table per shape, speed-ups over ONNX Runtime's fp32. */
export function formatGrid(machine: MachineDescription, threads: number, cells: readonly GridCell[]): string {
  const caches = typeof machine.caches === "string"
    ? machine.caches
    : machine.caches.map(({ level, bytes }) => `L${level} ${(bytes / 2 ** 20).toFixed(2)} MiB`).join(", ");
  const lines = [
    "# fp32 inference against ONNX Runtime",
    "",
    `${machine.cpu}, ${machine.cores} cores, ${caches}; ${machine.isa}, ` +
    `${machine.peak_gflops.toFixed(0)} GFLOP/s fp32 a core measured; ${threads} threads. ` +
    "Cells: median latency of lacuna in ms (times faster than ONNX Runtime 1.30 fp32, same threads, in turns).",
  ];
  const columns: { pattern: GridCell["pattern"]; sparsity: number }[] = [
    { pattern: "dense", sparsity: 0 },
    ...variants,
  ];
  for (const preset of new Set(cells.map((cell) => cell.preset))) {
    lines.push("", `## ${preset}`, "");
    const name = ({ pattern, sparsity }: typeof columns[number]) =>
      pattern === "dense" ? "dense" : `${pattern} ${(sparsity * 100).toFixed(0)} %`;
    lines.push(`| tokens × batch | ONNX Runtime ms | ${columns.map(name).join(" | ")} |`);
    lines.push(`| --- | --- | ${columns.map(() => "---").join(" | ")} |`);
    for (const tokens of lengths) {
      for (const batch of batches) {
        const row = cells.filter((c) => c.preset === preset && c.tokens === tokens && c.batch === batch);
        if (row.length === 0) continue;
        const found = columns.map(({ pattern, sparsity }) => {
          const cell = row.find((c) => c.pattern === pattern && c.sparsity === sparsity)!;
          return `${cell.latencyMs.toFixed(2)} (${cell.speedup.toFixed(1)}×)`;
        });
        lines.push(`| ${tokens} × ${batch} | ${row[0].onnxRuntimeMs.toFixed(2)} | ${found.join(" | ")} |`);
      }
    }
  }
  return lines.join("\n") + "\n";
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      out: { type: "string", default: "bench/results/fp32" },
      presets: { type: "string", default: "bert-tiny,minilm-l6,bert-base" },
      seconds: { type: "string", default: "0.5" },
      threads: { type: "string" },
    },
  });
  const threads = chooseThreads(values.threads === undefined ? undefined : Number(values.threads)).count;
  const machine = await describeMachine();
  const cells: GridCell[] = [];
  for (const preset of values.presets.split(",")) {
    cells.push(
      ...await measurePreset(preset, threads, Number(values.seconds), (text) => console.error(text)),
    );
    await ensureFolder(join(values.out, ".."));
    await writeFileAtomic(`${values.out}.json`, JSON.stringify({ machine, threads, cells }, null, 1) + "\n");
    await writeFileAtomic(`${values.out}.md`, formatGrid(machine, threads, cells));
  }
}
