/**
 * Shows a benchmark result: a table for the terminal, a page for everybody else.
 *
 * The page is one file that needs nothing: charts are drawn to SVG when it is written, there is no script and no
 * reference to anything outside. Colours are CSS variables, so it follows the reader's light or dark setting.
 * @module
 */
import * as vega from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import type { Cache, MachineDescription } from "./machine.ts";
import { agreementLimit, agrees, type BenchResult, type BenchRow, rowLabel } from "./result.ts";

/** One column of the table: its heading, and the cell of a row. */
interface Column {
  readonly heading: string;
  readonly cell: (row: BenchRow) => string;
  /** Text is set to the left, numbers to the right. */
  readonly text?: true;
}

const columns: readonly Column[] = [
  { heading: "engine", cell: rowLabel, text: true },
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
  const cells = [
    columns.map(({ heading }) => heading),
    ...result.rows.map((row) => columns.map((c) => c.cell(row))),
  ];
  const widths = columns.map((_, c) => Math.max(...cells.map((line) => line[c].length)));
  const lines = cells.map((line) =>
    line.map((cell, c) => columns[c].text ? cell.padEnd(widths[c]) : cell.padStart(widths[c])).join("  ")
      .trimEnd()
  );
  const rule = widths.map((width) => "─".repeat(width)).join("──");
  const disagreeing = result.rows.filter((row) => !agrees(row));
  const warnings = disagreeing.map((row) => `! ${disagreement(row)}`);
  const onWasm = wasmComparison(result.rows);
  return [
    describeMachineText(result.machine),
    describeConfig(result),
    "",
    lines[0],
    rule,
    ...lines.slice(1),
    ...(onWasm === undefined ? [] : ["", onWasm]),
    ...warnings,
  ]
    .join("\n");
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
      await chart(latencyChart(rows), "Bar chart of the median latency of each engine"),
    ),
    section(
      "Speed-up",
      "Median latency of ONNX Runtime with dense fp32 weights over that of each engine. The line marks 1.",
      await chart(speedupChart(rows), "Bar chart of the speed-up of each engine"),
    ),
    ...(Object.keys(layerSparsity).length === 0 ? [] : [section(
      "Sparsity by layer",
      "Share of zeros, in percent, of each prunable weight.",
      await chart(sparsityChart(layerSparsity), "Heat map of the share of zeros of each weight"),
    )]),
    section("All numbers", "", htmlTable(rows)),
    section("Machine", "", `<p>${escape(describeMachineText(result.machine))}.</p>`),
    section("Method", "", method(result)),
  ];
  const fastest = fastestRow(rows);
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lacuna bench</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>lacuna bench</h1>
<p class="subtitle">${escape(describeConfig(result))}</p>
${fastest ? `<p class="headline">${escape(headline(fastest))}</p>` : ""}
${sections.join("\n")}
</main>
</body>
</html>
`;
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

function section(title: string, text: string, content: string): string {
  return `<section>\n<h2>${title}</h2>\n${text && `<p class="lead">${text}</p>\n`}${content}\n</section>`;
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
  return paragraphs.map((text) => `<p>${escape(text)}</p>`).join("\n");
}

function htmlTable(rows: readonly BenchRow[]): string {
  const line = (tag: string, cells: readonly string[]) =>
    `<tr>${
      cells.map((cell, c) => `<${tag}${columns[c].text ? "" : ' class="number"'}>${escape(cell)}</${tag}>`)
        .join("")
    }</tr>`;
  return `<div class="wide"><table>
<thead>${line("th", columns.map(({ heading }) => heading))}</thead>
<tbody>${rows.map((row) => line("td", columns.map(({ cell }) => cell(row)))).join("\n")}</tbody>
</table></div>`;
}

// Charts ------------------------------------------------------------------------------------------------------

/** Draws a chart as an SVG element. Sizes come from the view box, so that it scales with the page. */
async function chart(spec: TopLevelSpec, label: string): Promise<string> {
  const view = new vega.View(vega.parse(compile({ ...spec, config: chartConfig }).spec), {
    renderer: "none",
  });
  const svg = await view.toSVG();
  view.finalize();
  const named = svg.replace(/^<svg /, `<svg role="img" aria-label="${escape(label)}" `);
  return `<figure>${named}</figure>`;
}

/** Colours are the variables of the page's style sheet. */
const chartConfig: TopLevelSpec["config"] = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "var(--ink)",
    titleColor: "var(--faint)",
    gridColor: "var(--line)",
    domainColor: "var(--line)",
    tickColor: "var(--line)",
    labelFontSize: 13,
    labelLimit: 0,
    titleFontSize: 12,
    titleFontWeight: "normal",
  },
  legend: { labelColor: "var(--ink)", titleColor: "var(--faint)", labelFontSize: 13 },
  text: { color: "var(--ink)", fontSize: 13 },
};

const chartWidth = 560;
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

/** Layers down, the matrices of a layer across. A name without a layer number gets a line of its own. */
function sparsityChart(layerSparsity: Readonly<Record<string, number>>): TopLevelSpec {
  const values = Object.entries(layerSparsity).map(([name, sparsity]) => {
    const [, layer, matrix] = name.match(/\.layer\.(\d+)\.(.*?)(?:\.weight)?$/) ?? [];
    return {
      layer: layer === undefined ? "other" : `layer ${layer}`,
      matrix: matrix ?? name,
      percent: 100 * sparsity,
      text: (100 * sparsity).toFixed(sparsity >= 0.9995 ? 0 : 1),
    };
  });
  return {
    width: { step: 92 },
    height: { step: 26 },
    data: { values },
    encoding: {
      x: {
        field: "matrix",
        type: "nominal",
        sort: null,
        title: null,
        axis: { labelAngle: -25, orient: "top" },
      },
      y: { field: "layer", type: "nominal", sort: null, title: null },
    },
    layer: [
      {
        mark: { type: "rect", color: "var(--accent)" },
        encoding: {
          opacity: {
            field: "percent",
            type: "quantitative",
            scale: { domain: [0, 100], range: [0.05, 0.6] },
            legend: null,
          },
        },
      },
      { mark: "text", encoding: { text: { field: "text" } } },
    ],
  };
}

// Words -------------------------------------------------------------------------------------------------------

/** The machine in one line. */
function describeMachineText({ cpu, isa, cores, caches, peak_gflops }: MachineDescription): string {
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

/** Three significant digits without an exponent. */
function significant(value: number): string {
  if (!Number.isFinite(value)) return `${value}`;
  const digits = value === 0 ? 2 : 2 - Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.max(0, Math.min(digits, 6)));
}

const milliseconds = significant;

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}

const style = `
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #22252a; --faint: #6a7078; --line: #dddfe2; --accent: #0f7b6c; --bar: #a9b0b8;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e4e6e8; --faint: #969ca4; --line: #34383d; --accent: #3fb6a3; --bar: #5d646c; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.3rem; }
p { margin: 0.3rem 0 0.8rem; max-width: 46rem; }
.subtitle, .lead { color: var(--faint); }
.headline { font-size: 1.15rem; margin: 1.2rem 0; padding-left: 0.9rem; border-left: 3px solid var(--accent); }
figure { margin: 0; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.5rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { color: var(--faint); font-weight: 500; white-space: normal; vertical-align: bottom; }
.number { text-align: right; }
`;
