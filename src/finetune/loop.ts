/**
 * The training loop: masks, a step, a report; now and then an evaluation and a save. It asks the timeline what is to happen
 * at each step, and knows nothing of tasks, files and flags.
 * @module
 */
import { Interrupted } from "../core/errors.ts";
import type { BatchFeed } from "../data/batch_feed.ts";
import type { BatchPlan } from "../data/batch_plan.ts";
import { type Evaluation, isBetter } from "../evaluate/metrics.ts";
import type { MetaDriver } from "./meta_driver.ts";
import type { FinetuneSettings } from "./options.ts";
import type { FinetuneListener } from "./mod.ts";
import type { Pruner } from "./pruner.ts";
import type { RunRecorder } from "./report/recorder.ts";
import { type EvaluationRecord, type RunProgress, saveBest, type StageName } from "./state.ts";
import type { Teaching } from "./teaching.ts";
import type { Timeline } from "./timeline.ts";
import { isSkipped, type StepResult } from "./step_engine.ts";
import type { Trainer } from "./trainer.ts";

/** A run under way. */
export interface TrainingRun<Example> {
  readonly settings: FinetuneSettings;
  readonly listener?: FinetuneListener;
  /** Aborting ends the run with `Interrupted`, its state saved. */
  readonly signal?: AbortSignal;
  readonly trainer: Trainer<Example>;
  readonly plan: BatchPlan;
  readonly feed: BatchFeed<Example>;
  readonly timeline: Timeline;
  /** The highest learning rate of the run. */
  readonly peakRate: number;
  readonly pruner: Pruner<Example>;
  /** Absent: nobody is learned from. */
  readonly teaching?: Teaching;
  /** Absent: rates are those of the timeline. */
  readonly meta?: MetaDriver<Example>;
  readonly recorder: RunRecorder;
  readonly progress: RunProgress;
  /** How good the model is now. Absent: there is nothing to evaluate on. */
  readonly evaluate?: () => Promise<Evaluation>;
  /** Columns that a batch takes. */
  readonly tokensOf: (batch: readonly Example[]) => number;
  /** Steps that were done when it was last saved. */
  savedSteps(): number;
  /** Saves everything `--resume` needs. */
  save(): Promise<void>;
}

/** Steps in a row whose gradients may be infinite or NaN before the run is given up. */
const toleratedBadSteps = 10;

/**
 * Trains to the end, or until it gets no better. Steps are not waited for, where the device takes the next before: what they
 * came to is noted as it comes in, in order, and all of it before an evaluation, a save or new masks.
 */
export async function train<Example>(run: TrainingRun<Example>): Promise<void> {
  const { plan, progress, pruner, settings, teaching, timeline } = run;
  const meter = new Meter(run);
  while (progress.completedSteps < timeline.totalSteps && !hasStopped(run)) {
    const step = progress.completedSteps;
    await saveIfAborted(run, meter);
    if (pruner.refreshes(step)) {
      await meter.catchUp();
      if (!progress.dense && progress.sparsity === 0 && run.evaluate) {
        const last = progress.evaluations.at(-1);
        progress.dense = last?.completedSteps === step ? last : await evaluate(run);
      }
      await teaching?.beforePruning();
      progress.sparsity = await pruner.refresh(step);
    }
    teaching?.begin(step);
    await takeStep(run, step, meter);
    const epochEnds = plan.endsEpoch(step + 1);
    const evaluates = run.evaluate && (epochEnds || isEvery(settings.evalSteps, step + 1));
    const saves = epochEnds || isEvery(settings.saveSteps, step + 1);
    if (evaluates || saves) await meter.catchUp();
    if (evaluates) await keepBetter(run);
    if (saves || hasStopped(run)) await run.save();
  }
  await meter.catchUp();
  const { completedSteps } = progress;
  if (completedSteps === timeline.totalSteps) return;
  run.listener?.message?.(
    `stopped at step ${completedSteps} of ${timeline.totalSteps}: no improvement, and ` +
      `--early-stopping-patience is ${settings.earlyStopping}`,
  );
}

function isEvery(interval: number, step: number): boolean {
  return interval > 0 && step % interval === 0;
}

async function saveIfAborted<Example>(
  { signal, progress, timeline, settings, save }: TrainingRun<Example>,
  meter: Meter<Example>,
): Promise<void> {
  if (!signal?.aborted) return;
  await meter.catchUp();
  await save();
  throw new Interrupted(
    `interrupted at step ${progress.completedSteps} of ${timeline.totalSteps}: saved in ${settings.out}, ` +
      "go on with --resume",
  );
}

async function takeStep<Example>(
  run: TrainingRun<Example>,
  step: number,
  meter: Meter<Example>,
): Promise<void> {
  const { feed, trainer, timeline, pruner, meta, progress } = run;
  const batches = feed.take(step);
  const told = { ...timeline.rateAt(step), weightDecay: timeline.weightDecayAt(step) };
  const begin = performance.now();
  const factors = await meta?.beforeStep(step, told, batches);
  pruner.beforeStep(step, told.learningRate / run.peakRate);
  const [results] = await Promise.all([
    trainer.advance(batches, step + 1, { ...told, factors }),
    feed.prepare(step + 1, progress.trainingSeconds / Math.max(1, step)),
  ]);
  progress.completedSteps = step + 1;
  progress.trainedExamples += batches.reduce((sum, { length }) => sum + length, 0);
  meter.begun({
    step,
    learningRate: told.learningRate,
    seconds: (performance.now() - begin) / 1000,
    tokens: batches.reduce((sum, batch) => sum + run.tokensOf(batch), 0),
  });
  meter.note(results);
}

