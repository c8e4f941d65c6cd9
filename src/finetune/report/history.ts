/**
 * What the steps of a run were like, thinned: enough points for a chart, however long the run.
 * @module
 */
import { join } from "node:path";
import { type JsonLine, numberOf, readJsonLines, writeJsonLines } from "../../core/json_lines.ts";

/** One step. */
export interface HistoryPoint {
  /** Optimiser steps done, this one included. */
  readonly step: number;
  /** Mean training loss of the last steps. */
  readonly loss: number;
  readonly learningRate: number;
  /** Share of the prunable weights that are masked. */
  readonly sparsity: number;
  /** Seconds that the run has taken so far. */
  readonly seconds: number;
}

/** Most points kept. */
const capacity = 1000;

/**
 * Every step at first, and with each doubling of the run beyond the capacity every second of them: the multiples of a
 * power of two. So what is kept depends on the number of steps alone, not on where a run was resumed. The last step is
 * always there.
 */
export class History {
  readonly #path: string;
  #kept: HistoryPoint[] = [];
  #last: HistoryPoint | undefined;
  #stride = 1;

  private constructor(path: string) {
    this.#path = path;
  }

  /** Takes up the history of a run as far as it has come. @throws InputError for a file that is damaged. */
  static async open(out: string, completedSteps: number): Promise<History> {
    const history = new History(join(out, "training", "history.jsonl"));
    if (completedSteps === 0) return history;
    for (const line of await readJsonLines(history.#path)) {
      const point = historyPoint(line);
      if (point.step <= completedSteps) history.add(point);
    }
    return history;
  }

  /** The points kept, in order. */
  get points(): readonly HistoryPoint[] {
    const isKept = this.#kept.at(-1) === this.#last;
    return isKept || !this.#last ? this.#kept : [...this.#kept, this.#last];
  }

  /** The last step; undefined before the first. */
  get last(): HistoryPoint | undefined {
    return this.#last;
  }

  /** Takes the next step. */
  add(point: HistoryPoint): void {
    this.#last = point;
    if (point.step > capacity * this.#stride) {
      while (point.step > capacity * this.#stride) this.#stride *= 2;
      this.#kept = this.#kept.filter(({ step }) => step % this.#stride === 0);
    }
    if (point.step % this.#stride === 0) this.#kept.push(point);
  }

  /** Writes the points. */
  save(): Promise<void> {
    return writeJsonLines(this.#path, this.points);
  }
}

function historyPoint(line: JsonLine): HistoryPoint {
  return {
    step: numberOf(line, "step"),
    loss: numberOf(line, "loss"),
    learningRate: numberOf(line, "learningRate"),
    sparsity: numberOf(line, "sparsity"),
    seconds: numberOf(line, "seconds"),
  };
}
