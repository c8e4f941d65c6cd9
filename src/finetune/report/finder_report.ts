/**
 * What a learning-rate finder found: a table for the terminal, a page for everybody else.
 * @module
 */
import { chartWidth, drawChart, type TopLevelSpec } from "../../report/chart.ts";
import { htmlPage, htmlTable, section } from "../../report/page.ts";
import { type TextColumn, textTable } from "../../report/text_table.ts";
import type { FoundLearningRate } from "../find_learning_rate.ts";
import type { FinderPoint } from "../learning_rate_suggestions.ts";

/** Lines of the terminal's table, at most. */
const tableLines = 20;

const pointColumns: readonly TextColumn<FinderPoint>[] = [
  { heading: "learning rate", cell: ({ learningRate }) => rateText(learningRate) },
  { heading: "loss", cell: ({ loss }) => loss.toFixed(4) },
  { heading: "smoothed", cell: ({ smoothed }) => smoothed.toFixed(4) },
];

const suggestionColumns: readonly TextColumn<readonly [string, number]>[] = [
  { heading: "rule", cell: ([name]) => name, words: true },
  { heading: "learning rate", cell: ([, rate]) => rateText(rate) },
];

/** The curve, thinned, and what it suggests, as lines of text. */
export function formatFinder(found: FoundLearningRate): string {
  const { points } = found;
  const stride = Math.ceil(points.length / tableLines);
  return [
    textTable(pointColumns, points.filter((_, index) => index % stride === 0)),
    "",
    textTable(suggestionColumns, suggestionsOf(found)),
    "",
    verdict(found),
  ].join("\n");
}

/** The same as an HTML page, with a chart of the curve. */
export async function finderReport(found: FoundLearningRate, subtitle: string): Promise<string> {
  const chart = await drawChart(finderChart(found), "Line chart of the loss over the learning rate");
  return htmlPage({
    title: "lacuna learning-rate finder",
    subtitle,
    headline: verdict(found),
    sections: [
      section(
        "Loss over learning rate",
        "A mock training whose rate grows from step to step. Grey: loss of each batch; coloured: smoothed; the dashed " +
          "line marks the suggestion.",
        chart,
      ),
      section(
        "Suggestions",
        "Valley: within the longest fall. Steep: the steepest descent. Minimum: a tenth of the rate with the lowest " +
          "loss. Slide: where, from above, the slope settles.",
        htmlTable(suggestionColumns, suggestionsOf(found)),
      ),
      section("All numbers", "", htmlTable(pointColumns, found.points)),
    ],
  });
}

/** What the rules say, those that say something. */
function suggestionsOf({ suggestion }: FoundLearningRate): (readonly [string, number])[] {
  return Object.entries(suggestion).filter(([, rate]) => rate !== undefined);
}

function verdict({ points, suggested, suggestion, stopped }: FoundLearningRate): string {
  const capped = suggested < suggestion.valley
    ? `, the limit; the valley is at ${rateText(suggestion.valley)}`
    : "";
  const end = stopped === undefined
    ? ""
    : `; stopped at ${rateText(points.at(-1)!.learningRate)}: ${stopped}`;
  return `Suggested learning rate: ${rateText(suggested)}${capped}${end}.`;
}

/**
 * Loss over the logarithm of the rate. What lies far above the first loss, as a diverging end does, is cut off, or nothing
 * else would be seen.
 */
function finderChart({ points, suggested }: FoundLearningRate): TopLevelSpec {
  const shown = points.filter(({ loss, smoothed }) => Number.isFinite(loss) && Number.isFinite(smoothed));
  const smoothed = shown.map((point) => point.smoothed);
  const [lowest, first] = [Math.min(...smoothed), smoothed[0]];
  const margin = 0.1 * (first - lowest) + 1e-3;
  const loss = (field: "loss" | "smoothed") => ({
    field,
    type: "quantitative" as const,
    title: "loss",
    scale: { domain: [Math.max(0, lowest - 3 * margin), first + 3 * margin] },
  });
  const rate = {
    field: "learningRate",
    type: "quantitative",
    title: "learning rate",
    scale: { type: "log" },
    axis: { format: ".0e", grid: false },
  } as const;
  return {
    width: chartWidth,
    height: 260,
    data: { values: shown },
    layer: [
      {
        mark: { type: "line", color: "var(--bar)", strokeWidth: 1, clip: true },
        encoding: { x: rate, y: loss("loss") },
      },
      {
        mark: { type: "line", color: "var(--accent)", strokeWidth: 2, clip: true },
        encoding: { x: rate, y: loss("smoothed") },
      },
      {
        data: { values: [{ learningRate: suggested }] },
        mark: { type: "rule", color: "var(--ink)", strokeDash: [4, 3] },
        encoding: { x: rate },
      },
      {
        data: { values: [{ learningRate: suggested }] },
        mark: { type: "text", align: "left", dx: 6, dy: 8, baseline: "top" },
        encoding: { x: rate, y: { value: 0 }, text: { value: rateText(suggested) } },
      },
    ],
  };
}

/** `3.16e-5` */
function rateText(rate: number): string {
  return rate.toExponential(2);
}
