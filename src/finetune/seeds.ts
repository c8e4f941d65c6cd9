/**
 * The same run with several seeds: one number says little about a model that a few hundred examples were learned from.
 * @module
 */
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { summarise, type Summary } from "../core/statistics.ts";
import type { FinetuneResult } from "./mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { holdsState } from "./state.ts";

/** A metric over the runs. */
export interface MetricSpread extends Summary {
  readonly name: string;
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
    { name: "loss", ...summarise(evaluations.map(({ loss }) => loss)) },
    ...names.map((name) => ({ name, ...summarise(evaluations.map(({ metrics }) => metrics[name])) })),
  ];
  return { runs, spreads };
}
