/**
 * What a learning-rate schedule is, and what all of them share: lengths, the warm-up, checks.
 *
 * Schedules are closed forms of the steps completed and keep no state, so a resumed run agrees with one that never
 * stopped. Counting starts at 0: `factor(0)` belongs to the first update.
 * @module
 */
import { InputError } from "../../core/errors.ts";

/** Gives each update its learning rate, `peak · factor(completedSteps)`, and perhaps its momentum. */
export interface LearningRateSchedule {
  /** The name `learningRateSchedule` finds it by; an alias is resolved. */
  readonly name: LearningRateScheduleName;
  /**
   * Factor on the peak rate for the update that follows `completedSteps` updates (0 for the first). From `totalSteps`
   * on it stays what it is at the end; `one_cycle` throws RangeError there, as nothing follows its cycle.
   */
  factor(completedSteps: number): number;
  /** What replaces Adam's β₁, or the momentum of SGD and RMSprop, in that update. Absent: nothing is replaced. */
  momentum?(completedSteps: number): number;
}

/** The schedules, by the names that Hugging Face's `lr_scheduler_type`, SparseML and PyTorch give them. */
export type LearningRateScheduleName =
  | "constant"
  | "constant_with_warmup"
  | "linear"
  | "cosine"
  | "cosine_with_restarts"
  | "polynomial"
  | "cyclic_linear"
  | "one_cycle";

/** How long a schedule lasts, in optimiser steps. */
export interface ScheduleLength {
  /** Steps over which the rate rises from 0. */
  readonly warmupSteps: number;
  /** Steps of the whole schedule, warm-up included; at least 1. */
  readonly totalSteps: number;
}

/** What a schedule can be told. Each takes some of the options and refuses the others. */
export interface ScheduleOptions {
  /** Steps of the whole schedule, warm-up included; at least 1. */
  readonly totalSteps: number;
  /** Steps over which the rate rises from 0; default 0. `constant` and `one_cycle` take none. */
  readonly warmupSteps?: number;
  /** Instead of `warmupSteps`: the share of the steps, rounded up. */
  readonly warmupRatio?: number;
  /** `cosine`, `polynomial`, `cyclic_linear`: the factor to end at, in [0, 1]; default 0. */
  readonly endRatio?: number;
  /** `cosine_with_restarts`: how often the rate falls from its peak; default 1. */
  readonly cycles?: number;
  /** `polynomial`: its exponent; default 1. */
  readonly power?: number;
  /** `cyclic_linear`: steps from peak to peak. */
  readonly cycleSteps?: number;
  /** `one_cycle`: share of the steps in which the rate rises; default 0.3. */
  readonly pctStart?: number;
  /** `one_cycle`: how the rate moves between its corners; default `cos`. */
  readonly annealStrategy?: "cos" | "linear";
  /** `one_cycle`: the peak rate over the first; default 25. */
  readonly divFactor?: number;
  /** `one_cycle`: the first rate over the last; default 10,000. */
  readonly finalDivFactor?: number;
  /** `one_cycle`: fall to the first rate as fast as it rose, then to the last; default false. */
  readonly threePhase?: boolean;
  /** `one_cycle`: whether the momentum is replaced, high where the rate is low; default true. */
  readonly cycleMomentum?: boolean;
  /** `one_cycle`: momentum at the peak rate; default 0.85. */
  readonly baseMomentum?: number;
  /** `one_cycle`: momentum at the ends; default 0.95. */
  readonly maxMomentum?: number;
}

/** One kind of schedule: its name, the options it takes, and how to make one. */
export interface ScheduleKind {
  readonly name: LearningRateScheduleName;
  /** Whether it can start with a warm-up. */
  readonly takesWarmup: boolean;
  /** The options it takes, besides its length. */
  readonly takes: readonly (keyof ScheduleOptions)[];
  /** Makes one. `length` is checked and options it does not take are absent; throws `InputError` for bad values. */
  make(length: ScheduleLength, options: ScheduleOptions): Omit<LearningRateSchedule, "name">;
}

/**
 * A linear rise from 0 in W steps, then `after`, which is never asked about more than T completed steps:
 *
 *     k < W:  k / W        otherwise:  after(min(k, T))
 *
 * So the first update has rate 0 when there is a warm-up: Hugging Face's numbers, kept although that update only fills
 * the moments.
 */
export function warmedUp(
  { warmupSteps, totalSteps }: ScheduleLength,
  after: (completedSteps: number) => number,
): LearningRateSchedule["factor"] {
  return (completedSteps) =>
    completedSteps < warmupSteps ? completedSteps / warmupSteps : after(Math.min(completedSteps, totalSteps));
}

/** How much of what follows the warm-up is done, from 0 to 1. */
export function progressAfterWarmup(
  { warmupSteps, totalSteps }: ScheduleLength,
  completedSteps: number,
): number {
  return (completedSteps - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
}

/** Warm-up steps for a share of the training, rounded up as the Hugging Face trainer does with `warmup_ratio`. */
export function warmupStepsOf(ratio: number, totalSteps: number): number {
  if (!(ratio >= 0 && ratio <= 1)) {
    throw new InputError(`Cannot warm up for ${ratio} of the training: wanted a ratio from 0 to 1`);
  }
  return Math.ceil(totalSteps * ratio);
}

/** Throws the one line about an option of the schedule `name` that does not hold. */
export function checkOption(
  holds: boolean,
  name: string,
  option: string,
  found: unknown,
  wanted: string,
): void {
  if (holds) return;
  throw new InputError(
    `Cannot make the learning-rate schedule ${name}: ${option} is ${found}, wanted ${wanted}`,
  );
}

/** The factor to end at, checked; default 0. */
export function endRatioOf(name: string, { endRatio = 0 }: ScheduleOptions): number {
  checkOption(endRatio >= 0 && endRatio <= 1, name, "endRatio", endRatio, "a number from 0 to 1");
  return endRatio;
}
