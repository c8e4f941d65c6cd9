/**
 * Learning-rate schedules: the factor on the peak rate, as a function of the steps completed.
 *
 * The factors are those of Hugging Face's `get_scheduler`, so that a recipe means the same here and there.
 * @module
 */
import { InputError } from "../core/errors.ts";

/** Gives each update its learning rate: `peak · factor(completedSteps)`. Stateless, so a resumed run agrees. */
export interface LearningRateSchedule {
  /** The name `learningRateSchedule` finds it by. */
  readonly name: LearningRateScheduleName;
  /** Factor on the peak rate for the update that follows `completedSteps` updates (0 for the first). */
  factor(completedSteps: number): number;
}

/** How long a schedule lasts, in optimiser steps. */
export interface ScheduleLength {
  /** Steps over which the rate rises from 0. */
  readonly warmupSteps: number;
  /** Steps of the whole training, warm-up included. */
  readonly totalSteps: number;
}

/** The schedules, by the names that Hugging Face's `lr_scheduler_type` gives them. */
export type LearningRateScheduleName = "linear" | "constant";

const schedules: Record<LearningRateScheduleName, (length: ScheduleLength) => LearningRateSchedule> = {
  linear,
  constant,
};

/** All names `learningRateSchedule` knows. */
export const learningRateScheduleNames: readonly LearningRateScheduleName[] = Object.freeze(
  Object.keys(schedules) as LearningRateScheduleName[],
);

/** Makes a schedule by name. Throws InputError for an unknown name or an impossible length. */
export function learningRateSchedule(name: string, length: ScheduleLength): LearningRateSchedule {
  const known = learningRateScheduleNames.find((each) => each === name);
  if (!known) {
    throw new InputError(
      `Unknown learning-rate schedule ${name}: wanted one of ${learningRateScheduleNames.join(", ")}`,
    );
  }
  return schedules[known](length);
}

/**
 * Rises linearly from 0 in `warmupSteps`, then falls linearly to 0 at `totalSteps`, with k completed steps:
 *
 *     k < W:  k / W        otherwise:  max(0, (T − k) / (T − W))
 *
 * So the first update has rate 0 when there is a warm-up, and the last has 1 / (T − W) of the peak. Both are Hugging
 * Face's numbers (`get_linear_schedule_with_warmup`), kept although that first update only fills the moments.
 */
export function linear(length: ScheduleLength): LearningRateSchedule {
  checkLength(length);
  const { warmupSteps, totalSteps } = length;
  return {
    name: "linear",
    factor(completedSteps) {
      if (completedSteps < warmupSteps) return completedSteps / Math.max(1, warmupSteps);
      return Math.max(0, (totalSteps - completedSteps) / Math.max(1, totalSteps - warmupSteps));
    },
  };
}

/** The peak rate from the first update to the last. As in Hugging Face, a warm-up is not part of it. */
export function constant(length: ScheduleLength): LearningRateSchedule {
  checkLength(length);
  return { name: "constant", factor: () => 1 };
}

/** Warm-up steps for a share of the training, rounded up as the Hugging Face trainer does with `warmup_ratio`. */
export function warmupStepsOf(ratio: number, totalSteps: number): number {
  if (!(ratio >= 0 && ratio <= 1)) {
    throw new InputError(`Cannot warm up for ${ratio} of the training: wanted a ratio from 0 to 1`);
  }
  return Math.ceil(totalSteps * ratio);
}

function checkLength({ warmupSteps, totalSteps }: ScheduleLength): void {
  for (const [what, steps] of [["warmupSteps", warmupSteps], ["totalSteps", totalSteps]] as const) {
    if (!Number.isInteger(steps) || steps < 0) {
      throw new InputError(
        `Cannot make a learning-rate schedule: ${what} is ${steps}, wanted a whole number`,
      );
    }
  }
}
