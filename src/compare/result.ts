/**
 * What a comparison came to, in the keys of its JSON.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { summarise, type Summary } from "../core/statistics.ts";
import type { Flags } from "./flags.ts";
import type { Grid, Variant } from "./grid.ts";
import type { PlannedRun } from "./run_grid.ts";
import { hasFailed, type RunLog, type RunOutcome } from "./run_log.ts";
import { type Verdict, verdictOf } from "./verdict.ts";

/** A comparison. */
export interface ComparisonResult {
  readonly name: string;
  readonly description?: string;
  readonly baseline: string;
  readonly seeds: readonly number[];
  /** The metric by which models are chosen, and variants compared. Absent when every run failed. */
  readonly metric?: { readonly name: string; readonly higher_is_better: boolean };
  /** Flags that all variants have. */
  readonly base: Flags;
  /** In the order of the grid. */
  readonly variants: readonly VariantResult[];
  /** Threads and instruction sets that the runs had, each combination once: times of several are not alike. */
  readonly ran_on: readonly { readonly threads: number; readonly isa: string }[];
}

/** A variant over all seeds. Summaries are of the runs that did not fail, and absent when all did. */
export interface VariantResult {
  readonly name: string;
  /** Flags that differ from the grid's. */
  readonly flags: Flags;
  readonly control_of?: string;
  /** Runs that came to a model. */
  readonly runs: number;
  readonly failures: readonly { readonly seed: number; readonly error: string }[];
  /** The metric that variants are compared by, of the models that were kept. */
  readonly primary?: Summary;
  /** Their other metrics. */
  readonly metrics: Readonly<Record<string, Summary>>;
  readonly loss?: Summary;
  readonly steps?: Summary;
  /** Time spent in steps. */
  readonly seconds?: Summary;
  readonly ms_per_step?: Summary;
  /** Mean of the milliseconds over that of the baseline. */
  readonly step_time_vs_baseline?: number;
  readonly sparsity?: Summary;
  readonly vs_baseline?: Difference;
  /** Where there are controls: against the one of them, or the variant they are made of, whose mean is best. */
  readonly vs_best_control?: Difference;
}

/** A variant less another one, seed by seed. */
export interface Difference {
  /** Name of the other one. */
  readonly against: string;
  /** Of the metric, over the seeds that neither failed with; absent when there are none. */
  readonly difference?: Summary;
  /** A variant that failed with a seed is not judged by the seeds that suited it. */
  readonly verdict: Verdict | "not comparable";
}

type Outcomes = ReadonlyMap<number, RunOutcome>;

/** Sums up the runs that are in the log. @throws InputError for variants that are judged by different metrics. */
export function compareRuns(grid: Grid, runs: readonly PlannedRun[], log: RunLog): ComparisonResult {
  const metric = metricOf(runs, log);
  const sides = grid.variants.map((variant) => ({ variant, ...readRuns(variant, runs, log) }));
  const outcomesOf = new Map(sides.map(({ variant, outcomes }) => [variant.name, outcomes]));
  const baseline = outcomesOf.get(grid.baseline)!;
  const isBetter = (a: number, b: number) => metric?.higher_is_better ? a > b : a < b;
  const controlled = grid.variants.find(({ controlOf }) => controlOf !== undefined)?.controlOf;
  const best = bestControl(grid, controlled, outcomesOf, isBetter);
  const baselineStep = meanOf(baseline, msPerStep);

  const differenceFrom = (against: string | undefined, name: string): Difference | undefined => {
    if (!metric || against === undefined || name === against) return undefined;
    const [mine, other] = [outcomesOf.get(name)!, outcomesOf.get(against)!];
    const differences = grid.seeds.flatMap((seed) => {
      const [a, b] = [mine.get(seed), other.get(seed)];
      return a && b ? [a.primary.value - b.primary.value] : [];
    });
    const isWhole = mine.size === grid.seeds.length && differences.length > 0;
    const difference = differences.length === 0 ? undefined : summarise(differences);
    const verdict = isWhole ? verdictOf(difference!, metric.higher_is_better) : "not comparable";
    return { against, difference, verdict };
  };
  const variants = sides.map(({ variant, outcomes, failures }): VariantResult => {
    const step = meanOf(outcomes, msPerStep);
    const ofAll = (value: (outcome: RunOutcome) => number) => summaryOf(outcomes, value);
    return {
      name: variant.name,
      flags: variant.flags,
      control_of: variant.controlOf,
      runs: outcomes.size,
      failures,
      primary: ofAll(({ primary }) => primary.value),
      metrics: metricsOf(outcomes),
      loss: ofAll(({ loss }) => loss),
      steps: ofAll(({ steps }) => steps),
      seconds: ofAll(({ seconds }) => seconds),
      ms_per_step: ofAll(msPerStep),
      step_time_vs_baseline: step === undefined || baselineStep === undefined
        ? undefined
        : step / baselineStep,
      sparsity: ofAll(({ sparsity }) => sparsity),
      vs_baseline: differenceFrom(grid.baseline, variant.name),
      vs_best_control: isOneRate(variant, controlled) ? undefined : differenceFrom(best, variant.name),
    };
  });
  const { name, description, seeds, base } = grid;
  return {
    name,
    description,
    baseline: grid.baseline,
    seeds,
    metric,
    base,
    variants,
    ran_on: machinesOf(runs, log),
  };
}

