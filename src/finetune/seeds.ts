/**
 * The same run with several seeds: one number says little about a model that a few hundred examples were learned from.
 * @module
 */
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import type { FinetuneResult } from "./mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { holdsState } from "./state.ts";

/** A metric over the runs. */
export interface MetricSpread {
  readonly name: string;
  readonly mean: number;
  /** Standard deviation of the runs as a sample, n − 1 in the divisor; 0 for a single run. */
  readonly deviation: number;
  readonly minimum: number;
  readonly maximum: number;
}

/** What runs with several seeds came to. */
export interface SeedsResult {
  /** In the order of the seeds. */
  readonly runs: readonly { readonly seed: number; readonly result: FinetuneResult }[];
  /** Of the models that were kept: the loss, then the task's metrics. Empty without an evaluation file. */
  readonly spreads: readonly MetricSpread[];
}

/**
 * Runs once for each of `count` seeds, from that of the settings on, each into a folder of its own in the output folder.
 * Throws `InputError` for a count below 1.
 */
export async function finetuneSeeds(
  settings: FinetuneSettings,
  count: number,
  finetune: (settings: FinetuneSettings) => Promise<FinetuneResult>,
): Promise<SeedsResult> {
  if (!(Number.isSafeInteger(count) && count >= 1)) {
    throw new InputError(`--seeds is ${count}: wanted a whole number of at least 1`);
  }
  const runs: { seed: number; result: FinetuneResult }[] = [];
  for (let seed = settings.seed; seed < settings.seed + count; seed++) {
    const out = join(settings.out, `seed-${seed}`);
    // Runs that had not begun when the last sitting ended begin now.
    const resume = settings.resume && await holdsState(out);
    runs.push({ seed, result: await finetune({ ...settings, seed, out, resume }) });
  }
  const evaluations = runs.flatMap(({ result }) => result.evaluation ?? []);
  const names = Object.keys(evaluations[0]?.metrics ?? {});
  const spreads = evaluations.length === 0 ? [] : [
    spreadOf("loss", evaluations.map(({ loss }) => loss)),
    ...names.map((name) => spreadOf(name, evaluations.map(({ metrics }) => metrics[name]))),
  ];
  return { runs, spreads };
}

/** Mean and spread of some values, at least one. */
export function spreadOf(name: string, values: readonly number[]): MetricSpread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    name,
    mean,
    deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0,
    minimum: Math.min(...values),
    maximum: Math.max(...values),
  };
}
