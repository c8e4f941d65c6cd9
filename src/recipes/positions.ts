/**
 * Places of modifiers in the optimiser steps of a run.
 * @module
 */
import { refuse } from "./checks.ts";
import type { Modifier } from "./modifiers.ts";

/** How long a run is. */
export interface RunLength {
  /** First step of each epoch; then the number of steps of the run. */
  readonly epochBegins: readonly number[];
}

/** Epochs of a run. */
export function epochsOf({ epochBegins }: RunLength): number {
  return epochBegins.length - 1;
}

/** Optimiser steps of a run. */
export function stepsOf({ epochBegins }: RunLength): number {
  return epochBegins[epochBegins.length - 1];
}

/** Steps between two refreshes and the like: from `begin`, before `end`. */
export interface StepSpan {
  /** Completed steps at the begin. */
  readonly begin: number;
  /** Completed steps at the end; at least `begin`. */
  readonly end: number;
}

/**
 * Where a modifier begins and ends. Epochs are steps rounded up, as SparseML acts at the first step that has reached an
 * epoch; fractions are rounded to the nearest step. A modifier without an end ends with the run.
 * @throws InputError for what lies outside of the run, and for an end before the begin.
 */
export function spanOf(modifier: Modifier, run: RunLength): StepSpan {
  const begin = stepAt(modifier, "start", run) ?? 0;
  const end = stepAt(modifier, "end", run) ?? stepsOf(run);
  if (begin > end) {
    refuse(modifier, `it begins at step ${begin} and ends at step ${end}`, "the end after the begin");
  }
  return { begin, end };
}

/** Steps in a number of epochs, rounded up and at least 1; in a run of unequal epochs, of the mean one. */
export function stepsIn(epochs: number, run: RunLength): number {
  return Math.max(1, roundUp(epochs * stepsOf(run) / epochsOf(run)));
}

/** The step of an epoch that may be a fraction. */
function stepOfEpoch(epoch: number, { epochBegins }: RunLength): number {
  const whole = Math.floor(epoch);
  const first = epochBegins[whole];
  if (epoch === whole) return first;
  return first + roundUp((epoch - whole) * (epochBegins[whole + 1] - first));
}

function stepAt(modifier: Modifier, edge: "start" | "end", run: RunLength): number | undefined {
  const fields = modifier as Readonly<Record<string, unknown>>;
  const within = (name: string, value: number, most: number, what: string) => {
    if (value > most) refuse(modifier, `${name} is ${value}`, `at most ${most}, the ${what} of the run`);
  };
  const fraction = fields[`${edge}_fraction`] as number | undefined;
  if (fraction !== undefined) return Math.round(fraction * stepsOf(run));
  const step = fields[`${edge}_step`] as number | undefined;
  if (step !== undefined) {
    within(`${edge}_step`, step, stepsOf(run), "steps");
    return step;
  }
  const epoch = fields[`${edge}_epoch`] as number | undefined;
  if (epoch === undefined || epoch === -1) return undefined;
  within(`${edge}_epoch`, epoch, epochsOf(run), "epochs");
  return stepOfEpoch(epoch, run);
}

/** Up to the next whole number, but for what rounding in binary adds: 0.1 · 30 steps are 3. */
function roundUp(steps: number): number {
  return Math.ceil(steps - 1e-6);
}
