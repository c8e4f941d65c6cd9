/**
 * `metrics.jsonl` of a run: one line for each evaluation, for whoever wants to read or plot them.
 *
 *     {"step":12,"epoch":2,"loss":0.31,"metrics":{"accuracy":0.9,"macro_f1":0.89},"sparsity":0.5,"learning_rate":5e-5,"seconds":8.1}
 * @module
 */
import { join } from "node:path";
import { InputError } from "../../core/errors.ts";
import { exists } from "../../core/files.ts";
import { type JsonLine, numberOf, readJsonLines, writeJsonLines } from "../../core/json_lines.ts";

/** A line of the file. */
export interface MetricsLine {
  /** Optimiser steps done. */
  readonly step: number;
  /** Passes over the training data done, with fraction. */
  readonly epoch: number;
  /** Mean evaluation loss. */
  readonly loss: number;
  /** The task's metrics by name, in snake case. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Share of the prunable weights that are masked. */
  readonly sparsity: number;
  /** Rate of the last step before. */
  readonly learning_rate: number;
  /** Seconds that the run has taken so far, evaluations included, pauses between its sittings not. */
  readonly seconds: number;
}

/** The evaluations of a run, in memory and on the disk. */
export class MetricsFile {
  readonly #path: string;
  #lines: readonly MetricsLine[];

  private constructor(path: string, lines: readonly MetricsLine[]) {
    this.#path = path;
    this.#lines = lines;
  }

  /**
   * Takes up the file in a run's folder. Lines of steps after `completedSteps` go, as those evaluations will be made
   * again. @throws InputError for a file that is damaged.
   */
  static async open(out: string, completedSteps: number): Promise<MetricsFile> {
    const path = join(out, "metrics.jsonl");
    // A run that begins is the first of its folder, whatever was there.
    const isNew = completedSteps === 0;
    const found = isNew ? [] : (await readJsonLines(path)).map(metricsLine);
    const file = new MetricsFile(path, found.filter(({ step }) => step <= completedSteps));
    const isStale = isNew ? await exists(path) : file.lines.length < found.length;
    if (isStale) await file.#write();
    return file;
  }

  /** The evaluations so far, in order. */
  get lines(): readonly MetricsLine[] {
    return this.#lines;
  }

  /** Adds a line; it is on the disk when this resolves. It takes the place of one of the same step. */
  async add(line: MetricsLine): Promise<void> {
    this.#lines = [...this.#lines.filter(({ step }) => step !== line.step), line];
    await this.#write();
  }

  #write(): Promise<void> {
    return writeJsonLines(this.#path, this.#lines);
  }
}

function metricsLine(line: JsonLine): MetricsLine {
  const { place, value } = line;
  const { metrics } = value;
  if (metrics === null || typeof metrics !== "object" || Array.isArray(metrics)) {
    throw new InputError(`${place}: metrics is ${JSON.stringify(metrics) ?? "missing"}, wanted an object`);
  }
  const named = { place: `${place}, metrics`, value: metrics as Record<string, unknown> };
  return {
    step: numberOf(line, "step"),
    epoch: numberOf(line, "epoch"),
    loss: numberOf(line, "loss"),
    metrics: Object.fromEntries(Object.keys(metrics).map((name) => [name, numberOf(named, name)])),
    sparsity: numberOf(line, "sparsity"),
    learning_rate: numberOf(line, "learning_rate"),
    seconds: numberOf(line, "seconds"),
  };
}
