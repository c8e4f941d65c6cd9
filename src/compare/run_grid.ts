/**
 * Runs a grid: every variant with every seed, some at a time, those that are done left out.
 * @module
 */
import { errorMessage, InputError, Interrupted, UnsupportedError } from "../core/errors.ts";
import type { Flags } from "./flags.ts";
import { flagsOf, type Grid } from "./grid.ts";
import { RunKeys } from "./run_key.ts";
import { hasFailed, type RunLog, type RunOutcome, type RunRecord } from "./run_log.ts";

/** A run to make. */
export interface PlannedRun {
  readonly key: string;
  /** Name of the variant. */
  readonly variant: string;
  readonly seed: number;
  /** All its flags but seed, threads and folders. */
  readonly flags: Flags;
}

/** Makes a run. Rejects with `Interrupted` when it was stopped, with anything else when it failed. */
export type Runner = (run: PlannedRun) => Promise<RunOutcome>;

/** A run that has ended, and how far the comparison is. */
export interface GridProgress {
  readonly record: RunRecord;
  /** Runs done, those of earlier sittings included. */
  readonly done: number;
  readonly total: number;
  /** Expected time to the last, from the mean of this sitting's runs. */
  readonly remainingSeconds: number;
}

/** How to run. */
export interface RunGridOptions {
  readonly log: RunLog;
  readonly runner: Runner;
  /** Runs at once. */
  readonly jobs: number;
  readonly signal?: AbortSignal;
  /** Hears each run that ends. */
  readonly progress?: (progress: GridProgress) => void;
}

/**
 * All runs of a grid, seed by seed: what is there when a comparison is stopped has as many seeds of each variant.
 * @throws InputError for data that are not there.
 */
export async function planRuns(grid: Grid): Promise<PlannedRun[]> {
  const keys = new RunKeys();
  const runs: PlannedRun[] = [];
  for (const seed of grid.seeds) {
    for (const variant of grid.variants) {
      const flags = flagsOf(grid, variant);
      runs.push({ key: await keys.keyOf(flags, seed), variant: variant.name, seed, flags });
    }
  }
  return runs;
}

/**
 * Makes the runs that the log does not have, or has as failed for bad input; a run that two variants share is made once. A run
 * that fails is logged and the others go on. Throws `Interrupted` after the signal, when those under way have ended.
 */
export async function runGrid(runs: readonly PlannedRun[], options: RunGridOptions): Promise<void> {
  const { log, runner, jobs, signal, progress } = options;
  const byKey = new Map(runs.map((run) => [run.key, run]));
  const queue = [...byKey.values()].filter(({ key }) => {
    const record = log.get(key);
    return !record || (hasFailed(record) && record.isInput);
  });
  const earlier = byKey.size - queue.length;
  const total = byKey.size;
  const begin = performance.now();
  let ended = 0;
  let isInterrupted = false;
  const work = async () => {
    while (!signal?.aborted && !isInterrupted) {
      const run = queue.shift();
      if (!run) return;
      const record = await recordOf(run, runner);
      if (!record) {
        isInterrupted = true;
        return;
      }
      await log.add(record);
      ended++;
      const secondsEach = (performance.now() - begin) / 1000 / ended;
      const done = earlier + ended;
      progress?.({ record, done, total, remainingSeconds: secondsEach * (total - done) });
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  if (earlier + ended < total) {
    throw new Interrupted(
      `interrupted after ${earlier + ended} of ${total} runs: the same command goes on from there`,
    );
  }
}

/** What a run came to; undefined when it was interrupted. */
async function recordOf(run: PlannedRun, runner: Runner): Promise<RunRecord | undefined> {
  const { key, variant, seed } = run;
  try {
    const outcome = await runner(run);
    const { loss, primary } = outcome;
    for (const [name, value] of [["loss", loss], [primary.name, primary.value]] as const) {
      if (!Number.isFinite(value)) {
        return { key, variant, seed, error: `the evaluation's ${name} is ${value}`, isInput: false };
      }
    }
    // A metric may have no value, such as a correlation with what is constant.
    const metrics = Object.fromEntries(
      Object.entries(outcome.metrics).filter(([, value]) => Number.isFinite(value)),
    );
    return { key, variant, seed, ...outcome, metrics };
  } catch (error) {
    if (error instanceof Interrupted) return undefined;
    const isInput = error instanceof InputError || error instanceof UnsupportedError;
    return { key, variant, seed, error: errorMessage(error), isInput };
  }
}
