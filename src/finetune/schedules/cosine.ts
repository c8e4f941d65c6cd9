/**
 * Cosine annealing: slow at the peak, slow at the end.
 * @module
 */
import { endRatioOf, progressAfterWarmup, type ScheduleKind, warmedUp } from "./schedule.ts";

/**
 * Half a wave from 1 to the floor r, with p the progress after the warm-up (Loshchilov and Hutter, arXiv 1608.03983):
 *
 *     r + (1 − r) · (1 + cos πp) / 2
 *
 * Hugging Face's `cosine`, and with a floor its `cosine_with_min_lr` (r is `min_lr_rate`); those rise again beyond
 * `totalSteps`, this stays at the floor.
 */
export const cosine: ScheduleKind = {
  name: "cosine",
  takesWarmup: true,
  takes: ["endRatio"],
  make(length, options) {
    const floor = endRatioOf("cosine", options);
    return {
      factor: warmedUp(length, (completedSteps) => {
        const wave = halfWave(progressAfterWarmup(length, completedSteps));
        return wave * (1 - floor) + floor;
      }),
    };
  },
};

/** From 1 at 0 to 0 at 1, along a cosine. */
export function halfWave(progress: number): number {
  return 0.5 * (1 + Math.cos(Math.PI * progress));
}
