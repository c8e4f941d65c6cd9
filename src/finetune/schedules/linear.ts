/**
 * The usual schedule of fine-tuning: a straight line down to 0.
 * @module
 */
import { type ScheduleKind, warmedUp } from "./schedule.ts";

/**
 * Falls linearly to 0 at `totalSteps`, with k completed steps of T, W of them warm-up:
 *
 *     k < W:  k / W        otherwise:  (T − k) / (T − W)
 *
 * So the last update has 1 / (T − W) of the peak: Hugging Face's numbers (`get_linear_schedule_with_warmup`).
 */
export const linear: ScheduleKind = {
  name: "linear",
  takesWarmup: true,
  takes: [],
  make(length) {
    const { totalSteps, warmupSteps } = length;
    const decaySteps = Math.max(1, totalSteps - warmupSteps);
    return { factor: warmedUp(length, (completedSteps) => (totalSteps - completedSteps) / decaySteps) };
  },
};
