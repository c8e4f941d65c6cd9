/**
 * Charts of pages, drawn to SVG when the page is written.
 * @module
 */
import * as vega from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { escapeHtml } from "./page.ts";

export type { TopLevelSpec } from "vega-lite";

/** Draws a chart as an SVG element. Sizes come from the view box, so that it scales with the page. */
export async function drawChart(spec: TopLevelSpec, label: string): Promise<string> {
  const view = new vega.View(vega.parse(compile({ ...spec, config: chartConfig }).spec), {
    renderer: "none",
  });
  const svg = await view.toSVG();
  view.finalize();
  const named = svg.replace(/^<svg /, `<svg role="img" aria-label="${escapeHtml(label)}" `);
  return `<figure>${named}</figure>`;
}

/** Width that fits the page, in pixels. */
export const chartWidth = 560;

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
