/**
 * Fine-tuning: texts and a model in, a pruned model folder out.
 *
 *     prepare.ts   what is asked for, data and model, read and checked     nothing is written yet
 *     start.ts     the trainer with its weights, and all that goes along
 *     loop.ts      step after step
 *     here         the best model written and exported
 * @module
 */
import { join } from "node:path";
import { saveModel } from "../checkpoint/model_folder.ts";
import { chooseThreads } from "../core/cores.ts";
import type { DataReaderFactory } from "../data/reader.ts";
import { exportModel, type ExportResult } from "../export/mod.ts";
import { fallbackReason, selectMachine } from "../machines/mod.ts";
import type { ExecutorFactory } from "../plan/executor.ts";
import { patternOfPhases } from "../pruning/phase.ts";
import { sparsityOfWeights, type SparsityReport } from "../pruning/sparsity.ts";
import { checkSettings } from "./check_settings.ts";
import type { GpuExecutorFactory } from "../webgpu/executor.ts";
import { describeDevice } from "./device.ts";
import { explainLoss } from "./device_loss.ts";
import { train, type TrainingRun } from "./loop.ts";
import type { FinetuneSettings, Precision } from "./options.ts";
import { askTeacher, makeTrainer, type Preparation, prepare } from "./prepare.ts";
import { startRun } from "./start.ts";
import { type EvaluationRecord, loadBest, type StageName, stageNames } from "./state.ts";

/** What a run says while it goes; all of it optional to hear. */
export interface FinetuneListener {
  /** A line for the reader: the device and why, the data report, how far a long refresh is. */
  message?(text: string): void;
  /** Now and then while the texts are tokenised, before anything else is said. */
  data?(progress: DataProgress): void;
  /** Now and then while the shaders of a GPU are compiled. */
  compiling?(progress: CompilingProgress): void;
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

/** How far compiling is. */
export interface CompilingProgress {
  /** Shaders that are compiled. */
  readonly shaders: number;
  /** All that the largest batch needs. */
  readonly totalShaders: number;
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
  /** Opens a GPU to train on; absent: the CPU trains. */
  readonly createGpu?: GpuExecutorFactory;
  /** Makes what reads and tokenises the texts, away from this thread. */
  readonly createReader: DataReaderFactory;
  readonly listener?: FinetuneListener;
  /** Aborting ends the run with `Interrupted`; its state is saved, once there is any. */
  readonly signal?: AbortSignal;
}

/** What a run came to. */
export interface FinetuneResult {
  /** What took the steps: `cpu`, `webgpu` or `dawn`. */
  readonly device: string;
  /** The GPU's own name, where one did. */
  readonly gpu?: string;
  /** What activations were kept in. */
  readonly precision: Precision;
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
  /** The deployable folder; absent where there is none. */
  readonly exported?: ExportResult;
  /** Why there is none. */
  readonly unexportable?: string;
  /** The HTML report of the run. */
  readonly report: string;
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

/** Fine-tunes, prunes, evaluates and exports. Throws `InputError` for bad settings or files. */
export async function finetune(
  settings: FinetuneSettings,
  context: FinetuneContext,
): Promise<FinetuneResult> {
  checkSettings(settings);
  const machine = selectMachine(settings.isa);
  const { count: threads, reason } = chooseThreads(settings.threads);
  const preparation = await prepare(settings, context, machine, threads);
  const teacher = await askTeacher(preparation);
  const trainer = await makeTrainer(preparation);
  try {
    const { device } = preparation;
    const fallback = fallbackReason(settings.isa);
    const first =
      `${describeDevice(device, trainer.gpu?.adapter)}, ${machine.isa}, ${threads} threads (${reason})` +
      (fallback ? `; ${fallback}` : "");
    const run = await startRun(preparation, trainer, teacher, first);
    return await complete(preparation, run).catch(async (error) => {
      throw await explainLoss(error, run);
    });
  } finally {
    await trainer.dispose();
  }
}

/** Trains to the end, writes the model and the report. */
async function complete(
  preparation: Preparation,
  run: TrainingRun<never>,
): Promise<FinetuneResult> {
  const { device, threads, machine } = preparation;
  const { trainingSeconds: before } = run.progress;
  await train(run);
  const busy = run.progress.trainingSeconds - before;
  const { waitSeconds } = run.feed;
  const outcome = {
    device: device.name,
    gpu: run.trainer.gpu?.adapter.name,
    precision: device.precision ?? "fp32" as const,
    threads,
    isa: machine.isa,
    dataWait: waitSeconds === 0 ? 0 : waitSeconds / (waitSeconds + busy),
    ...await finish(preparation, run),
  };
  return { ...outcome, report: await run.recorder.finish(outcome) };
}

/** Writes the best model and its export. */
async function finish(
  { settings, job }: Preparation,
  { trainer, progress, timeline }: TrainingRun<never>,
): Promise<Omit<FinetuneResult, "device" | "gpu" | "precision" | "threads" | "isa" | "dataWait" | "report">> {
  const { out } = settings;
  await trainer.settle();
  if (progress.best) await loadBest(out, trainer);
  const tensors = trainer.layout.slots.map((slot) => ({
    name: slot.name,
    shape: slot.shape,
    data: trainer.parameter(slot),
  }));
  await saveModel(out, {
    configJson: job.configJson,
    tensors,
    tokenizerFiles: job.tokenizerFiles,
    format: "dense",
    overwrite: true,
  });
  const exported = job.unexportable === undefined
    ? await exportModel({
      model: out,
      out: join(out, "export"),
      pattern: patternOfPhases(timeline.pruning),
      overwrite: true,
    })
    : undefined;
  const stages = stageNames.map((name) => ({ name, ...progress.stages[name] }))
    .filter(({ steps }) => steps > 0)
    .map(({ name, steps, seconds, tokens }) => ({ name, steps, seconds, tokensPerSecond: tokens / seconds }));
  const sparsity = sparsityOfWeights(tensors.map(({ name, data }) => ({ name, values: data })));
  return {
    stages,
    sparsity,
    evaluation: progress.best ?? progress.evaluations.at(-1),
    denseEvaluation: progress.dense,
    steps: progress.completedSteps,
    examples: progress.trainedExamples,
    seconds: progress.trainingSeconds,
    tokensPerSecond: progress.trainedTokens / progress.trainingSeconds,
    out,
    exported,
    unexportable: job.unexportable,
  };
}
