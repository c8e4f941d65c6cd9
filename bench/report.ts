/**
 * Shows a benchmark result: a table for the terminal, a page for everybody else.
 * @module
 */
import type { Cache, MachineDescription } from "./machine.ts";
import { chartWidth, drawChart, type TopLevelSpec } from "../src/report/chart.ts";
import { escapeHtml, htmlPage, htmlTable, section } from "../src/report/page.ts";
import { sparsityChart } from "../src/report/sparsity_chart.ts";
import { significant, type TextColumn, textTable } from "../src/report/text_table.ts";
import { agreementLimit, agrees, type BenchResult, type BenchRow, rowLabel } from "./result.ts";

const columns: readonly TextColumn<BenchRow>[] = [
  { heading: "engine", cell: rowLabel, words: true },
  { heading: "zeros", cell: (row) => `${(100 * row.sparsity).toFixed(0)} %` },
  { heading: "p50 ms", cell: (row) => milliseconds(row.latency_ms.p50) },
  { heading: "p95 ms", cell: (row) => milliseconds(row.latency_ms.p95) },
  { heading: "± std", cell: (row) => milliseconds(row.latency_ms.std) },
  { heading: "texts/s", cell: (row) => significant(row.items_per_second) },
  { heading: "speed-up", cell: (row) => `${row.speedup_vs_dense_fp32.toFixed(2)}×` },
  {
    heading: "logit difference",
    cell: (row) => `${row.relative_logit_difference.toExponential(1)}${agrees(row) ? "" : " !"}`,
  },
  { heading: "load ms", cell: (row) => row.load_ms.toFixed(0) },
  { heading: "first answer ms", cell: (row) => row.first_answer_ms.toFixed(0) },
  { heading: "memory MB", cell: (row) => row.rss_mb.toFixed(0) },
  { heading: "file MB", cell: (row) => significant(row.file_mb) },
];

/** The result as lines of text, the machine first. */
export function formatTable(result: BenchResult): string {
  const disagreeing = result.rows.filter((row) => !agrees(row));
  const warnings = disagreeing.map((row) => `! ${disagreement(row)}`);
  const onWasm = wasmComparison(result.rows);
  return [
    describeMachineText(result.machine),
    describeConfig(result),
    "",
    textTable(columns, result.rows),
    ...(onWasm === undefined ? [] : ["", onWasm]),
    ...warnings,
  ].join("\n");
}

/** How lacuna's fastest WebAssembly compares with that of transformers.js, where both were measured. */
function wasmComparison(rows: readonly BenchRow[]): string | undefined {
  const [ours, theirs] = (["lacuna", "transformers.js"] as const).map((engine) =>
    rows.filter((row) => row.engine === engine && row.backend === "wasm")
      .sort((a, b) => a.latency_ms.p50 - b.latency_ms.p50)[0]
  );
  if (!ours || !theirs) return undefined;
  const ratio = theirs.latency_ms.p50 / ours.latency_ms.p50;
  return `On WebAssembly alone: ${rowLabel(ours)} is ${ratio.toFixed(2)}× as fast as ${rowLabel(theirs)}.`;
}

/** Further content of the page that is not in the JSON result. */
export interface ReportExtras {
  /** Share of zeros of each prunable weight, by checkpoint name. */
  readonly layerSparsity?: Readonly<Record<string, number>>;
}

/** The result as one HTML page. */
export async function htmlReport(result: BenchResult, extras: ReportExtras = {}): Promise<string> {
  const { layerSparsity = {} } = extras;
  const { rows } = result;
  const sections = [
    section(
      "Latency",
      "One call, in milliseconds: the bar is the median, the line reaches from it to the 95th percentile. Shorter is better.",
      await drawChart(latencyChart(rows), "Bar chart of the median latency of each engine"),
    ),
    section(
      "Speed-up",
      "Median latency of ONNX Runtime with dense fp32 weights over that of each engine. The line marks 1.",
      await drawChart(speedupChart(rows), "Bar chart of the speed-up of each engine"),
    ),
    ...(Object.keys(layerSparsity).length === 0 ? [] : [section(
      "Sparsity by layer",
      "Share of zeros, in percent, of each prunable weight.",
      await drawChart(sparsityChart(layerSparsity), "Heat map of the share of zeros of each weight"),
    )]),
    section("All numbers", "", htmlTable(columns, rows)),
    section("Machine", "", `<p>${escapeHtml(describeMachineText(result.machine))}.</p>`),
    section("Method", "", method(result)),
  ];
  const fastest = fastestRow(rows);
  return htmlPage({
    title: "lacuna bench",
    subtitle: describeConfig(result),
    headline: fastest && headline(fastest),
    sections,
  });
}

function fastestRow(rows: readonly BenchRow[]): BenchRow | undefined {
  return [...rows].sort((a, b) => b.speedup_vs_dense_fp32 - a.speedup_vs_dense_fp32)[0];
}

function headline(row: BenchRow): string {
  return `Fastest: ${rowLabel(row)}, ${milliseconds(row.latency_ms.p50)} ms a call, ${
    row.speedup_vs_dense_fp32.toFixed(2)
  } times as fast as ONNX Runtime with dense fp32 weights.`;
}

function disagreement(row: BenchRow): string {
  return `${rowLabel(row)} differs from ONNX Runtime's fp32 logits by ${
    row.relative_logit_difference.toExponential(1)
  } of their range, more than the ${agreementLimit} that rounding explains`;
}

