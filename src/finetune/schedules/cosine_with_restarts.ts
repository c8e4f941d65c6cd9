/**
 * Cosine annealing that starts again and again.
 * @module
 */
import { halfWave } from "./cosine.ts";
import { checkOption, progressAfterWarmup, type ScheduleKind, warmedUp } from "./schedule.ts";

/**
 * `cycles` half waves from 1 to 0, one after the other, with p the progress after the warm-up:
 *
 *     p < 1:  (1 + cos π(cycles · p mod 1)) / 2        p = 1:  0
 *
 * Hugging Face's `get_cosine_with_hard_restarts_schedule_with_warmup`, where cycles are `num_cycles`.
 */
export const cosineWithRestarts: ScheduleKind = {
  name: "cosine_with_restarts",
  takesWarmup: true,
  takes: ["cycles"],
  make(length, { cycles = 1 }) {
    const decaySteps = Math.max(1, length.totalSteps - length.warmupSteps);
    checkOption(
      Number.isInteger(cycles) && cycles >= 1 && cycles <= decaySteps,
      "cosine_with_restarts",
      "cycles",
      cycles,
      `a whole number from 1 to the ${decaySteps} steps there are for them`,
    );
    return {
      factor: warmedUp(length, (completedSteps) => {
        const progress = progressAfterWarmup(length, completedSteps);
        return progress >= 1 ? 0 : halfWave((cycles * progress) % 1);
      }),
    };
  },
};
