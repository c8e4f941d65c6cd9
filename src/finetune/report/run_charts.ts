/**
 * Charts of a run over its steps.
 * @module
 */
import { chartWidth, type TopLevelSpec } from "../../report/chart.ts";
import type { MetricsLine } from "./metrics_file.ts";
import type { HistoryPoint } from "./history.ts";

const chartHeight = 220;
const stepAxis = {
  field: "step",
  type: "quantitative",
  title: "step",
  axis: { tickMinStep: 1 },
  scale: { zero: true },
} as const;
const line = { type: "line", color: "var(--bar)", strokeWidth: 1.5 } as const;
const accentLine = {
  type: "line",
  color: "var(--accent)",
  point: { color: "var(--accent)", size: 40 },
} as const;

/** A column of the steps, as a line. */
export function stepChart(
  points: readonly HistoryPoint[],
  column: "learningRate" | "sparsity",
  title: string,
  scale = 1,
): TopLevelSpec {
  return {
    width: chartWidth,
    height: chartHeight,
    data: { values: points.map((point) => ({ step: point.step, value: scale * point[column] })) },
    mark: { ...line, color: "var(--accent)" },
    encoding: { x: stepAxis, y: { field: "value", type: "quantitative", title } },
  };
}

/** Training loss as a thin line, evaluation losses as points on a bold one. Losses that are no numbers are left out. */
export function lossChart(
  points: readonly HistoryPoint[],
  evaluations: readonly MetricsLine[],
): TopLevelSpec {
  const values = (records: readonly { readonly step: number; readonly loss: number }[]) =>
    records.filter(({ loss }) => Number.isFinite(loss)).map(({ step, loss }) => ({ step, loss }));
  const encoding = { x: stepAxis, y: { field: "loss", type: "quantitative", title: "loss" } } as const;
  return {
    width: chartWidth,
    height: chartHeight,
    layer: [
      { data: { values: values(points) }, mark: line, encoding },
      { data: { values: values(evaluations) }, mark: accentLine, encoding },
    ],
  };
}

/** A metric of the evaluations. */
export function metricChart(evaluations: readonly MetricsLine[], metric: string): TopLevelSpec {
  return {
    width: chartWidth,
    height: chartHeight,
    data: {
      values: evaluations.map(({ step, metrics }) => ({ step, value: metrics[metric] }))
        .filter(({ value }) => Number.isFinite(value)),
    },
    mark: accentLine,
    encoding: {
      x: stepAxis,
      y: { field: "value", type: "quantitative", title: metric, scale: { zero: false } },
    },
  };
}