function method({ rows, config }: BenchResult): string {
  const disagreeing = rows.filter((row) => !agrees(row));
  const paragraphs = [
    `All engines ran in one process with ${config.threads} compute threads each, on the same random ids without padding. ` +
    "They took turns: a pause for the threads of the engine before to come to rest, one untimed call, then timed calls " +
    `for a fifth of a second; the order was reversed every round, ${config.seconds} timed seconds for each engine. ` +
    "Times are those of a call from TypeScript, copying in and out included.",
    "ONNX Runtime ran with all graph optimisations, and with whichever operators (standard, or its own fused ones for " +
    "encoders) and whichever way of waiting (spinning or sleeping) were fastest on this batch. It stores pruned weights as zeros and multiplies by them, " +
    "so the share of zeros does not change its speed.",
    ...(rows.some((row) => row.engine === "transformers.js" && row.backend === "wasm")
      ? [
        "Rows named wasm ran as WebAssembly: transformers.js on onnxruntime-web, with its SIMD and the same number of threads.",
      ]
      : []),
    "Load time, first answer and memory come from a fresh process for each engine that does nothing else, with the " +
    "files in the page cache; memory is everything that process holds resident, the runtime included.",
    "Logits were compared over several batches with those of ONNX Runtime in fp32; the difference is given as a share " +
    `of their range. fp32 engines are held to ${agreementLimit}; int8 rounds, so its difference is only reported. ` +
    (disagreeing.length === 0 ? "All fp32 engines agree." : `${disagreeing.map(disagreement).join(". ")}.`),
  ];
  return paragraphs.map((text) => `<p>${escapeHtml(text)}</p>`).join("\n");
}

// Charts ------------------------------------------------------------------------------------------------------

const barHeight = { step: 34 };
/** One line per engine, in the order of the rows. */
const engineAxis = {
  field: "label",
  type: "nominal",
  sort: null,
  title: null,
} as const;
/** Ours in the accent colour, everybody else's in grey. */
const engineColor = {
  field: "ours",
  type: "nominal",
  legend: null,
  scale: { domain: [true, false], range: ["var(--accent)", "var(--bar)"] },
} as const;

/** One record per row, in the order of the rows, labels made unique so that no two bars share a line. */
function chartRecords(rows: readonly BenchRow[]) {
  const seen = new Map<string, number>();
  return rows.map((row) => {
    const label = rowLabel(row);
    const count = (seen.get(label) ?? 0) + 1;
    seen.set(label, count);
    return {
      label: count === 1 ? label : `${label} (${count})`,
      ours: row.engine === "lacuna",
      p50: row.latency_ms.p50,
      p95: row.latency_ms.p95,
      p50Text: `${milliseconds(row.latency_ms.p50)} ms`,
      speedup: row.speedup_vs_dense_fp32,
      speedupText: `${row.speedup_vs_dense_fp32.toFixed(2)}×`,
    };
  });
}

function latencyChart(rows: readonly BenchRow[]): TopLevelSpec {
  return {
    width: chartWidth,
    height: barHeight,
    data: { values: chartRecords(rows) },
    encoding: { y: engineAxis },
    layer: [
      {
        mark: { type: "bar", cornerRadiusEnd: 3 },
        encoding: { x: { field: "p50", type: "quantitative", title: "milliseconds" }, color: engineColor },
      },
      {
        mark: { type: "rule", color: "var(--ink)" },
        encoding: { x: { field: "p50", type: "quantitative" }, x2: { field: "p95" } },
      },
      {
        mark: { type: "tick", color: "var(--ink)", height: 10 },
        encoding: { x: { field: "p95", type: "quantitative" } },
      },
      {
        mark: { type: "text", align: "left", dx: 8 },
        encoding: { x: { field: "p95", type: "quantitative" }, text: { field: "p50Text" } },
      },
    ],
  };
}

function speedupChart(rows: readonly BenchRow[]): TopLevelSpec {
  return {
    width: chartWidth,
    height: barHeight,
    data: { values: chartRecords(rows) },
    layer: [
      {
        mark: { type: "bar", cornerRadiusEnd: 3 },
        encoding: {
          y: engineAxis,
          x: { field: "speedup", type: "quantitative", title: "times as fast as dense fp32" },
          color: engineColor,
        },
      },
      {
        mark: { type: "text", align: "left", dx: 8 },
        encoding: {
          y: engineAxis,
          x: { field: "speedup", type: "quantitative" },
          text: { field: "speedupText" },
        },
      },
      {
        mark: { type: "rule", color: "var(--ink)", strokeDash: [4, 3] },
        encoding: { x: { datum: 1 } },
      },
    ],
  };
}

// Words -------------------------------------------------------------------------------------------------------

/** The machine in one line. */
export function describeMachineText({ cpu, isa, cores, caches, peak_gflops }: MachineDescription): string {
  const cacheText = typeof caches === "string" ? `caches ${caches}` : caches.map(describeCache).join(", ");
  return `${cpu}; ${cores} cores; ${cacheText || "no caches reported"}; ${isa}, ${
    peak_gflops.toFixed(0)
  } GFLOP/s fp32 a core measured`;
}

function describeCache({ level, kind, bytes }: Cache): string {
  const size = bytes >= 2 ** 20 ? `${significant(bytes / 2 ** 20)} MiB` : `${bytes / 1024} KiB`;
  return `L${level}${kind === "data" ? "d" : ""} ${size}`;
}

/** What was asked for, in one line. */
function describeConfig({ config }: BenchResult): string {
  return Object.entries(config).map(([name, value]) => `${name} ${value}`).join(", ");
}

const milliseconds = significant;
