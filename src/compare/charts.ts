/**
 * Charts of a comparison: variants down, values across, intervals as lines.
 * @module
 */
import type { TopLevelSpec } from "../report/chart.ts";
import type { ComparisonResult } from "./result.ts";
import type { Summary } from "../core/statistics.ts";
import type { DifferenceRow } from "./tables.ts";

/** Wide enough beside the names of variants. */
const chartWidth = 420;

/** Means of the metric with their intervals. The baseline's mean goes through all of them. */
export function meanChart({ variants, baseline, metric }: ComparisonResult): TopLevelSpec {
  const rows = variants.flatMap(({ name, primary }) => primary ? [{ name, summary: primary }] : []);
  const rule = rows.find(({ name }) => name === baseline)?.summary.mean;
  return intervalChart(rows, rule, metric?.name ?? "");
}

/** Differences with their intervals, and a line at 0. */
export function differenceChart(rows: readonly DifferenceRow[], metric: string): TopLevelSpec {
  const drawn = rows.flatMap(({ variant, difference }) =>
    difference ? [{ name: variant, summary: difference }] : []
  );
  return intervalChart(drawn, 0, `difference in ${metric}`);
}

function intervalChart(
  rows: readonly { readonly name: string; readonly summary: Summary }[],
  rule: number | undefined,
  title: string,
): TopLevelSpec {
  const values = rows.map(({ name, summary: { mean, interval = [mean, mean] } }) => (
    { name, mean, low: interval[0], high: interval[1] }
  ));
  const y = { field: "name", type: "nominal", sort: null, title: null } as const;
  const scale = { zero: false } as const;
  return {
    width: chartWidth,
    height: { step: 26 },
    data: { values },
    layer: [
      ...(rule === undefined ? [] : [{
        data: { values: [{ rule }] },
        mark: { type: "rule" as const, color: "var(--faint)", strokeDash: [4, 4] },
        encoding: { x: { field: "rule", type: "quantitative" as const, title } },
      }]),
      {
        mark: { type: "rule", color: "var(--bar)", strokeWidth: 4 },
        encoding: { y, x: { field: "low", type: "quantitative", title, scale }, x2: { field: "high" } },
      },
      {
        mark: { type: "point", filled: true, color: "var(--accent)", opacity: 1, size: 70 },
        encoding: { y, x: { field: "mean", type: "quantitative", title, scale } },
      },
    ],
  };
}
