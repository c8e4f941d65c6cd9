/**
 * PyTorch's rows, as `tools/compare/train.py` and `tools/compare/hf_trainer.py` write them, to set beside ours.
 * @module
 */
import { z } from "zod";
import { InputError } from "../src/core/errors.ts";
import { readJson } from "../src/core/files.ts";
import type { Precision } from "../src/finetune/options.ts";

const rowSchema = z.object({
  engine: z.string(),
  model: z.string(),
  device: z.string(),
  dtype: z.string(),
  attention: z.string(),
  compile: z.boolean(),
  batch: z.number(),
  /** Of rows with `step_ms`: steps on batches without padding. */
  tokens: z.number().optional(),
  threads: z.number(),
  step_ms: z.object({ p50: z.number() }).optional(),
  examples_per_second: z.number(),
  /** Of rows without `step_ms`: a run of the Hugging Face trainer. */
  group_by_length: z.boolean().optional(),
});

/** Where and how the rows of a file were measured: as the scripts write it. */
const originSchema = z.object({
  machine: z.looseObject({ cpu: z.string() }),
  versions: z.record(z.string(), z.string()),
  settings: z.record(z.string(), z.unknown()),
});

/** What a result file says of its rows besides, kept word for word. */
export type Origin = Readonly<z.infer<typeof originSchema>>;

/** A file of rows. */
export interface OtherResult {
  readonly path: string;
  readonly origin: Origin;
  readonly rows: readonly OtherRow[];
}

/** A row of another engine: steps of equal sequences (`tokens`, `step_ms`), or a run on a file. */
export type OtherRow = Readonly<z.infer<typeof rowSchema>>;

/** How much faster we are than the other engine's fastest row for the same work. */
export interface Comparison {
  /** The other engine and how it ran, for people: `pytorch sdpa compiled`. */
  readonly engine: string;
  readonly examples_per_second: number;
  /** Our examples a second over theirs. */
  readonly speedup: number;
}

/** What two rows must agree in. `tokens` is absent for runs on a file. */
export interface Work {
  /** Absent: the CPU. What we do by WebGPU, others do by CUDA. */
  readonly device?: "cpu" | "webgpu" | "dawn";
  /** On a GPU the others' precisions follow from ours (`counterparts`). Absent: any. */
  readonly precision?: Precision;
  readonly model: string;
  readonly batch: number;
  readonly tokens?: number;
  /** Of the CPU; on a GPU they need not agree. */
  readonly threads: number;
  readonly examples_per_second: number;
}

/** The precisions of others on a GPU that ours is compared with: tf32 keeps float32 everywhere but in the tensor cores. */
const counterparts: Readonly<Record<Precision, readonly string[]>> = {
  fp32: ["fp32", "tf32"],
  fp16: ["fp16", "bf16"],
};

/** Reads result files. Throws `InputError` for a file that is none. */
export async function readOtherResults(paths: readonly string[]): Promise<OtherResult[]> {
  const results: OtherResult[] = [];
  for (const path of paths) {
    const parsed = originSchema.extend({ rows: z.array(rowSchema) }).safeParse(await readJson(path));
    if (!parsed.success) {
      const [{ path: field, message }] = parsed.error.issues;
      throw new InputError(
        `--against ${path} is no result of tools/compare: ${field.join(".") || "it"}: ${message}`,
      );
    }
    const { rows, ...origin } = parsed.data;
    results.push({ path, origin, rows });
  }
  return results;
}

/** Where the rows of a file come from, in a line: versions and settings, and whether the processor is this one. */
export function describeOrigin(
  { path, origin: { machine, versions, settings } }: OtherResult,
  cpu: string,
): string {
  const list = (entries: Readonly<Record<string, unknown>>) =>
    Object.entries(entries).map(([name, value]) =>
      `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`
    )
      .join(", ");
  const elsewhere = machine.cpu === cpu ? "" : `; measured on another processor, ${machine.cpu}`;
  return `against ${path}: ${list(versions)}; ${list(settings)}${elsewhere}`;
}

/** Sets our row beside the fastest of the others for the same model and batch on the same kind of device; undefined for none. */
export function compareWith(others: readonly OtherRow[], ours: Work): Comparison | undefined {
  const [fastest] = rowsForWork(others, ours).sort((a, b) => b.examples_per_second - a.examples_per_second);
  if (!fastest) return undefined;
  const { engine, attention, compile, dtype, group_by_length, examples_per_second } = fastest;
  const words = [
    engine,
    attention,
    dtype === "fp32" ? "" : dtype,
    compile ? "compiled" : "",
    group_by_length ? "grouped" : "",
  ];
  return {
    engine: words.filter((word) => word !== "").join(" "),
    examples_per_second,
    speedup: ours.examples_per_second / examples_per_second,
  };
}

/** The same for each precision that the others ran in and ours is compared with: fp32, tf32 and bf16 are three different peaks. */
export function compareByPrecision(
  others: readonly OtherRow[],
  ours: Work,
): Readonly<Record<string, Comparison>> {
  const groups = Map.groupBy(rowsForWork(others, ours), ({ dtype }) => dtype);
  return Object.fromEntries(Array.from(groups, ([dtype, rows]) => [dtype, compareWith(rows, ours)!]));
}

function rowsForWork(others: readonly OtherRow[], { device = "cpu", precision, ...ours }: Work): OtherRow[] {
  const isComparable = ({ device: theirs, threads, dtype }: OtherRow) =>
    device === "cpu"
      ? theirs === "cpu" && threads === ours.threads
      : theirs === "cuda" && (precision === undefined || counterparts[precision].includes(dtype));
  return others.filter((row) =>
    isComparable(row) &&
    row.model === ours.model && row.batch === ours.batch && row.tokens === ours.tokens
  );
}
