/**
 * A power of what is left.
 * @module
 */
import { checkOption, endRatioOf, progressAfterWarmup, type ScheduleKind, warmedUp } from "./schedule.ts";

/**
 * Falls from 1 to `endRatio`, r, along a power, with p the progress after the warm-up:
 *
 *     r + (1 − r) · (1 − p)^power
 *
 * Hugging Face's `get_polynomial_decay_schedule_with_warmup`, whose `lr_end` is r times the peak rate. Its default end is
 * an absolute rate of 1e-7; here it is 0. With power 1 it is a line that ends where one likes.
 */
export const polynomial: ScheduleKind = {
  name: "polynomial",
  takesWarmup: true,
  takes: ["power", "endRatio"],
  make(length, options) {
    const { power = 1 } = options;
    const end = endRatioOf("polynomial", options);
    checkOption(power > 0 && power < Infinity, "polynomial", "power", power, "a positive number");
    return {
      factor: warmedUp(length, (completedSteps) => {
        const left = 1 - progressAfterWarmup(length, completedSteps);
        return (1 - end) * left ** power + end;
      }),
    };
  },
};
