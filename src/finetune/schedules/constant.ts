/**
 * The peak rate throughout, with a warm-up and without.
 * @module
 */
import { type ScheduleKind, warmedUp } from "./schedule.ts";

/** The peak rate from the first update to the last. As in Hugging Face, a warm-up is not part of it. */
export const constant: ScheduleKind = {
  name: "constant",
  takesWarmup: false,
  takes: [],
  make: () => ({ factor: () => 1 }),
};

/** The peak rate once the warm-up is over. */
export const constantWithWarmup: ScheduleKind = {
  name: "constant_with_warmup",
  takesWarmup: true,
  takes: [],
  make: (length) => ({ factor: warmedUp(length, () => 1) }),
};
