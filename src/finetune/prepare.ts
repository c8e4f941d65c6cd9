/**
 * What a run needs before its first step: what is asked for, the data, the model, the teacher's answers, a trainer. All that
 * can be wrong is found here, before anything is written.
 * @module
 */
import { join } from "node:path";
import { InputError, Interrupted } from "../core/errors.ts";
import { checkOutputFolder } from "../core/files.ts";
import { BatchPlan } from "../data/batch_plan.ts";
import { evaluationBatches, largestBatch } from "../data/batches.ts";
import type { ExampleSet } from "../data/example_set.ts";
import { optimizerDefaults, updateRule } from "../kernels/optimizer/optimizers.ts";
import type { Machine } from "../machines/machine.ts";
import { checkPhases, isMovement } from "../pruning/phase.ts";
import { isPrunable, type LayerSparsity } from "../pruning/sparsity.ts";
import type { Modifier } from "../recipes/modifiers.ts";
import { matchParameters } from "./groups.ts";
import { type AnyJob, prepareJob } from "./job.ts";
import { chooseDevice, type ChosenDevice, gpuOptions, tileOf } from "./device.ts";
import { metaGroupNames } from "./meta/groups.ts";
import type { MetaOptions } from "./meta/options.ts";
import { splitMetaValidation } from "./meta/validation.ts";
import type { FinetuneContext } from "./mod.ts";
import { optimizerSettingsOf } from "./optimizer_options.ts";
import { batchLimitOf, type FinetuneSettings } from "./options.ts";
import { type ParameterLayout, parameterLayoutOf } from "./parameters.ts";
import { trainingPatternOf } from "./prune.ts";
import { modifiersOf } from "./run_modifiers.ts";
import { holdsState } from "./state.ts";
import { loadTeacher, type TeacherLogits } from "./teacher.ts";
import { denseTeacher, teacherOf, Teaching } from "./teaching.ts";
import {
  epochsAskedFor,
  type OptimizerAsked,
  optimizerAskedFor,
  type Timeline,
  timelineOf,
} from "./timeline.ts";
import { Trainer } from "./trainer.ts";

/** Everything a run needs to know before it has a trainer. */
export interface Preparation {
  readonly settings: FinetuneSettings;
  readonly context: FinetuneContext;
  readonly machine: Machine;
  readonly threads: number;
  readonly device: ChosenDevice;
  readonly modifiers: readonly Modifier[];
  readonly optimizer: OptimizerAsked;
  readonly teaching?: Teaching;
  readonly job: AnyJob;
  /** The examples that are trained on, by number of the plan. */
  readonly examples: ExampleSet<never>;
  /** Numbers of the training examples that are held out for meta-updates. */
  readonly heldOut: Int32Array;
  readonly plan: BatchPlan;
  readonly layout: ParameterLayout;
  /** As it is if no weight is zero yet. */
  readonly timeline: Timeline;
}

/** Reads everything and checks all that can be checked before there is a trainer. Writes nothing. */
export async function prepare(
  settings: FinetuneSettings,
  context: FinetuneContext,
  machine: Machine,
  threads: number,
): Promise<Preparation> {
  const modifiers = await modifiersOf(settings);
  const optimizer = optimizerAskedFor(modifiers)!;
  const device = await chooseDevice(settings.device, {
    modifiers,
    hasGpuFactory: context.createGpu !== undefined,
    precision: settings.precision,
  });
  const teaches = modifiers.some((modifier) => modifier.modifier === "DistillationModifier");
  const teaching = teaches ? new Teaching() : undefined;
  await checkOutput(settings);
  const job = await readJob(settings, context, tileOf(device, machine), teaching);
  checkEvaluated(settings, job);
  const { train } = job.task;
  const { training, heldOut } = splitExamples(train.lengths.length, optimizer.meta, settings.seed);
  const examples: ExampleSet<never> = training
    ? {
      lengths: Int32Array.from(training, (index) => train.lengths[index]),
      at: (index) => train.at(training[index]),
    }
    : train;
  const { seed, groupByLength, accumulation } = settings;
  const plan = new BatchPlan({
    lengths: examples.lengths,
    limit: batchLimitOf(settings),
    groupByLength,
    seed,
    epochs: epochsAskedFor(modifiers)!,
    accumulation,
  });
  const layout = parameterLayoutOf(job.task.model);
  const timeline = layTimeline(modifiers, settings, plan, noZeros(layout));
  checkPhases(timeline.pruning, layout.slots);
  checkMomentum(timeline, optimizer);
  const rest = { settings, context, machine, threads, device, modifiers, optimizer, teaching };
  return { ...rest, job, examples, heldOut, plan, layout, timeline };
}

/** Reads the data, away from this thread: the event loop stays free, and an interrupt ends the run at once. */
async function readJob(
  settings: FinetuneSettings,
  { createReader, listener, signal }: FinetuneContext,
  tile: number,
  teaching: Teaching | undefined,
): Promise<AnyJob> {
  const interrupted = () => new Interrupted("interrupted before the first step: nothing was written");
  if (signal?.aborted) throw interrupted();
  const reader = createReader();
  const stop = () => reader.dispose();
  signal?.addEventListener("abort", stop);
  try {
    const progress = (rows: number, totalRows: number) => listener?.data?.({ rows, totalRows });
    return await prepareJob(settings, { reader, progress, tile, teaching });
  } catch (error) {
    throw signal?.aborted ? interrupted() : error;
  } finally {
    signal?.removeEventListener("abort", stop);
    reader.dispose();
  }
}

