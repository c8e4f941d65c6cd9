/**
 * PyTorch's rows, as `tools/compare/train.py` and `tools/compare/hf_trainer.py` write them, to set beside ours.
 * @module
 */
import { z } from "zod";
import { InputError } from "../src/core/errors.ts";
import { readJson } from "../src/core/files.ts";

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
  readonly model: string;
  readonly batch: number;
  readonly tokens?: number;
  readonly threads: number;
  readonly examples_per_second: number;
}

/** Reads the rows of result files. Throws `InputError` for a file that is none. */
export async function readOtherRows(paths: readonly string[]): Promise<OtherRow[]> {
  const rows: OtherRow[] = [];
  for (const path of paths) {
    const parsed = z.object({ rows: z.array(rowSchema) }).safeParse(await readJson(path));
    if (!parsed.success) {
      const [{ path: field, message }] = parsed.error.issues;
      throw new InputError(
        `--against ${path} is no result of tools/compare: ${field.join(".") || "it"}: ${message}`,
      );
    }
    rows.push(...parsed.data.rows);
  }
  return rows;
}

/** Sets our row beside the fastest of the others on a CPU for the same model, batch and threads; undefined for none. */
export function compareWith(others: readonly OtherRow[], ours: Work): Comparison | undefined {
  const [fastest] = others
    .filter((row) =>
      row.device === "cpu" && row.model === ours.model && row.batch === ours.batch &&
      row.tokens === ours.tokens && row.threads === ours.threads
    )
    .sort((a, b) => b.examples_per_second - a.examples_per_second);
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
