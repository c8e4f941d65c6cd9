/**
 * The result of `bench --train`, and its tables for the terminal.
 * @module
 */
import type { Comparison, Origin } from "./against.ts";
import type { GpuDescription, TimedPeaks } from "./gpu/adapter.ts";
import type { MachineDescription } from "./machine.ts";
import { percent, significant, type TextColumn, textTable } from "../src/report/text_table.ts";
import type { TrainRow } from "./train.ts";
import type { TrainFileRow } from "./train_file.ts";

/** A row beside another engine's. */
export type Compared<Row> = Row & {
  /** The fastest row of the files of `--against` for the same work, where there is one. */
  readonly against?: Comparison;
  /** On a GPU: the fastest by precision (`fp32`, `tf32`, `bf16`). */
  readonly against_by_precision?: Readonly<Record<string, Comparison>>;
};

/** What `bench --train --json` writes. */
export interface TrainBenchResult {
  readonly machine: MachineDescription;
  /** With `--device webgpu` or `dawn`: the GPU and its measured limits. */
  readonly gpu?: GpuDescription & { readonly peaks: TimedPeaks };
  /** What was asked for. */
  readonly config: Readonly<Record<string, string | number>>;
  /** Steps of equal sequences. */
  readonly rows: readonly Compared<TrainRow>[];
  /** Runs on a file; empty without one. */
  readonly file_rows: readonly Compared<TrainFileRow>[];
  /** Machine, versions and settings of the files of `--against`. */
  readonly against?: readonly (Origin & { readonly file: string })[];
}

/** Operations in the second table; the rest is one line. */
const listedOperations = 12;

/** The result as text: steps, operations, runs on a file. */
export function formatTraining({ machine, gpu, rows, file_rows }: TrainBenchResult): string {
  const parts = [
    `${machine.cpu}; ${machine.isa}, ${significant(machine.peak_gflops)} GFLOP/s fp32 a core measured`,
  ];
  if (gpu) {
    const { name, isSoftware, peaks } = gpu;
    const kind = isSoftware ? ", a CPU that plays a GPU" : "";
    parts.push(`${name}${kind}; ${significant(1000 * peaks.fp32_tflops)} GFLOP/s fp32 measured`);
  }
  if (rows.length > 0) {
    parts.push("fine-tuning steps", textTable(withComparison(stepColumns(rows), rows), rows));
  }
  const groups = Map.groupBy(
    rows.filter(({ operations }) => operations.length > 0),
    ({ model, batch, tokens, device, precision }) =>
      `${device === "cpu" ? "one worker" : `the GPU in ${precision}`}: ${model} ${batch}×${tokens}`,
  );
  for (const [name, group] of groups) {
    parts.push(`ms of one step by operation, ${name}`, operationTable(group));
  }
  if (file_rows.length > 0) {
    parts.push("finetune on the file", textTable(withComparison(fileColumns, file_rows), file_rows));
  }
  return parts.join("\n\n");
}

const modelColumn: TextColumn<TrainRow | TrainFileRow> = {
  heading: "model",
  cell: ({ model }) => model,
  words: true,
};

const deviceColumn: TextColumn<TrainRow> = { heading: "device", cell: ({ device }) => device, words: true };

const precisionColumn: TextColumn<TrainRow> = {
  heading: "precision",
  cell: ({ precision }) => precision,
  words: true,
};

const zerosColumn: TextColumn<TrainRow | TrainFileRow> = {
  heading: "zeros",
  cell: ({ sparsity }) => percent(sparsity),
};

const patternColumn: TextColumn<TrainRow | TrainFileRow> = {
  heading: "pattern",
  cell: ({ pattern }) => pattern,
  words: true,
};

/** The device and its precision are named where there are two devices. */
const stepColumns = (rows: readonly TrainRow[]): readonly TextColumn<TrainRow>[] => [
  modelColumn,
  ...(rows.every(({ device }) => device === "cpu") ? [] : [deviceColumn, precisionColumn]),
  patternColumn,
  zerosColumn,
  { heading: "kernels", cell: ({ kernels }) => kernels, words: true },
  { heading: "batch", cell: ({ batch, tokens }) => `${batch}×${tokens}` },
  { heading: "threads", cell: ({ threads }) => `${threads}` },
  { heading: "p50 ms", cell: ({ step_ms }) => significant(step_ms.p50) },
  { heading: "p95 ms", cell: ({ step_ms }) => significant(step_ms.p95) },
  { heading: "± std", cell: ({ step_ms }) => significant(step_ms.std) },
  { heading: "tokens/s", cell: ({ tokens_per_second }) => significant(tokens_per_second) },
  { heading: "of peak", cell: ({ share_of_peak }) => percent(share_of_peak) },
  { heading: "× dense", cell: ({ speedup_vs_dense }) => speedup_vs_dense?.toFixed(2) ?? "–" },
];

const fileColumns: readonly TextColumn<TrainFileRow>[] = [
  modelColumn,
  patternColumn,
  zerosColumn,
  { heading: "batch", cell: ({ batch }) => `${batch}` },
  { heading: "threads", cell: ({ threads }) => `${threads}` },
  { heading: "steps", cell: ({ steps }) => `${steps}` },
  { heading: "examples/s", cell: ({ examples_per_second }) => significant(examples_per_second) },
  { heading: "tokens/s", cell: ({ tokens_per_second }) => significant(tokens_per_second) },
];

/** The columns, and those of the other engine where any row has one. */
function withComparison<Row>(
  columns: readonly TextColumn<Row>[],
  rows: readonly Compared<Row>[],
): readonly TextColumn<Compared<Row>>[] {
  if (!rows.some(({ against }) => against)) return columns;
  const precisions = new Set(rows.flatMap((row) => Object.keys(row.against_by_precision ?? {})));
  return [
    ...columns,
    { heading: "× against", cell: ({ against }) => against?.speedup.toFixed(2) ?? "–" },
    { heading: "against", cell: ({ against }) => against?.engine ?? "", words: true },
    ...Array.from(precisions, (precision): TextColumn<Compared<Row>> => ({
      heading: `× ${precision}`,
      cell: (row) => row.against_by_precision?.[precision]?.speedup.toFixed(2) ?? "–",
    })),
  ];
}

/** A line for each operation, a column for each sparsity. */
function operationTable(rows: readonly TrainRow[]): string {
  const totals = new Map<string, number>();
  for (const { operations } of rows) {
    for (const { operation, ms } of operations) totals.set(operation, (totals.get(operation) ?? 0) + ms);
  }
  const names = [...totals].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const listed = names.slice(0, listedOperations);
  const sum = ({ operations }: TrainRow, isMeant: (name: string) => boolean) =>
    operations.reduce((total, { operation, ms }) => total + (isMeant(operation) ? ms : 0), 0);
  const lines = [
    ...listed.map((name) => ({ name, isMeant: (operation: string) => operation === name })),
    { name: "all others", isMeant: (operation: string) => !listed.includes(operation) },
    { name: "together", isMeant: () => true },
  ];
  return textTable([
    { heading: "operation", cell: ({ name }) => name, words: true },
    ...rows.map((row): TextColumn<typeof lines[number]> => ({
      heading: percent(row.sparsity),
      cell: ({ isMeant }) => significant(sum(row, isMeant)),
    })),
  ], lines);
}
