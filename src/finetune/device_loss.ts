/**
 * The end of a run whose GPU is gone.
 * @module
 */
import { Interrupted } from "../core/errors.ts";
import type { TrainingRun } from "./loop.ts";

/** A call may be refused before the reason has come; it comes from another thread. */
const patienceMs = 200;

/** One line about the lost device, with where to go on; any other error as it is. */
export async function explainLoss(
  error: unknown,
  { settings, trainer, progress, timeline, savedSteps }: Pick<
    TrainingRun<never>,
    "settings" | "trainer" | "progress" | "timeline" | "savedSteps"
  >,
): Promise<unknown> {
  if (!trainer.gpu || error instanceof Interrupted) return error;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(resolve, patienceMs, undefined);
  const reason = await Promise.race([trainer.gpu.lost, promise]);
  clearTimeout(timer);
  if (reason === undefined) return error;
  return new Error(
    `${reason}, at step ${progress.completedSteps} of ${timeline.totalSteps}; saved is step ${savedSteps()}: ` +
      `go on with --resume, or with --resume --device cpu${
        settings.precision === "fp16" ? " --precision fp32" : ""
      }`,
  );
}
