/**
 * Fine-tuning: texts and a model in, a pruned model folder out. This file is the loop, top to bottom.
 *
 *     dense phase ──────► pruning ramp (cubic) ──────► recovery at constant mask ──────► best model kept
 *     0            pruneBegin                    pruneEnd                        1     (fraction of the steps)
 * @module
 */
import { join } from "node:path";
import { saveModel } from "../checkpoint/model_folder.ts";
import { chooseThreads } from "../core/cores.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import { formatBytes } from "../core/memory.ts";
import { checkOutputFolder } from "../core/files.ts";
import { BatchFeed } from "../data/batch_feed.ts";
import { BatchPlan } from "../data/batch_plan.ts";
import { type EncodedExample, evaluationBatches, largestBatch } from "../data/batches.ts";
import { exampleAt, lengthsOf } from "../data/encoded_set.ts";
import type { DataReaderFactory } from "../data/reader.ts";
import { exportModel, type ExportResult } from "../export/mod.ts";
import { fallbackReason, selectMachine } from "../machines/mod.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import type { PruningSchedule } from "../pruning/schedule.ts";
import { sparsityOfWeights, type SparsityReport } from "../pruning/sparsity.ts";
import { chooseDevice } from "./device.ts";
import { evaluateOn } from "./evaluate.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { type Job, prepareJob } from "./job.ts";
import { checkSettings } from "./check_settings.ts";
import { optimizerSettingsOf } from "./optimizer_options.ts";
import { batchLimitOf, type FinetuneSettings } from "./options.ts";
import { pruningScheduleOf, refreshMasks } from "./prune.ts";
import { learningRateSchedule } from "./schedules/mod.ts";
import {
  clearLeftovers,
  type EvaluationRecord,
  holdsState,
  loadBest,
  loadState,
  noStages,
  type RunProgress,
  saveBest,
  saveState,
  type StageName,
  stageNames,
} from "./state.ts";
import { classifier } from "./tasks/classification.ts";
import { Trainer, type TrainerNeeds } from "./trainer.ts";

/** What a run says while it goes; all of it optional to hear. */
export interface FinetuneListener {
  /** A line for the reader: the device and why, the data report, what was saved. */
  message?(text: string): void;
  /** Now and then while the texts are tokenised, before anything else is said. */
  data?(progress: DataProgress): void;
  /** After each optimiser step. */
  step?(progress: StepProgress): void;
  /** After each evaluation. */
  evaluation?(record: EvaluationRecord, epoch: number): void;
}

/** How far tokenising is. */
export interface DataProgress {
  /** Texts, or pairs of texts, that are done. */
  readonly rows: number;
  /** All there are, for training and evaluation. */
  readonly totalRows: number;
}

/** Where the run is, for a progress bar. */
export interface StepProgress {
  /** Optimiser steps done. */
  readonly completedSteps: number;
  /** Optimiser steps of the whole run. */
  readonly totalSteps: number;
  /** Passes over the training data done, with fraction. */
  readonly epoch: number;
  /** Mean loss of the last steps (exponential, 0.95). */
  readonly loss: number;
  /** Rate of the last step. */
  readonly learningRate: number;
  /** Share of the prunable weights that are masked. */
  readonly sparsity: number;
  /** Training speed, evaluations left out. */
  readonly tokensPerSecond: number;
  /** Expected time to the last step. */
  readonly remainingSeconds: number;
}

/** How to run, beside the settings. */
export interface FinetuneContext {
  readonly createExecutor: ExecutorFactory;
  /** Makes what reads and tokenises the texts, away from this thread. */
  readonly createReader: DataReaderFactory;
  readonly listener?: FinetuneListener;
  /** Aborting ends the run with `Interrupted`; its state is saved, once there is any. */
  readonly signal?: AbortSignal;
}

