/**
 * Fine-tuning: texts and a model in, a pruned model folder out. This file is the loop, top to bottom.
 *
 *     dense phase ──────► pruning ramp (cubic) ──────► recovery at constant mask ──────► best model kept
 *     0            pruneBegin                    pruneEnd                        1     (fraction of the steps)
 * @module
 */
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { saveModel } from "../checkpoint/model_folder.ts";
import { chooseThreads } from "../core/cores.ts";
import { InputError, Interrupted } from "../core/errors.ts";
import { checkOutputFolder } from "../core/files.ts";
import { type EncodedExample, evaluationBatches, planEpoch, tokenCapacity } from "../data/batches.ts";
import { exportModel, type ExportResult } from "../export/mod.ts";
import { selectMachine } from "../machines/mod.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import { magnitude } from "../pruning/magnitude.ts";
import { type PrunableMatrix, pruneMasks } from "../pruning/method.ts";
import { cubicSchedule, type PruningSchedule } from "../pruning/schedule.ts";
import { isPrunable, sparsityOfWeights, type SparsityReport } from "../pruning/sparsity.ts";
import { chooseDevice } from "./device.ts";
import { type Job, prepareJob } from "./job.ts";
import { ConfusionMatrix, predictedClass } from "./metrics.ts";
import { checkSettings, type FinetuneSettings } from "./options.ts";
import { linear, warmupStepsOf } from "./schedule.ts";
import {
  type EvaluationRecord,
  type Fingerprint,
  holdsState,
  loadBest,
  loadState,
  type RunProgress,
  saveBest,
  saveState,
} from "./state.ts";
import { Trainer } from "./trainer.ts";

