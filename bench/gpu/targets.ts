/**
 * What the project wants of a GPU, said beside what was measured there.
 * @module
 */
import { percent } from "../../src/report/text_table.ts";
import type { TrainRow } from "../train.ts";
import type { SweepRow } from "./matmul_sweep.ts";

/** Least share of the measured fp32 peak that the chosen fp32 products reach. */
const productShare = 0.6;

/** A step has less than this share of its time outside the GPU. */
const overheadShare = 0.1;

/** The share of a step in which the GPU does not work on it; NaN where the GPU has no timestamps. */
export function shareOutside({ gpu_ms = NaN, step_ms }: Pick<TrainRow, "gpu_ms" | "step_ms">): number {
  return Math.max(0, 1 - gpu_ms / step_ms.p50);
}

/** Whether the chosen fp32 products are near enough to the peak: a line, none where none was timed. */
export function productTarget(rows: readonly SweepRow[]): string[] {
  return targetLine(
    `fp32 products as chosen at ${percent(productShare)} of the measured peak or more`,
    rows.filter(({ chosen, precision }) => chosen && precision === "fp32")
      .map(({ product, share_of_peak }) => ({ name: product, value: share_of_peak })),
    (share) => share >= productShare,
  );
}

/** Whether steps lose little time outside the GPU: a line, none where the GPU has no timestamps. */
export function overheadTarget(rows: readonly TrainRow[]): string[] {
  return targetLine(
    `less than ${percent(overheadShare)} of a step outside the GPU`,
    rows.filter(({ gpu_ms }) => gpu_ms !== undefined)
      .map((row) => ({
        name: `${row.model} ${row.batch}×${row.tokens} in ${row.precision}`,
        value: shareOutside(row),
      })),
    (share) => share < overheadShare,
  );
}

function targetLine(
  target: string,
  figures: readonly { readonly name: string; readonly value: number }[],
  meets: (value: number) => boolean,
): string[] {
  if (figures.length === 0) return [];
  const met = figures.filter(({ value }) => meets(value)).length;
  const list = figures.map(({ name, value }) => `${name} ${percent(value)}`).join(", ");
  return [
    `  target: ${target}: ${met < figures.length ? "MISSED" : "met"} (${met} of ${figures.length}): ${list}`,
  ];
}