/** What a run came to. */
export interface FinetuneResult {
  /** What computed. */
  readonly device: string;
  /** Worker threads. */
  readonly threads: number;
  /** Instruction set of the kernels. */
  readonly isa: string;
  /** Optimiser steps taken. */
  readonly steps: number;
  /** Examples trained on, those of every epoch. */
  readonly examples: number;
  /** Time spent in steps. */
  readonly seconds: number;
  /** Training speed, evaluations left out. */
  readonly tokensPerSecond: number;
  /** The same for each stage of the run that had any steps, in order. */
  readonly stages: readonly Stage[];
  /** Share of the time of this sitting's steps in which the workers had nothing to do as the next batch was not made. */
  readonly dataWait: number;
  /** The model that was kept. Absent without an evaluation file. */
  readonly evaluation?: EvaluationRecord;
  /** The model just before pruning began. */
  readonly denseEvaluation?: EvaluationRecord;
  /** Zeros of the prunable weights that were written. */
  readonly sparsity: SparsityReport;
  /** Output folder. */
  readonly out: string;
  /** The deployable folder. */
  readonly exported: ExportResult;
}

/** A stage of the pruning schedule. */
export interface Stage {
  /** `dense`, `pruning` (the ramp) or `recovery` (at constant mask). */
  readonly name: StageName;
  /** Optimiser steps in it. */
  readonly steps: number;
  /** Time spent in steps. */
  readonly seconds: number;
  /** Training speed, evaluations and mask refreshes left out. */
  readonly tokensPerSecond: number;
}

/** Steps in a row whose gradients may be infinite or NaN before the run is given up. */
const toleratedBadSteps = 10;

/** A run under way. */
interface Run {
  readonly settings: FinetuneSettings;
  readonly context: FinetuneContext;
  readonly job: Job;
  readonly trainer: Trainer<EncodedExample>;
  readonly plan: BatchPlan;
  readonly pruning: PruningSchedule | undefined;
  readonly progress: RunProgress;
  /** Saves everything `--resume` needs. */
  save(): Promise<void>;
}

/** Fine-tunes, prunes, evaluates and exports. Throws `InputError` for bad settings or files. */
export async function finetune(
  settings: FinetuneSettings,
  context: FinetuneContext,
): Promise<FinetuneResult> {
  checkSettings(settings);
  const device = chooseDevice(settings.device);
  const machine = selectMachine(settings.isa);
  const { count: threads, reason } = chooseThreads(settings.threads);
  await checkOutput(settings);
  const job = await readJob(settings, context);
  const { seed, groupByLength, epochs } = settings;
  const limit = batchLimitOf(settings);
  const plan = new BatchPlan({ lengths: lengthsOf(job.train), limit, groupByLength, seed, epochs });
  const lengths = lengthsOf(job.evaluation);
  const largest = largestBatch(evaluationBatches(lengths, limit), lengths);
  const trainer = await Trainer.create({
    model: classifier(job.config),
    machine,
    workers: threads,
    createExecutor: context.createExecutor,
    maximumSequences: Math.max(plan.capacity.sequences, largest.sequences),
    maximumTokens: Math.max(plan.capacity.tokens, largest.tokens),
    seed,
    optimizer: optimizerSettingsOf(settings.optimizer, settings.optimizerOptions),
    maximumNorm: settings.maximumNorm,
    pattern: settings.pattern,
    sparse: !settings.denseTraining,
    checkpoints: settings.gradientCheckpointing,
  });
  try {
    const fallback = fallbackReason(settings.isa);
    const first =
      `device: ${device.name} (${device.reason}), ${machine.isa}, ${threads} threads (${reason})` +
      (fallback ? `; ${fallback}` : "");
    const run = await startRun(settings, context, job, plan, trainer, machine.isa, first);
    const dataWait = await train(run);
    return { device: device.name, threads, isa: machine.isa, dataWait, ...await finish(run) };
  } finally {
    await trainer.dispose();
  }
}

/** Reads the data, away from this thread: the event loop stays free, and an interrupt ends the run at once. */
async function readJob(
  settings: FinetuneSettings,
  { createReader, listener, signal }: FinetuneContext,
): Promise<Job> {
  const interrupted = () => new Interrupted("interrupted before the first step: nothing was written");
  if (signal?.aborted) throw interrupted();
  const reader = createReader();
  const stop = () => reader.dispose();
  signal?.addEventListener("abort", stop);
  try {
    return await prepareJob(settings, reader, (rows, totalRows) => listener?.data?.({ rows, totalRows }));
  } catch (error) {
    throw signal?.aborted ? interrupted() : error;
  } finally {
    signal?.removeEventListener("abort", stop);
    reader.dispose();
  }
}