/** What a run says while it goes; all of it optional to hear. */
export interface FinetuneListener {
  /** A line for the reader: the device and why, the data report, what was saved. */
  message?(text: string): void;
  /** After each optimiser step. */
  step?(progress: StepProgress): void;
  /** After each evaluation. */
  evaluation?(record: EvaluationRecord, epoch: number): void;
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
  readonly listener?: FinetuneListener;
  /** Aborting saves the state and ends the run with `Interrupted`. */
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
  /** Time spent in steps. */
  readonly seconds: number;
  /** Training speed, evaluations left out. */
  readonly tokensPerSecond: number;
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

/** Steps in a row whose gradients may be infinite or NaN before the run is given up. */
const toleratedBadSteps = 10;

/** Fine-tunes, prunes, evaluates and exports. Throws `InputError` for bad settings or files. */
export async function finetune(
  settings: FinetuneSettings,
  context: FinetuneContext,
): Promise<FinetuneResult> {
  checkSettings(settings);
  const say = (text: string) => context.listener?.message?.(text);
  const device = chooseDevice(settings.device);
  const machine = selectMachine(settings.isa);
  const { count: threads, reason: threadsReason } = chooseThreads(settings.threads);
  await checkOutput(settings);
  const job = await prepareJob(settings);
  const { train, evaluation } = job;
  const { batchSize, seed } = settings;
  const lengths = (examples: readonly EncodedExample[]) => examples.map(({ ids }) => ids.length);
  const trainer = await Trainer.create({
    config: job.config,
    machine,
    workers: threads,
    createExecutor: context.createExecutor,
    maximumSequences: batchSize,
    maximumTokens: Math.max(
      tokenCapacity(lengths(train), batchSize),
      tokenCapacity(lengths(evaluation), batchSize),
    ),
    seed,
    optimizer: settings,
  });

  try {
    const batchesPerEpoch = Math.ceil(train.length / batchSize);
    const totalSteps = settings.epochs * batchesPerEpoch;
    const learningRates = linear({
      totalSteps,
      warmupSteps: warmupStepsOf(settings.warmupRatio, totalSteps),
    });
    const pruning = pruningScheduleOf(settings, totalSteps);
    const prunedFrom = pruning ? Math.round(settings.pruneEnd * totalSteps) : 0;
    const fingerprint = fingerprintOf(settings, job);
    let progress: RunProgress = {
      completedSteps: 0,
      trainingSeconds: 0,
      trainedTokens: 0,
      sparsity: 0,
      evaluations: [],
    };
    const save = () => saveState(settings.out, trainer, progress, fingerprint);
    // Bad input ends the run up to here, with its one line and nothing else; so the rest is said only now.
    const notes = [
      `device: ${device.name} (${device.reason}), ${machine.isa}, ${threads} threads (${threadsReason})`,
      job.dataReport,
    ];
    if (settings.resume) {
      progress = await loadState(settings.out, trainer, fingerprint);
      notes.push(`resumed ${settings.out} at step ${progress.completedSteps} of ${totalSteps}`);
    } else {
      await job.initialise(trainer, (text) => notes.push(text));
      // A folder that cannot be written or a disk too small is found now and not after an epoch.
      await save();
    }
    notes.forEach(say);

    const evaluate = async (): Promise<EvaluationRecord> => ({
      ...await evaluateOn(trainer, evaluation, batchSize),
      completedSteps: progress.completedSteps,
      sparsity: progress.sparsity,
    });
    let smoothedLoss = NaN;
    let badSteps = 0;
    let epochBatches: { epoch: number; batches: Int32Array[] } | undefined;
    const startedAt = performance.now();
    const startedSteps = progress.completedSteps;

    while (progress.completedSteps < totalSteps) {
      const step = progress.completedSteps;
      const epoch = Math.floor(step / batchesPerEpoch);
      if (context.signal?.aborted) {
        await save();
        throw new Interrupted(
          `interrupted at step ${step} of ${totalSteps}: saved in ${settings.out}, go on with --resume`,
        );
      }
      if (epochBatches?.epoch !== epoch) {
        epochBatches = { epoch, batches: planEpoch({ examples: train.length, batchSize, seed, epoch }) };
      }

      if (pruning?.refreshes(step)) {
        if (!progress.dense && evaluation.length > 0) {
          progress.dense = await evaluate();
          context.listener?.evaluation?.(progress.dense, step / batchesPerEpoch);
        }
        progress.sparsity = refreshMasks(trainer, settings, pruning.sparsity(step));
      }

      const batch = Array.from(epochBatches.batches[step % batchesPerEpoch], (index) => train[index]);
      const learningRate = settings.learningRate * learningRates.factor(step);
      const stepBegin = performance.now();
      const { loss, gradientNorm } = await trainer.step(batch, step + 1, learningRate);
      progress.trainingSeconds += (performance.now() - stepBegin) / 1000;
      progress.trainedTokens += batch.reduce((sum, { ids }) => sum + ids.length, 0);
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
        epoch: (step + 1) / batchesPerEpoch,
        loss: smoothedLoss,
        learningRate,
        sparsity: progress.sparsity,
        tokensPerSecond: progress.trainedTokens / progress.trainingSeconds,
        remainingSeconds: secondsPerStep * (totalSteps - step - 1),
      });

      const epochEnds = (step + 1) % batchesPerEpoch === 0;
      if (epochEnds && evaluation.length > 0) {
        const record = await evaluate();
        progress.evaluations.push(record);
        context.listener?.evaluation?.(record, (step + 1) / batchesPerEpoch);
        const eligible = step + 1 > prunedFrom;
        if (eligible && (!progress.best || isBetter(record, progress.best))) {
          await saveBest(settings.out, trainer);
          progress.best = record;
        }
      }
      if (epochEnds || (settings.saveSteps > 0 && (step + 1) % settings.saveSteps === 0)) await save();
    }

    if (progress.best) await loadBest(settings.out, trainer);
    const parameters = trainer.layout.slots.map((slot) => ({
      name: slot.name,
      shape: slot.shape,
      data: trainer.parameter(slot),
    }));
    const sparsity = sparsityOfWeights(parameters.map(({ name, data }) => ({ name, values: data })));
    await saveModel(settings.out, {
      configJson: job.configJson,
      tensors: parameters,
      tokenizerFiles: job.tokenizerFiles,
      format: "dense",
      overwrite: true,
    });
    const exported = await exportModel({
      model: settings.out,
      out: resolve(settings.out, "export"),
      pattern: settings.pattern,
      overwrite: true,
    });
    return {
      device: device.name,
      threads,
      isa: machine.isa,
      steps: progress.completedSteps,
      seconds: progress.trainingSeconds,
      tokensPerSecond: progress.trainedTokens / progress.trainingSeconds,
      evaluation: progress.best ?? progress.evaluations.at(-1),
      denseEvaluation: progress.dense,
      sparsity,
      out: settings.out,
      exported,
    };
  } finally {
    await trainer.dispose();
  }
}