/** A step that is under way, or over. */
interface BegunStep {
  readonly step: number;
  readonly learningRate: number;
  /** Until the next could begin. */
  readonly seconds: number;
  readonly tokens: number;
}

/** Adds up the steps, and tells of them. */
class Meter<Example> {
  readonly #run: TrainingRun<Example>;
  readonly #startedAt = performance.now();
  readonly #startedSteps: number;
  /** Steps whose results are not there yet. */
  readonly #pending: BegunStep[] = [];
  #smoothedLoss: number;
  #badSteps = 0;

  constructor(run: TrainingRun<Example>) {
    this.#run = run;
    this.#startedSteps = run.progress.completedSteps;
    this.#smoothedLoss = run.recorder.points.at(-1)?.loss ?? NaN;
  }

  /** Expects the result of a step. */
  begun(step: BegunStep): void {
    this.#pending.push(step);
    this.#count(step, step.seconds);
    const { progress } = this.#run;
    progress.trainedTokens += step.tokens;
    const stage = progress.stages[this.#stageAt(step.step)];
    stage.steps++;
    stage.tokens += step.tokens;
  }

  /** Notes results, in the order of their steps. */
  note(results: readonly StepResult[]): void {
    for (const result of results) this.#note(this.#pending.shift()!, result);
  }

  /** Waits for the steps that were begun, and notes what they came to. */
  async catchUp(): Promise<void> {
    const last = this.#pending.at(-1);
    if (!last) return;
    const begin = performance.now();
    const results = await this.#run.trainer.drain();
    this.#count(last, (performance.now() - begin) / 1000);
    this.note(results);
  }

  #count({ step }: BegunStep, seconds: number): void {
    const { progress } = this.#run;
    progress.trainingSeconds += seconds;
    progress.stages[this.#stageAt(step)].seconds += seconds;
  }

  #note({ step, learningRate }: BegunStep, result: StepResult): void {
    const { progress, timeline, plan, listener, recorder } = this.#run;
    const { loss, gradientNorm } = result;
    const wasSkipped = isSkipped(result);
    this.#badSteps = Number.isFinite(gradientNorm) || wasSkipped ? 0 : this.#badSteps + 1;
    if (this.#badSteps > toleratedBadSteps) {
      throw new Error(
        `gradients are not finite at step ${step + 1} and the ${toleratedBadSteps} before: ` +
          `lower --learning-rate, which is ${this.#run.settings.learningRate}`,
      );
    }
    if (!wasSkipped || Number.isFinite(loss)) {
      this.#smoothedLoss = Number.isNaN(this.#smoothedLoss) ? loss : 0.95 * this.#smoothedLoss + 0.05 * loss;
    }
    const { totalSteps } = timeline;
    const secondsPerStep = (performance.now() - this.#startedAt) / 1000 / (step + 1 - this.#startedSteps);
    const report = {
      completedSteps: step + 1,
      totalSteps,
      epoch: plan.epochsAt(step + 1),
      loss: this.#smoothedLoss,
      learningRate,
      sparsity: progress.sparsity,
      tokensPerSecond: progress.trainedTokens / progress.trainingSeconds,
      remainingSeconds: secondsPerStep * (totalSteps - step - 1),
    };
    recorder.step(report);
    listener?.step?.(report);
  }

  #stageAt(step: number): StageName {
    const { progress, pruner } = this.#run;
    if (progress.sparsity === 0) return "dense";
    return step < pruner.lastRefresh ? "pruning" : "recovery";
  }
}

async function evaluate<Example>(
  { evaluate, progress, plan, listener, recorder }: TrainingRun<Example>,
): Promise<EvaluationRecord> {
  const { completedSteps, sparsity } = progress;
  const record = { ...await evaluate!(), completedSteps, sparsity };
  const epoch = plan.epochsAt(completedSteps);
  await recorder.evaluation(record, epoch);
  listener?.evaluation?.(record, epoch);
  return record;
}

/** Evaluates, and keeps the weights if they are the best so far at the final sparsity. */
async function keepBetter<Example>(run: TrainingRun<Example>): Promise<void> {
  const { progress, settings, trainer } = run;
  const record = await evaluate(run);
  progress.evaluations.push(record);
  if (!isFinal(run, record)) return;
  if (progress.best && !isBetter(record, progress.best)) return;
  await saveBest(settings.out, trainer);
  progress.best = record;
}

/** Whether an evaluation is of the final sparsity: of the model that the run is about. */
function isFinal<Example>({ pruner }: TrainingRun<Example>, { completedSteps }: EvaluationRecord): boolean {
  return completedSteps > pruner.lastRefresh;
}

/** Whether so many evaluations in a row were no better than the best before them that there is no hope. */
function hasStopped<Example>(run: TrainingRun<Example>): boolean {
  const { settings: { earlyStopping, earlyStoppingThreshold }, progress } = run;
  if (earlyStopping === 0) return false;
  let best: EvaluationRecord | undefined;
  let worse = 0;
  for (const record of progress.evaluations) {
    if (!isFinal(run, record)) continue;
    const { value, higherIsBetter } = record.primary;
    const gain = best ? (value - best.primary.value) * (higherIsBetter ? 1 : -1) : Infinity;
    if (gain > earlyStoppingThreshold) [best, worse] = [record, 0];
    else worse++;
  }
  return worse >= earlyStopping;
}
