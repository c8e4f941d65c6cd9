/**
 * The end of a run whose GPU is gone, or full.
 * @module
 */
import { Interrupted, UnsupportedError } from "../core/errors.ts";
import type { TrainingRun } from "./loop.ts";

/** A call may be refused before the reason has come; it comes from another thread. */
const patienceMs = 200;

/** One line about the device that is lost or has no room left, with where to go on; any other error as it is. */
export async function explainLoss(
  error: unknown,
  { settings, trainer, progress, timeline, savedSteps }: Pick<
    TrainingRun<never>,
    "settings" | "trainer" | "progress" | "timeline" | "savedSteps"
  >,
): Promise<unknown> {
  if (!trainer.gpu || error instanceof Interrupted) return error;
  // What a GPU cannot do is refused before the run begins, but for memory that others have taken since.
  const reason = error instanceof UnsupportedError ? error.message : await reasonOf(trainer.gpu.lost);
  if (reason === undefined) return error;
  return new Error(
    `${reason}, at step ${progress.completedSteps} of ${timeline.totalSteps}; saved is step ${savedSteps()}: ` +
      `go on with --resume, or with --resume --device cpu${
        settings.precision === "fp16" ? " --precision fp32" : ""
      }`,
  );
}

/** Why the device is lost; undefined if it is not. */
async function reasonOf(lost: Promise<string>): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(resolve, patienceMs, undefined);
  const reason = await Promise.race([lost, promise]);
  clearTimeout(timer);
  return reason;
}