/** Refuses, before anything is read, an output folder in which something would be lost, or nothing can be resumed. */
async function checkOutput({ out, overwrite, resume }: FinetuneSettings): Promise<void> {
  const isStarted = await holdsState(out);
  if (resume) {
    if (!isStarted) throw new InputError(`Cannot resume ${out}: it holds no training state`);
    return;
  }
  await checkOutputFolder(out, { overwrite });
  await checkOutputFolder(resolve(out, "export"), { overwrite });
  if (isStarted && !overwrite) {
    throw new InputError(`${out} already holds a run: pass --resume to go on, --overwrite or another --out`);
  }
}

/** Loss and metrics on a labelled set. */
export async function evaluateOn(
  trainer: Trainer,
  examples: readonly EncodedExample[],
  batchSize: number,
): Promise<ReturnType<ConfusionMatrix["evaluation"]>> {
  const classes = trainer.config.labels.length;
  const confusion = new ConfusionMatrix(classes);
  let lossSum = 0;
  for (const indices of evaluationBatches(examples.map(({ ids }) => ids.length), batchSize)) {
    const batch = Array.from(indices, (index) => examples[index]);
    const { loss, logits, stride } = await trainer.evaluate(batch);
    lossSum += loss * batch.length;
    batch.forEach(({ label }, column) =>
      confusion.add(label, predictedClass(logits, stride, column, classes))
    );
  }
  return confusion.evaluation(lossSum);
}

function pruningScheduleOf(settings: FinetuneSettings, totalSteps: number): PruningSchedule | undefined {
  if (settings.sparsity === 0) return undefined;
  const begin = Math.min(totalSteps - 1, Math.round(settings.pruneBegin * totalSteps));
  const end = Math.min(totalSteps - 1, Math.round(settings.pruneEnd * totalSteps));
  return cubicSchedule({
    initialSparsity: 0,
    finalSparsity: settings.sparsity,
    begin,
    end,
    every: Math.max(1, Math.ceil((end - begin) / settings.pruneRefreshes)),
  });
}

/** Renews the trainer's mask at a sparsity and gives the sparsity of the prunable weights reached. */
function refreshMasks(trainer: Trainer, settings: FinetuneSettings, sparsity: number): number {
  const { mask } = trainer;
  const slots = trainer.layout.slots.filter(({ name }) => isPrunable(name));
  const wordsOf = (slot: typeof slots[number]) =>
    mask.subarray(slot.offset / 32, slot.offset / 32 + Math.ceil(slot.length / 32));
  const matrices = slots.map((slot): PrunableMatrix => ({
    name: slot.name,
    rows: slot.shape[0],
    columns: slot.shape[1],
    values: trainer.parameter(slot),
  }));
  const masks = pruneMasks(matrices, {
    method: magnitude,
    pattern: settings.pattern,
    scope: settings.scope,
    sparsity,
    previous: new Map(slots.map((slot) => [slot.name, wordsOf(slot)])),
  });
  for (const slot of slots) wordsOf(slot).set(masks.get(slot.name)!);
  trainer.applyMask();
  return sparsityOfWeights(matrices).overall;
}

/** Better accuracy wins; at equal accuracy the lower loss. */
function isBetter(a: EvaluationRecord, b: EvaluationRecord): boolean {
  return a.accuracy > b.accuracy || (a.accuracy === b.accuracy && a.loss < b.loss);
}

/** What decides the numbers of a run: settings and data. Threads do not: results are the same for any count. */
function fingerprintOf(settings: FinetuneSettings, { train, evaluation }: Job): Fingerprint {
  const free = new Set(["out", "overwrite", "resume", "threads", "saveSteps", "device"]);
  const entries = Object.entries(settings)
    .filter(([name, value]) => !free.has(name) && value !== undefined)
    .map(([name, value]) => [name, Array.isArray(value) ? value.join(",") : value]);
  return {
    ...Object.fromEntries(entries),
    "training data": digestOf(train),
    "evaluation data": digestOf(evaluation),
  };
}

/** A short hash of tokens and labels: files of the same name may hold other texts. */
function digestOf(examples: readonly EncodedExample[]): string {
  const hash = createHash("sha256");
  for (const { ids, label } of examples) hash.update(`${label}:${ids.join()};`);
  return hash.digest("hex").slice(0, 12);
}
