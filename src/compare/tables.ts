/**
 * A comparison as rows and columns, and what has to be said beside them.
 * @module
 */
import { confidence, type Summary } from "../core/statistics.ts";
import { percent, significant, type TextColumn } from "../report/text_table.ts";
import type { ComparisonResult, Difference, VariantResult } from "./result.ts";

/** `95 %` */
export const confidenceText = `${100 * confidence} %`;

/** A row of the second table. */
export interface DifferenceRow extends Difference {
  readonly variant: string;
}

/** Columns of the table of variants. Sparsity has one where anything is pruned. */
export function variantColumns({ metric, variants, seeds }: ComparisonResult): TextColumn<VariantResult>[] {
  const mean = (heading: string, of: (row: VariantResult) => Summary | undefined, show = significant) => ({
    heading,
    cell: (row: VariantResult) => shown(of(row), ({ mean }) => show(mean)),
  });
  const isPruned = variants.some(({ sparsity }) => sparsity && sparsity.greatest > 0);
  return [
    { heading: "variant", cell: ({ name }) => name, words: true },
    {
      heading: "runs",
      cell: ({ runs, failures }) => failures.length === 0 ? `${runs}` : `${runs} of ${seeds.length}`,
    },
    mean(metric ? `mean ${metric.name}` : "mean", ({ primary }) => primary, figures),
    { heading: "± std", cell: ({ primary }) => shown(primary, ({ deviation }) => figuresOr(deviation)) },
    { heading: `${confidenceText} interval`, cell: ({ primary }) => shown(primary, intervalText) },
    { heading: "least", cell: ({ primary }) => shown(primary, ({ least }) => figures(least)) },
    { heading: "greatest", cell: ({ primary }) => shown(primary, ({ greatest }) => figures(greatest)) },
    mean("loss", ({ loss }) => loss, figures),
    mean("seconds", ({ seconds }) => seconds),
    mean("ms/step", ({ ms_per_step }) => ms_per_step),
    {
      heading: "× step",
      cell: ({ step_time_vs_baseline }) => step_time_vs_baseline?.toFixed(2) ?? "–",
    },
    ...(isPruned ? [mean("zeros", ({ sparsity }) => sparsity, percent)] : []),
  ];
}

/** Columns of the table of differences. */
export const differenceColumns: readonly TextColumn<DifferenceRow>[] = [
  { heading: "variant", cell: ({ variant }) => variant, words: true },
  { heading: "against", cell: ({ against }) => against, words: true },
  { heading: "pairs", cell: ({ difference }) => `${difference?.count ?? 0}` },
  { heading: "difference", cell: ({ difference }) => shown(difference, ({ mean }) => signed(mean)) },
  {
    heading: `${confidenceText} interval`,
    cell: ({ difference }) => shown(difference, (summary) => intervalText(summary, signed)),
  },
  { heading: "verdict", cell: verdictText, words: true },
];

/** All differences: from the baseline first, then from the best control. */
export function differenceRows({ variants }: ComparisonResult): DifferenceRow[] {
  const rows = (of: (row: VariantResult) => Difference | undefined) =>
    variants.flatMap((row) => {
      const difference = of(row);
      return difference ? [{ variant: row.name, ...difference }] : [];
    });
  const fromBaseline = rows(({ vs_baseline }) => vs_baseline);
  const fromControl = rows(({ vs_best_control }) => vs_best_control);
  // Where the baseline is the best control, the second half would repeat the first.
  const isRepeated = fromControl.every(({ against }) => against === fromBaseline[0]?.against);
  return isRepeated ? fromBaseline : [...fromBaseline, ...fromControl];
}

/** A line for each run that failed. */
export function failureLines({ variants }: ComparisonResult): string[] {
  return variants.flatMap(({ name, failures }) =>
    failures.map(({ seed, error }) => `${name}, seed ${seed} failed: ${error}`)
  );
}

/** What the numbers do not say themselves. */
export function caveats(result: ComparisonResult): string[] {
  const { metric, seeds, variants, ran_on } = result;
  const differences = differenceRows(result);
  const lines: string[] = [];
  if (metric) {
    lines.push(
      `${metric.name} (${
        metric.higher_is_better ? "higher" : "lower"
      } is better) and loss are those of the model that ` +
        "a run keeps, the best of its evaluations, on the data it was chosen by.",
    );
  }
  if (differences.length > 0) {
    const byChance = (differences.length * (1 - confidence)).toFixed(1);
    lines.push(
      "Differences are a variant's value less the other's, paired by seed; their intervals are Student's at " +
        `${confidenceText}. Of ${differences.length} about ${byChance} would leave 0 out by chance: a single verdict among ` +
        "many is a hint, and seeds are not data sets.",
    );
  }
  if (seeds.length === 1) lines.push("One seed shows no difference, however large it looks.");
  const control = variants.find(({ vs_best_control }) => vs_best_control)?.vs_best_control?.against;
  if (control !== undefined) {
    lines.push(`The best control, ${control}, was chosen by these very runs, which is to its advantage.`);
  }
  const steps = variants.flatMap(({ steps }) => steps ? [steps.least, steps.greatest] : []);
  if (new Set(steps).size > 1) {
    lines.push(
      `Runs took ${Math.min(...steps)} to ${
        Math.max(...steps)
      } steps: the variants' budgets were not the same.`,
    );
  }
  if (ran_on.length > 1) {
    const kinds = ran_on.map(({ threads, isa }) => `${threads} threads of ${isa}`).join(", ");
    lines.push(`Runs had ${kinds}: their times are not alike.`);
  }
  return lines;
}

/** The verdict in words: `no difference shown at 5 seeds`. */
function verdictText({ verdict, difference }: Difference): string {
  const count = difference?.count ?? 0;
  if (verdict === "no difference shown") return `${verdict} at ${count} seed${count === 1 ? "" : "s"}`;
  return verdict === "not comparable" ? "not comparable: runs failed" : verdict;
}

/** Four significant digits without an exponent: differences are often in the third. */
export function figures(value: number): string {
  if (!Number.isFinite(value) || value === 0) return `${value}`;
  return value.toFixed(Math.max(0, Math.min(3 - Math.floor(Math.log10(Math.abs(value))), 8)));
}

function figuresOr(value: number | undefined): string {
  return value === undefined ? "–" : figures(value);
}

/** With its sign; two digits less, as many as a difference is good for. */
function signed(value: number): string {
  return value > 0 ? `+${significant(value)}` : significant(value).replace("-", "−");
}

function intervalText({ interval }: Summary, show = figures): string {
  return interval ? `${show(interval[0])} … ${show(interval[1])}` : "–";
}

function shown(summary: Summary | undefined, show: (summary: Summary) => string): string {
  return summary ? show(summary) : "–";
}
