/**
 * The learning-rate finder on a run's own data and model: what `finetune` would train is trained with rising rates for a
 * hundred steps, and nothing is written.
 * @module
 */
import { chooseThreads } from "../core/cores.ts";
import { Interrupted } from "../core/errors.ts";
import { BatchFeed } from "../data/batch_feed.ts";
import { selectMachine } from "../machines/mod.ts";
import { checkSettings } from "./check_settings.ts";
import { findLearningRate, type FoundLearningRate, pretrainedEncoderRange } from "./find_learning_rate.ts";
import type { FinderPoint } from "./learning_rate_suggestions.ts";
import type { FinetuneContext } from "./mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { makeTrainer, prepare } from "./prepare.ts";

/** How to search, besides the settings of the run that is to come. */
export interface FindRunContext extends FinetuneContext {
  /** Hears of each step. */
  readonly point?: (point: FinderPoint, index: number) => void;
}

/**
 * Finds a learning rate for a run. Its schedule, its length and its output folder do not matter. Throws `InputError` for
 * settings, files or models that the run could not have, and `Interrupted` when the signal is aborted.
 */
export async function findRunLearningRate(
  settings: FinetuneSettings,
  { point, ...context }: FindRunContext,
): Promise<FoundLearningRate> {
  const searched = { ...settings, overwrite: true, resume: false };
  checkSettings(searched);
  const { count: threads } = chooseThreads(settings.threads);
  const preparation = await prepare(searched, context, selectMachine(settings.isa), threads);
  const { job, plan, examples } = preparation;
  const trainer = await makeTrainer(preparation);
  try {
    await job.initialise(trainer, (text) => context.listener?.message?.(text));
    const feed = new BatchFeed(plan, examples.at);
    return await findLearningRate(trainer, (index) => feed.take(index % plan.totalSteps), {
      ...(settings.model === undefined ? {} : pretrainedEncoderRange),
      weightDecay: settings.weightDecay,
      point,
      signal: context.signal,
    });
  } catch (error) {
    if (!context.signal?.aborted) throw error;
    throw new Interrupted("interrupted while it searched: nothing was written");
  } finally {
    await trainer.dispose();
  }
}
