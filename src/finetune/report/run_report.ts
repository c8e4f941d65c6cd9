/**
 * The report of a run: one HTML page that needs nothing beside it.
 * @module
 */
import { type Evaluation, jsonName } from "../../evaluate/metrics.ts";
import type { SparsityReport } from "../../pruning/sparsity.ts";
import { drawChart } from "../../report/chart.ts";
import { htmlPage, htmlTable, section } from "../../report/page.ts";
import { sparsityChart } from "../../report/sparsity_chart.ts";
import { percent, significant, type TextColumn } from "../../report/text_table.ts";
import type { MetricsLine } from "./metrics_file.ts";
import type { HistoryPoint } from "./history.ts";
import { lossChart, metricChart, stepChart } from "./run_charts.ts";

/** What a run came to: the part of `FinetuneResult` that the report shows. */
export interface RunOutcome {
  readonly device: string;
  /** Name of the GPU, where one took the steps. */
  readonly gpu?: string;
  readonly precision: "fp32" | "fp16";
  readonly threads: number;
  readonly isa: string;
  readonly steps: number;
  readonly examples: number;
  /** Time spent in steps. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly stages: readonly RunStage[];
  /** The model that was kept. */
  readonly evaluation?: Evaluation;
  /** The model just before pruning began. */
  readonly denseEvaluation?: Evaluation;
  readonly sparsity: SparsityReport;
}

/** A stage of a run. */
export interface RunStage {
  readonly name: string;
  readonly steps: number;
  /** Time spent in steps. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

/** All that the report is made of. */
export interface RunRecord {
  /** By name; undefined ones are left out. */
  readonly settings: object;
  /** Steps, thinned. */
  readonly points: readonly HistoryPoint[];
  readonly evaluations: readonly MetricsLine[];
  readonly outcome: RunOutcome;
}

/** The page. */
export async function runReport({ settings, points, evaluations, outcome }: RunRecord): Promise<string> {
  const metric = chosenMetric(outcome, evaluations);
  const { sparsity } = outcome;
  const sections = [
    ...(points.length === 0 ? [] : [section(
      "Loss",
      "Grey: training, smoothed. Coloured: evaluation. Both are what training minimises, averaged over examples.",
      await drawChart(lossChart(points, evaluations), "Line chart of the losses over the steps"),
    )]),
    ...(metric === undefined ? [] : [
      section(
        "Evaluation",
        `The metric that models are chosen by: ${metric}.`,
        await drawChart(metricChart(evaluations, metric), `Line chart of ${metric} over the steps`) +
          htmlTable(evaluationColumns(evaluations), evaluations),
      ),
    ]),
    ...(points.length === 0 ? [] : [section(
      "Learning rate",
      "",
      await drawChart(
        stepChart(points, "learningRate", "learning rate"),
        "Line chart of the learning rate over the steps",
      ),
    )]),
    ...(points.every((point) => point.sparsity === 0) ? [] : [section(
      "Sparsity",
      "Share of the prunable weights that are masked, in percent.",
      await drawChart(
        stepChart(points, "sparsity", "percent", 100),
        "Line chart of the sparsity over the steps",
      ),
    )]),
    ...(sparsity.zeros === 0 ? [] : [section(
      "Sparsity by layer",
      "Share of zeros, in percent, of each prunable weight.",
      await drawChart(
        sparsityChart(
          Object.fromEntries(sparsity.layers.map(({ name, sparsity }) => [name, sparsity])),
        ),
        "Heat map of the share of zeros of each weight",
      ),
    )]),
    section("Stages", "", htmlTable(stageColumns, outcome.stages)),
    section("Settings", "", htmlTable(settingColumns, settingsOf(settings))),
  ];
  return htmlPage({
    title: "lacuna finetune",
    subtitle: describeRun(outcome),
    headline: headlineOf(outcome),
    sections,
  });
}

/** The metric that models were chosen by; that of the file where the run itself has no evaluation. */
function chosenMetric(outcome: RunOutcome, evaluations: readonly MetricsLine[]): string | undefined {
  if (evaluations.length === 0) return undefined;
  const { evaluation } = outcome;
  return evaluation ? jsonName(evaluation.primary.name) : Object.keys(evaluations[0].metrics)[0];
}

function describeRun(
  { device, gpu, precision, isa, threads, steps, examples, seconds, tokensPerSecond }: RunOutcome,
): string {
  const place = `${device}${gpu ? ` (${gpu})` : ""}${precision === "fp16" ? " in fp16" : ""}`;
  return `${whole(steps)} steps on ${whole(examples)} examples in ${significant(seconds)} s, ` +
    `${whole(tokensPerSecond)} tokens/s; ${place}, ${isa}, ${threads} threads`;
}

function headlineOf({ evaluation, denseEvaluation, sparsity }: RunOutcome): string | undefined {
  if (!evaluation) return undefined;
  const { name, value } = evaluation.primary;
  const dense = denseEvaluation ? `; dense, before pruning: ${decimals(denseEvaluation.primary.value)}` : "";
  return `${jsonName(name)} ${decimals(value)} with ${percent(sparsity.overall)} zeros${dense}.`;
}

function evaluationColumns(evaluations: readonly MetricsLine[]): readonly TextColumn<MetricsLine>[] {
  const names = new Set(evaluations.flatMap(({ metrics }) => Object.keys(metrics)));
  return [
    { heading: "step", cell: ({ step }) => whole(step) },
    { heading: "epoch", cell: ({ epoch }) => epoch.toFixed(2) },
    { heading: "loss", cell: ({ loss }) => decimals(loss) },
    ...Array.from(names, (name): TextColumn<MetricsLine> => ({
      heading: name.replaceAll("_", " "),
      cell: ({ metrics }) => name in metrics ? decimals(metrics[name]) : "",
    })),
    { heading: "sparsity", cell: ({ sparsity }) => percent(sparsity) },
    { heading: "seconds", cell: ({ seconds }) => significant(seconds) },
  ];
}

const stageColumns: readonly TextColumn<RunStage>[] = [
  { heading: "stage", cell: ({ name }) => name, words: true },
  { heading: "steps", cell: ({ steps }) => whole(steps) },
  { heading: "seconds", cell: ({ seconds }) => significant(seconds) },
  { heading: "tokens/s", cell: ({ tokensPerSecond }) => whole(tokensPerSecond) },
];

const settingColumns: readonly TextColumn<readonly [string, unknown]>[] = [
  { heading: "setting", cell: ([name]) => name, words: true },
  { heading: "value", cell: ([, value]) => settingText(value), words: true },
];

/** What was set, without the parameters that a run was not told. */
function settingsOf(settings: object): (readonly [string, unknown])[] {
  return Object.entries(settings).filter(([, value]) => value !== undefined);
}

function settingText(value: unknown): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

const whole = (value: number) => Math.round(value).toLocaleString("en");
const decimals = (value: number) => Math.abs(value) < 100 ? value.toFixed(4) : significant(value);