/** Refuses what follows from evaluations where there is nothing to evaluate on. */
function checkEvaluated({ earlyStopping, evalSteps }: FinetuneSettings, { task }: AnyJob): void {
  if (task.evaluation.lengths.length > 0) return;
  if (earlyStopping > 0) {
    throw new InputError(
      `--early-stopping-patience is ${earlyStopping}: wanted --eval with it, to see what is better`,
    );
  }
  if (evalSteps > 0) {
    throw new InputError(`--eval-steps is ${evalSteps}: wanted --eval with it, to evaluate on`);
  }
}

/** Holds examples out for meta-updates; without those all are trained on. */
function splitExamples(
  count: number,
  meta: MetaOptions | undefined,
  seed: number,
): { readonly training?: Int32Array; readonly heldOut: Int32Array } {
  if (!meta || !meta.learns || meta.fixed) return { heldOut: new Int32Array() };
  const { training, validation } = splitMetaValidation(count, meta.validationFraction, seed);
  return { training, heldOut: validation };
}

/** The modifiers over the steps of a run that starts with these zeros. */
export function layTimeline(
  modifiers: readonly Modifier[],
  { learningRate, weightDecay, teacher }: FinetuneSettings,
  { epochBegins }: BatchPlan,
  prunable: readonly LayerSparsity[],
): Timeline {
  return timelineOf(modifiers, { epochBegins, prunable, learningRate, weightDecay, teacher });
}

function noZeros({ slots }: ParameterLayout): LayerSparsity[] {
  return slots.filter(({ name }) => isPrunable(name))
    .map(({ name, length }) => ({ name, weights: length, zeros: 0, sparsity: 0 }));
}

/** Refuses a schedule that cycles a momentum which the optimiser does not have. */
function checkMomentum({ rateAt, totalSteps }: Timeline, { name, options }: OptimizerAsked): void {
  if (updateRule(optimizerSettingsOf(name, options)).takesMomentum) return;
  for (let step = 0; step < totalSteps; step++) {
    const { momentum } = rateAt(step);
    if (momentum === undefined) continue;
    throw new InputError(
      `the learning-rate schedule sets the momentum to ${momentum}, and ${name} has none: ` +
        "wanted --momentum above 0, or a schedule with cycleMomentum false",
    );
  }
}

/** The answers of a teacher that is a folder; undefined where there is none, or it is the model itself. */
export async function askTeacher(
  { settings, context, machine, threads, job, timeline }: Preparation,
): Promise<TeacherLogits | undefined> {
  const folder = teacherOf(timeline.distillation);
  if (folder === undefined || folder === denseTeacher) return undefined;
  const { openTeacher, askModel } = await import("./teacher_model.ts");
  const teacher = await openTeacher(folder, job.student!);
  const { train } = job.task;
  const known = { examples: train.lengths.length, digest: teacher.digest };
  const kept = settings.resume ? await loadTeacher(settings.out, known) : undefined;
  return kept ?? await askModel(teacher, {
    examples: train,
    machine,
    threads,
    createExecutor: context.createExecutor,
    progress: (rows, totalRows) => context.listener?.data?.({ rows, totalRows }),
    signal: context.signal,
  });
}

/** A trainer for the largest batch of training, evaluation and meta-updates. */
export async function makeTrainer(preparation: Preparation): Promise<Trainer<never>> {
  const { settings, context, machine, threads, device, optimizer, job, heldOut, plan, layout, timeline } =
    preparation;
  const { train, evaluation, model } = job.task;
  const limit = batchLimitOf(settings);
  const evaluated = largestBatch(evaluationBatches(evaluation.lengths, limit), evaluation.lengths);
  const longest = Int32Array.from(heldOut, (index) => train.lengths[index]).sort().reverse();
  const held = longest.subarray(0, metaBatchSize(plan));
  const sequences = [plan.capacity.sequences, evaluated.sequences, held.length];
  const tokens = [plan.capacity.tokens, evaluated.tokens, held.reduce((sum, length) => sum + length, 0)];
  const scores = timeline.pruning.some(({ method }) => isMovement(method));
  return await Trainer.create({
    model,
    machine,
    workers: threads,
    createExecutor: context.createExecutor,
    maximumSequences: Math.max(...sequences),
    maximumTokens: Math.max(...tokens),
    seed: settings.seed,
    optimizer: optimizerSettingsOf(optimizer.name, optimizer.options),
    scoreOptimizer: scores ? optimizerDefaults("adamw") : undefined,
    maximumNorm: settings.maximumNorm,
    groups: {
      layerDecay: settings.layerDecay,
      frozen: settings.freeze && matchParameters(layout, settings.freeze, "--freeze"),
      split: optimizer.meta && metaGroupNames(layout.slots, optimizer.meta.grouping),
    },
    accumulates: settings.accumulation > 1,
    pattern: trainingPatternOf(timeline.pruning),
    sparse: !settings.denseTraining,
    checkpoints: settings.gradientCheckpointing,
    precision: device.precision,
    compiling: (shaders, totalShaders) => context.listener?.compiling?.({ shaders, totalShaders }),
    gpu: device.name === "cpu" || settings.device === "cpu"
      ? undefined
      : await context.createGpu!(gpuOptions(settings.device)),
  });
}

/** Held-out examples in a meta-update: as many as a batch has. */
export function metaBatchSize({ capacity }: BatchPlan): number {
  return Math.min(capacity.sequences, 32);
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