/** Puts the weights to start from, or those of the saved run, into the trainer, and makes sure of the output folder. */
async function startRun(
  settings: FinetuneSettings,
  context: FinetuneContext,
  job: Job,
  plan: BatchPlan,
  trainer: Trainer<EncodedExample>,
  isa: string,
  firstNote: string,
): Promise<Run> {
  const { totalSteps } = plan;
  const fingerprint = fingerprintOf(settings, job);
  let progress: RunProgress = {
    isa,
    completedSteps: 0,
    trainingSeconds: 0,
    trainedTokens: 0,
    stages: noStages(),
    sparsity: 0,
    evaluations: [],
  };
  const save = () => saveState(settings.out, trainer, progress, fingerprint);
  // Bad input ends the run up to here, with its one line and nothing else; so the notes are kept until then.
  const notes = [firstNote, job.dataReport, describeMemory(trainer.needs)];
  if (settings.resume) {
    progress = await loadState(settings.out, trainer, fingerprint);
    notes.push(`resumed ${settings.out} at step ${progress.completedSteps} of ${totalSteps}`);
    if (progress.isa !== isa) {
      notes.push(
        `the run began on ${progress.isa}: on ${isa} sums round differently, so its numbers will differ`,
      );
    }
  } else {
    await job.initialise(trainer, (text) => notes.push(text));
    // A folder that cannot be written or a disk too small is found now and not after an epoch.
    await save();
  }
  await clearLeftovers(settings.out);
  for (const note of notes) context.listener?.message?.(note);
  const pruning = pruningScheduleOf(settings, totalSteps);
  return { settings, context, job, plan, trainer, pruning, progress, save };
}

function describeMemory({ arenaBytes, parameterBytes, activationBytes }: TrainerNeeds): string {
  return `memory: ${formatBytes(arenaBytes)}: ${
    formatBytes(parameterBytes)
  } for weights, gradients and moments, ` +
    `${formatBytes(activationBytes)} for activations`;
}

/**
 * The loop: refresh the mask, step, report; at the end of an epoch evaluate, keep the best, save. Gives the share of time
 * in which steps waited for data.
 */
async function train(run: Run): Promise<number> {
  const { settings, context, job, plan, trainer, pruning, progress, save } = run;
  const { totalSteps } = plan;
  const hasEvaluation = job.evaluation.labels.length > 0;
  const learningRates = learningRateSchedule("linear", {
    totalSteps,
    warmupRatio: settings.warmupRatio ?? 0.06,
  });
  const prunedFrom = pruning ? Math.round(settings.pruneEnd * totalSteps) : 0;
  const stageAt = (step: number): StageName =>
    progress.sparsity === 0 ? "dense" : step < prunedFrom ? "pruning" : "recovery";
  const evaluate = async (): Promise<EvaluationRecord> => {
    const { completedSteps, sparsity } = progress;
    const evaluation = await evaluateOn(
      trainer,
      job.evaluation,
      batchLimitOf(settings),
      job.config.labels.length,
    );
    const record = { ...evaluation, completedSteps, sparsity };
    context.listener?.evaluation?.(record, plan.epochsAt(completedSteps));
    return record;
  };
  let smoothedLoss = NaN;
  let badSteps = 0;
  const feed = new BatchFeed(plan, (index) => exampleAt(job.train, index));
  const startedAt = performance.now();
  const { completedSteps: startedSteps, trainingSeconds: startedSeconds } = progress;

  while (progress.completedSteps < totalSteps) {
    const step = progress.completedSteps;
    if (context.signal?.aborted) {
      await save();
      throw new Interrupted(
        `interrupted at step ${step} of ${totalSteps}: saved in ${settings.out}, go on with --resume`,
      );
    }
    if (pruning?.refreshes(step)) {
      if (!progress.dense && hasEvaluation) progress.dense = await evaluate();
      progress.sparsity = await refreshMasks(trainer, settings, pruning.sparsity(step));
    }

    const batches = feed.take(step);
    const learningRate = settings.learningRate * learningRates.factor(step);
    const stepBegin = performance.now();
    const [{ loss, gradientNorm }] = await Promise.all([
      trainer.step(batches, step + 1, { learningRate, weightDecay: settings.weightDecay }),
      feed.prepare(step + 1, progress.trainingSeconds / Math.max(1, step)),
    ]);
    const seconds = (performance.now() - stepBegin) / 1000;
    const tokens = batches.flat().reduce((sum, { ids }) => sum + ids.length, 0);
    progress.trainingSeconds += seconds;
    progress.trainedTokens += tokens;
    const stage = progress.stages[stageAt(step)];
    stage.steps++;
    stage.seconds += seconds;
    stage.tokens += tokens;
    progress.completedSteps = step + 1;
    badSteps = Number.isFinite(gradientNorm) ? 0 : badSteps + 1;
    if (badSteps > toleratedBadSteps) {
      throw new Error(
        `gradients are not finite at step ${step + 1} and the ${toleratedBadSteps} before: ` +
          `lower --learning-rate, which is ${settings.learningRate}`,
      );
    }
    smoothedLoss = Number.isNaN(smoothedLoss) ? loss : 0.95 * smoothedLoss + 0.05 * loss;
    const secondsPerStep = (performance.now() - startedAt) / 1000 / (step + 1 - startedSteps);
    context.listener?.step?.({
      completedSteps: step + 1,
      totalSteps,
      epoch: plan.epochsAt(step + 1),
      loss: smoothedLoss,
      learningRate,
      sparsity: progress.sparsity,
      tokensPerSecond: progress.trainedTokens / progress.trainingSeconds,
      remainingSeconds: secondsPerStep * (totalSteps - step - 1),
    });

    const epochEnds = plan.endsEpoch(step + 1);
    if (epochEnds && hasEvaluation) {
      const record = await evaluate();
      progress.evaluations.push(record);
      const isFinal = step + 1 > prunedFrom;
      if (isFinal && (!progress.best || isBetter(record, progress.best))) {
        await saveBest(settings.out, trainer);
        progress.best = record;
      }
    }
    if (epochEnds || (settings.saveSteps > 0 && (step + 1) % settings.saveSteps === 0)) await save();
  }
  const busySeconds = progress.trainingSeconds - startedSeconds;
  return feed.waitSeconds === 0 ? 0 : feed.waitSeconds / (feed.waitSeconds + busySeconds);
}

