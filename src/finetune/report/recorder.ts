/**
 * Writes down what a run does while it goes: `metrics.jsonl` for programs, `report.html` for people.
 *
 *     const recorder = await RunRecorder.open({ out, settings, completedSteps });
 *     recorder.step(progress);                    // after each step
 *     await recorder.evaluation(record, epoch);   // after each evaluation
 *     await recorder.save();                      // before each save of the training state
 *     await recorder.finish(result);              // in the end
 * @module
 */
import { join } from "node:path";
import { writeFileAtomic } from "../../core/files.ts";
import { type Evaluation, jsonName } from "../../evaluate/metrics.ts";
import { MetricsFile } from "./metrics_file.ts";
import { History, type HistoryPoint } from "./history.ts";
import type { RunOutcome } from "./run_report.ts";

/** A run that is to be recorded. */
export interface RecordedRun {
  /** Its output folder. */
  readonly out: string;
  /** Its settings, by name; those that are undefined are left out of the report. */
  readonly settings: object;
  /** Steps done before this sitting; 0 begins a new record. */
  readonly completedSteps: number;
}

/** What a step is recorded with: the part of `StepProgress` that matters here. */
export interface RecordedStep {
  /** Optimiser steps done. */
  readonly completedSteps: number;
  /** Mean loss of the last steps. */
  readonly loss: number;
  /** Rate of the step. */
  readonly learningRate: number;
  /** Share of the prunable weights that are masked. */
  readonly sparsity: number;
}

/** An evaluation with its place in the run. */
export interface RecordedEvaluation extends Evaluation {
  /** Optimiser steps done before it. */
  readonly completedSteps: number;
  /** Share of the prunable weights that were masked. */
  readonly sparsity: number;
}

/** The record of a run, over all of its sittings. */
export class RunRecorder {
  readonly #run: RecordedRun;
  readonly #history: History;
  readonly #metrics: MetricsFile;
  /** When the run would have begun, had it never paused; as `performance.now()`. */
  readonly #beginMs: number;

  private constructor(run: RecordedRun, history: History, metrics: MetricsFile) {
    this.#run = run;
    this.#history = history;
    this.#metrics = metrics;
    this.#beginMs = performance.now() - 1000 * (history.last?.seconds ?? 0);
  }

  /**
   * Takes up the record of a run as far as it has come; what was written about later steps is forgotten. Call it when the
   * run has its folder. @throws InputError for a record that is damaged.
   */
  static async open(run: RecordedRun): Promise<RunRecorder> {
    const { out, completedSteps } = run;
    const history = await History.open(out, completedSteps);
    return new RunRecorder(run, history, await MetricsFile.open(out, completedSteps));
  }

  /** Notes a step. */
  step({ completedSteps, loss, learningRate, sparsity }: RecordedStep): void {
    this.#history.add({ step: completedSteps, loss, learningRate, sparsity, seconds: this.#seconds() });
  }

  /** Adds an evaluation to `metrics.jsonl`; it is on the disk when this resolves. One of the same step is replaced. */
  evaluation({ completedSteps, loss, metrics, sparsity }: RecordedEvaluation, epoch: number): Promise<void> {
    return this.#metrics.add({
      step: completedSteps,
      epoch,
      loss,
      metrics: Object.fromEntries(Object.entries(metrics).map(([name, value]) => [jsonName(name), value])),
      sparsity,
      learning_rate: this.#history.last?.learningRate ?? 0,
      seconds: this.#seconds(),
    });
  }

  /**
   * Writes the history of the steps. To be called before the training state is saved: a run killed between the two then
   * knows more than it needs, and never less.
   */
  save(): Promise<void> {
    return this.#history.save();
  }

  /** Steps kept so far, in order. */
  get points(): readonly HistoryPoint[] {
    return this.#history.points;
  }

  /** Writes `report.html` and gives its path. */
  async finish(outcome: RunOutcome): Promise<string> {
    // Drawing charts takes libraries that no other part of a training needs.
    const { runReport } = await import("./run_report.ts");
    const path = join(this.#run.out, "report.html");
    const { settings } = this.#run;
    const html = await runReport({
      settings,
      points: this.points,
      evaluations: this.#metrics.lines,
      outcome,
    });
    await writeFileAtomic(path, html);
    return path;
  }

  #seconds(): number {
    return (performance.now() - this.#beginMs) / 1000;
  }
}
