/**
 * A linear ramp again and again: how oBERT's recipes rewind the rate so that a model recovers from each pruning step.
 * @module
 */
import { checkOption, endRatioOf, type ScheduleKind, warmedUp } from "./schedule.ts";

/**
 * Falls linearly from 1 to `endRatio`, r, within every cycle of `cycleSteps` steps; at step s of a cycle of n:
 *
 *     1 − (1 − r) · s / (n − 1)
 *
 * so that the last update of a cycle has exactly r. SparseML's `cyclic_linear`. Where the cycles do not fill the run, the
 * last is shorter and falls to r too; SparseML takes s there as the steps since the beginning modulo that shorter length,
 * which starts it in the middle of its ramp. The first cycle begins where the warm-up, if any, ends.
 */
export const cyclicLinear: ScheduleKind = {
  name: "cyclic_linear",
  takesWarmup: true,
  takes: ["cycleSteps", "endRatio"],
  make(length, options) {
    const { cycleSteps = NaN } = options;
    const end = endRatioOf("cyclic_linear", options);
    const steps = length.totalSteps - length.warmupSteps;
    checkOption(
      Number.isInteger(cycleSteps) && cycleSteps >= 1,
      "cyclic_linear",
      "cycleSteps",
      options.cycleSteps ?? "missing",
      "a whole number of at least 1",
    );
    return {
      factor: warmedUp(length, (completedSteps) => {
        // There is no update after the last; asked about one, the rate stays that of the last.
        const step = Math.max(0, Math.min(completedSteps - length.warmupSteps, steps - 1));
        const begin = step - step % cycleSteps;
        const cycleLength = Math.min(cycleSteps, steps - begin);
        return 1 - (1 - end) * (step - begin) / Math.max(1, cycleLength - 1);
      }),
    };
  },
};