/** Writes the best model and its export. */
async function finish(
  { settings, job, trainer, progress }: Run,
): Promise<Omit<FinetuneResult, "device" | "threads" | "isa" | "dataWait">> {
  await trainer.settle();
  if (progress.best) await loadBest(settings.out, trainer);
  const tensors = trainer.layout.slots.map((slot) => ({
    name: slot.name,
    shape: slot.shape,
    data: trainer.parameter(slot),
  }));
  await saveModel(settings.out, {
    configJson: job.configJson,
    tensors,
    tokenizerFiles: job.tokenizerFiles,
    format: "dense",
    overwrite: true,
  });
  const exported = await exportModel({
    model: settings.out,
    out: join(settings.out, "export"),
    pattern: settings.pattern,
    overwrite: true,
  });
  return {
    steps: progress.completedSteps,
    examples: settings.epochs * job.train.labels.length,
    seconds: progress.trainingSeconds,
    tokensPerSecond: progress.trainedTokens / progress.trainingSeconds,
    stages: stageNames.map((name) => ({ name, ...progress.stages[name] }))
      .filter(({ steps }) => steps > 0)
      .map(({ name, steps, seconds, tokens }) => ({
        name,
        steps,
        seconds,
        tokensPerSecond: tokens / seconds,
      })),
    evaluation: progress.best ?? progress.evaluations.at(-1),
    denseEvaluation: progress.dense,
    sparsity: sparsityOfWeights(tensors.map(({ name, data }) => ({ name, values: data }))),
    out: settings.out,
    exported,
  };
}

/** Refuses, before anything is read, an output folder in which something would be lost, or nothing can be resumed. */
async function checkOutput({ out, overwrite, resume }: FinetuneSettings): Promise<void> {
  const isStarted = await holdsState(out);
  if (resume) {
    if (!isStarted) throw new InputError(`Cannot resume ${out}: it holds no training state`);
    return;
  }
  await checkOutputFolder(out, { overwrite });
  await checkOutputFolder(join(out, "export"), { overwrite });
  if (isStarted && !overwrite) {
    throw new InputError(`${out} already holds a run: pass --resume to go on, --overwrite or another --out`);
  }
}

/** Better accuracy wins; at equal accuracy the lower loss. */
function isBetter(a: EvaluationRecord, b: EvaluationRecord): boolean {
  return a.accuracy > b.accuracy || (a.accuracy === b.accuracy && a.loss < b.loss);
}
