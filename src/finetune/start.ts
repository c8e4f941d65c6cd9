/**
 * The start of a run, or of another sitting of it: weights in the trainer, and beside it all that goes along.
 * @module
 */
import { BatchFeed } from "../data/batch_feed.ts";
import { checkZeros } from "../pruning/phase.ts";
import { sparsityOfWeights } from "../pruning/sparsity.ts";
import { fingerprintOf } from "./fingerprint.ts";
import type { TrainingRun } from "./loop.ts";
import { describeMemory } from "./memory_report.ts";
import { MetaAdamW } from "./meta/meta_adamw.ts";
import { MetaDriver } from "./meta_driver.ts";
import { optimizerSettingsOf } from "./optimizer_options.ts";
import { batchLimitOf } from "./options.ts";
import { layTimeline, metaBatchSize, type Preparation } from "./prepare.ts";
import { Pruner } from "./pruner.ts";
import { RunRecorder } from "./report/recorder.ts";
import { arithmeticOf } from "./device.ts";
import { clearLeftovers, loadState, noStages, type RunProgress, saveState } from "./state.ts";
import { askTrainer, loadTeacher, saveTeacher, type TeacherLogits } from "./teacher.ts";
import { epochsAskedFor, type Timeline } from "./timeline.ts";
import type { Trainer } from "./trainer.ts";

/** Puts the weights to start from, or those of the saved run, into the trainer, and makes sure of the output folder. */
export async function startRun(
  preparation: Preparation,
  trainer: Trainer<never>,
  teacher: TeacherLogits | undefined,
  firstNote: string,
): Promise<TrainingRun<never>> {
  const { settings, context, machine, device, modifiers, job, examples, plan, teaching } = preparation;
  const { listener, signal } = context;
  const { out } = settings;
  const arithmetic = arithmeticOf(device, machine);
  const fingerprint = fingerprintOf(settings, { job, modifiers, teacher });
  // Bad input ends the run up to here, with its one line and nothing else; so the notes are kept until then.
  const notes: string[] = [];
  const meta = makeMeta(preparation, trainer);
  let progress: RunProgress;
  if (settings.resume) {
    progress = await loadState(out, trainer, fingerprint);
    if (progress.meta) meta?.restore(progress.meta);
    notes.push(`resumed ${out} at step ${progress.completedSteps} of ${plan.totalSteps}`);
    if (progress.arithmetic !== arithmetic) {
      notes.push(
        `the run began on ${progress.arithmetic}: on ${arithmetic} sums round differently, so its numbers will differ`,
      );
    }
  } else {
    await job.initialise(trainer, (text) => notes.push(text));
    progress = beginProgress(arithmetic, trainer);
  }
  const timeline = layTimeline(modifiers, settings, plan, progress.prunable);
  if (!settings.resume) {
    checkZeros(timeline.pruning, progress.prunable);
    // A folder that cannot be written or a disk too small is found now and not after an epoch.
    await saveState(out, trainer, progress, fingerprint);
    if (teacher) await saveTeacher(out, teacher);
  }
  const { createExecutor } = context;
  const pruner = new Pruner({
    trainer,
    phases: timeline.pruning,
    examples,
    capacity: plan.capacity,
    executors: { machine, workers: preparation.threads, createExecutor },
    seed: settings.seed,
    say: (text) => listener?.message?.(text),
  });
  const recorder = await RunRecorder.open({ out, settings, completedSteps: progress.completedSteps });
  let savedSteps = progress.completedSteps;
  const save = async () => {
    await recorder.save();
    await saveState(out, trainer, { ...progress, meta: meta?.state() }, fingerprint);
    savedSteps = progress.completedSteps;
  };
  const { train, evaluation } = job.task;
  const known = { examples: train.lengths.length };
  teaching?.prepare({
    phases: timeline.distillation,
    answers: teacher ?? (settings.resume ? await loadTeacher(out, known) : undefined),
    async askDense() {
      await save();
      const { dense, completedSteps } = progress;
      const quality = dense ? `: ${dense.primary.name} ${dense.primary.value.toFixed(4)}` : "";
      listener?.message?.(
        `the dense model of step ${completedSteps} is asked, and teaches from here${quality}`,
      );
      const answers = await askTrainer(trainer, train, batchLimitOf(settings), { signal });
      await saveTeacher(out, answers);
      return answers;
    },
  });
  await clearLeftovers(out);
  const { refreshBytes } = pruner;
  const memory = describeMemory({
    trainer: trainer.needs,
    onGpu: trainer.gpu !== undefined,
    metaBytes: meta?.bufferBytes,
    refreshBytes,
  });
  for (const note of [firstNote, job.dataReport, memory, ...notes]) listener?.message?.(note);
  return {
    settings,
    listener,
    signal,
    trainer,
    plan,
    feed: new BatchFeed(plan, examples.at),
    timeline,
    peakRate: peakRateOf(timeline),
    pruner,
    teaching,
    meta,
    recorder,
    progress,
    evaluate: evaluation.lengths.length > 0
      ? () => job.task.evaluate(trainer, batchLimitOf(settings))
      : undefined,
    tokensOf: (batch) => job.task.model.sizeOf(batch).columns,
    savedSteps: () => savedSteps,
    save,
  };
}

function beginProgress(arithmetic: string, trainer: Trainer<never>): RunProgress {
  const weights = trainer.layout.slots.map((slot) => ({ name: slot.name, values: trainer.parameter(slot) }));
  return {
    arithmetic,
    completedSteps: 0,
    trainingSeconds: 0,
    trainedTokens: 0,
    trainedExamples: 0,
    stages: noStages(),
    sparsity: 0,
    prunable: sparsityOfWeights(weights).layers,
    evaluations: [],
  };
}

function makeMeta(
  { settings, optimizer, job, examples, heldOut, plan, modifiers }: Preparation,
  trainer: Trainer<never>,
): MetaDriver<never> | undefined {
  const options = optimizer.meta;
  if (!options) return undefined;
  const { seed, maximumNorm } = settings;
  const meta = new MetaAdamW(trainer, {
    options,
    optimizer: optimizerSettingsOf(optimizer.name, optimizer.options),
    maximumNorm,
    totalSteps: plan.totalSteps,
    stepsPerEpoch: plan.totalSteps / epochsAskedFor(modifiers)!,
    seed,
  });
  const { train } = job.task;
  return new MetaDriver({
    meta,
    plan,
    exampleAt: examples.at,
    examples: train,
    heldOut,
    batchSize: metaBatchSize(plan),
    seed,
  });
}

/** Asked of every step: a recipe may set the rate as it likes. */
function peakRateOf({ rateAt, totalSteps }: Timeline): number {
  let peak = Number.MIN_VALUE;
  for (let step = 0; step < totalSteps; step++) peak = Math.max(peak, rateAt(step).learningRate);
  return peak;
}