function readRuns({ name }: Variant, runs: readonly PlannedRun[], log: RunLog) {
  const outcomes = new Map<number, RunOutcome>();
  const failures: { seed: number; error: string }[] = [];
  for (const { key, variant, seed } of runs) {
    const record = variant === name ? log.get(key) : undefined;
    if (!record) continue;
    if (hasFailed(record)) failures.push({ seed, error: record.error });
    else outcomes.set(seed, record);
  }
  return { outcomes, failures };
}

function metricOf(runs: readonly PlannedRun[], log: RunLog): ComparisonResult["metric"] {
  let first:
    | { readonly variant: string; readonly name: string; readonly higherIsBetter: boolean }
    | undefined;
  for (const { key, variant } of runs) {
    const record = log.get(key);
    if (!record || hasFailed(record)) continue;
    const { name, higherIsBetter } = record.primary;
    first ??= { variant, name, higherIsBetter };
    if (name !== first.name) {
      throw new InputError(
        `${first.variant} is judged by ${first.name} and ${variant} by ${name}: wanted variants of one task`,
      );
    }
  }
  return first && { name: first.name, higher_is_better: first.higherIsBetter };
}

/** Whether a variant is the one that has controls, or a control. */
function isOneRate({ name, controlOf }: Variant, controlled: string | undefined): boolean {
  return name === controlled || controlOf !== undefined;
}

/** The best on average of a variant and its controls, among those that never failed. */
function bestControl(
  { variants, seeds }: Grid,
  controlled: string | undefined,
  outcomesOf: ReadonlyMap<string, Outcomes>,
  isBetter: (a: number, b: number) => boolean,
): string | undefined {
  let best: { readonly name: string; readonly mean: number } | undefined;
  for (const variant of variants) {
    const outcomes = outcomesOf.get(variant.name)!;
    if (!isOneRate(variant, controlled) || outcomes.size < seeds.length) continue;
    const mean = meanOf(outcomes, ({ primary }) => primary.value)!;
    if (!best || isBetter(mean, best.mean)) best = { name: variant.name, mean };
  }
  return best?.name;
}

function metricsOf(outcomes: Outcomes): Record<string, Summary> {
  const all = [...outcomes.values()];
  const names = new Set(all.flatMap(({ metrics }) => Object.keys(metrics)));
  return Object.fromEntries(
    Array.from(
      names,
      (name) => [name, summarise(all.flatMap(({ metrics }) => metrics[name] ?? []))] as const,
    ),
  );
}

function machinesOf(runs: readonly PlannedRun[], log: RunLog): ComparisonResult["ran_on"] {
  const machines = new Map<string, { threads: number; isa: string }>();
  for (const { key } of runs) {
    const record = log.get(key);
    if (!record || hasFailed(record)) continue;
    const { threads, isa } = record;
    machines.set(`${threads} ${isa}`, { threads, isa });
  }
  return [...machines.values()];
}

const msPerStep = ({ seconds, steps }: RunOutcome) => 1000 * seconds / steps;

function summaryOf(outcomes: Outcomes, value: (outcome: RunOutcome) => number): Summary | undefined {
  return outcomes.size === 0 ? undefined : summarise(Array.from(outcomes.values(), value));
}

function meanOf(outcomes: Outcomes, value: (outcome: RunOutcome) => number): number | undefined {
  return summaryOf(outcomes, value)?.mean;
}
