/**
 * What the grid measured, kept in parts that are measured and replaced one by one, and its Markdown tables.
 * @module
 */
import { InputError } from "../src/core/errors.ts";
import type { Pattern } from "../src/pruning/pattern.ts";
import type { Cache, MachineDescription } from "./machine.ts";

/** One measured point: a model at a length and a batch. */
export interface GridCell {
  /** Tokens of each text, all of them real. */
  readonly tokens: number;
  /** Texts in a call. */
  readonly batch: number;
  /** Share of zeros among the prunable weights. */
  readonly sparsity: number;
  /** Pruning pattern; `dense` for the model without zeros. */
  readonly pattern: Pattern | "dense";
  /** Median latency of one call. */
  readonly latencyMs: number;
  /** One call in twenty takes longer. */
  readonly p95Ms: number;
  /** Timed calls; absent in a part measured before they were counted. */
  readonly calls?: number;
  /** Median latency on one thread, where that was measured. */
  readonly oneThreadMs?: number;
  /** Median latency of ONNX Runtime on the same call: the faster of its two graphs. */
  readonly onnxRuntimeMs: number;
  /** The same on one thread. */
  readonly onnxRuntimeOneThreadMs?: number;
  /** onnxRuntimeMs / latencyMs */
  readonly speedup: number;
  /** Dense only: largest logit difference as a share of the range of ONNX Runtime's logits. */
  readonly relativeLogitDifference?: number;
}

/** All points of one preset, measured in one go. */
export interface GridPart {
  readonly preset: string;
  /** Where it was measured. */
  readonly machine: MachineDescription;
  /** Threads of every engine, but for the columns of one thread. */
  readonly threads: number;
  readonly cells: readonly GridCell[];
}

/** The parts in the text of a results file. Throws `InputError` for other JSON. */
export function parseGrid(text: string, path: string): GridPart[] {
  let parts: unknown;
  try {
    ({ parts } = JSON.parse(text));
  } catch {
    throw new InputError(`${path} is no JSON object: wanted the results of the grid`);
  }
  if (!Array.isArray(parts)) {
    throw new InputError(`${path} has no list "parts": wanted the results of the grid`);
  }
  return parts;
}

/**
 * The parts with a new one in the place of the old one of its preset, or at the end. Shapes that were not measured again
 * keep their cells, if those are of the same processor and threads.
 */
export function mergePart(parts: readonly GridPart[], part: GridPart): GridPart[] {
  const index = parts.findIndex(({ preset }) => preset === part.preset);
  if (index < 0) return [...parts, part];
  const old = parts[index];
  const isAlike = old.machine.cpu === part.machine.cpu && old.threads === part.threads;
  const isNew = ({ tokens, batch }: GridCell) =>
    part.cells.some((cell) => cell.tokens === tokens && cell.batch === batch);
  const kept = isAlike ? old.cells.filter((cell) => !isNew(cell)) : [];
  const cells = [...kept, ...part.cells].sort((a, b) => a.tokens - b.tokens || a.batch - b.batch);
  return parts.with(index, { ...part, cells });
}

/** The grid as Markdown: for each preset its machine, a table of latencies, and one of the gain by threads. */
export function formatGrid(parts: readonly GridPart[]): string {
  const lines = [
    "# fp32 inference against ONNX Runtime",
    "",
    "Cells: median latency of lacuna in ms (times faster than ONNX Runtime fp32, same threads, in turns, on the faster " +
    "of two graphs). `calls` is how many were timed of each engine, where engines differ the fewest. 4x1 is measured at " +
    "90 % only.",
  ];
  for (const part of parts) {
    lines.push("", `## ${part.preset}`, "", `${describeMachineLine(part)}.`, "", ...latencyTable(part.cells));
    const scaling = scalingTable(part);
    if (scaling.length > 0) lines.push("", ...scaling);
  }
  return lines.join("\n") + "\n";
}

function describeMachineLine({ machine, threads }: GridPart): string {
  const { cpu, cores, caches, isa, peak_gflops } = machine;
  const cache = ({ level, bytes }: Cache) => `L${level} ${(bytes / 2 ** 20).toFixed(2)} MiB`;
  const cacheText = typeof caches === "string" ? `caches ${caches}` : caches.map(cache).join(", ");
  return `${cpu}, ${cores} cores, ${cacheText}; ${isa}, ${
    peak_gflops.toFixed(0)
  } GFLOP/s fp32 a core measured; ` +
    `${threads} threads`;
}

/** Cells of one length and batch, a row of the tables. */
function shapesOf(cells: readonly GridCell[]): GridCell[][] {
  const shapes = Map.groupBy(cells, ({ tokens, batch }) => `${tokens} × ${batch}`);
  return [...shapes.values()];
}

const columnName = ({ pattern, sparsity }: GridCell): string =>
  pattern === "dense" ? "dense" : `${pattern} ${(100 * sparsity).toFixed(0)} %`;

function latencyTable(cells: readonly GridCell[]): string[] {
  const names = [...new Set(cells.map(columnName))];
  const rows = shapesOf(cells).map((shape) => {
    const [{ tokens, batch, onnxRuntimeMs }] = shape;
    const calls = Math.min(...shape.map((cell) => cell.calls ?? NaN));
    const found = names.map((name) => {
      const cell = shape.find((each) => columnName(each) === name);
      return cell ? `${cell.latencyMs.toFixed(2)} (${cell.speedup.toFixed(1)}×)` : "";
    });
    return [
      `${tokens} × ${batch}`,
      Number.isNaN(calls) ? "" : `${calls}`,
      onnxRuntimeMs.toFixed(2),
      ...found,
    ];
  });
  return markdownTable(["tokens × batch", "calls", "ONNX Runtime ms", ...names], rows);
}

/** No lines where nothing was measured on one thread. */
function scalingTable({ cells, threads }: GridPart): string[] {
  const measured = cells.filter(({ oneThreadMs }) => oneThreadMs !== undefined);
  if (measured.length === 0) return [];
  const names = [...new Set(measured.map(columnName))];
  const gain = (oneThreadMs: number, ms: number) =>
    `${oneThreadMs.toFixed(2)} (${(oneThreadMs / ms).toFixed(2)}×)`;
  const rows = shapesOf(measured).map((shape) => {
    const [{ tokens, batch, onnxRuntimeMs, onnxRuntimeOneThreadMs }] = shape;
    const found = names.map((name) => {
      const { oneThreadMs, latencyMs } = shape.find((each) => columnName(each) === name)!;
      return gain(oneThreadMs!, latencyMs);
    });
    return [`${tokens} × ${batch}`, gain(onnxRuntimeOneThreadMs!, onnxRuntimeMs), ...found];
  });
  return [
    `One thread, in ms (times as fast with ${threads}):`,
    "",
    ...markdownTable(["tokens × batch", "ONNX Runtime", ...names], rows),
  ];
}

function markdownTable(heading: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heading), line(heading.map(() => "---")), ...rows.map(line)];
}
