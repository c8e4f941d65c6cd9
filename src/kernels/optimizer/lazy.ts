/**
 * Lazy AdamW for an embedding table: rows that no token of a batch names are left alone until they are read.
 *
 * A dense step moves 28 bytes for every element of the table, though a batch names a few hundred of its tens of
 * thousands of rows. Here each row has a count of the steps it has taken, and a history holds the scalars of all
 * steps since the last flush. A training step is
 *
 *     catchUpSteps      the batch's rows replay the steps they missed        before the forward pass
 *     ...               forward, backward, gradient of the batch's rows only, global norm
 *     updateRowsSteps   the batch's rows take the step                       after the norm
 *
 * and `flushSteps` brings every row up to date: before anything else reads the table, and when the history is full.
 *
 * **The weights and moments are those of the dense step, bit for bit**, whenever a row is up to date. Why: a row that
 * no token names has the gradient +0, so the dense step is, per element, a function of (w, m, v) and the step's scalars
 * alone; replaying it later with the same scalars, in the same order, by the same instructions gives the same bits.
 * - *Clipping* multiplies the gradient by a finite factor, and +0 stays +0: a missed step does not need it.
 * - A *skipped step* (the norm was not finite) changes nothing in the dense step either. It never enters the history.
 * - *Learning rate, decay and bias correction* may change every step: they are in the scalars, which are kept.
 * - There is *no mask*: pruned elements would need the mask of each missed step. Tables with one stay dense.
 * - The rows of a batch take the step with the gradient that `embeddingGradient` sums in token order either way. The
 *   norm is given to both; summed over the batch's rows instead of the whole table, it can differ in its last bit.
 * - *AdamW alone* (`UpdateRule.lazy`): other rules add the decay to the gradient, or keep a largest moment to replay too.
 * - v ≥ 0, as this optimiser leaves it, and ε > 0: steps with m = 0 leave out the quotient, which is then 0.
 *
 * Whoever writes weights or moments of the table from outside must flush and clear the history first.
 * @module
 */
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { catchUpKernel, flushKernel, updateRowsKernel } from "./lazy_kernel.ts";
import type { UpdateRule } from "./rule.ts";

/** A table and what its lazy steps need. Addresses are bytes from the arena's start. */
export interface LazyTable {
  /** Row-major [rows, features], as both moments are. */
  readonly weights: number;
  readonly firstMoment: number;
  readonly secondMoment: number;
  readonly rows: number;
  readonly features: number;
  /** i32 [rows]: steps of the history each row has taken. All 0 before the first step. */
  readonly lastSteps: number;
  /** f32 [capacity, words of a scalars block]: see `StepHistory`. */
  readonly history: number;
  /** i32 [1]: see `StepHistory`. */
  readonly historyLength: number;
}

/** The rows that a batch names, each once, then −1: see `DistinctRows`. */
export interface RowList {
  /** i32 [capacity] */
  readonly address: number;
  readonly capacity: number;
}

/** A table, a list of its rows, and the workers that share them. */
export interface CatchUpRequest {
  readonly table: LazyTable;
  readonly list: RowList;
  readonly workers: number;
}

/** What the step of the listed rows needs besides. */
export interface UpdateRowsRequest extends CatchUpRequest {
  /** f32 [capacity, features]: row i is the gradient of the row that entry i names. */
  readonly gradients: number;
  /** Address of the clip factor, an f32: the second element of `globalNormSteps`' result. */
  readonly clip: number;
}

/** One step after which the listed rows have taken all steps of the history. Workers take entries in turn. */
export function catchUpSteps({ table, list, workers }: CatchUpRequest): Step[] {
  const calls = shareList(
    list,
    workers,
    (share) => callKernel(catchUpKernel, { ...operands(table), ...share }),
  );
  return [{ name: "adamw.catchUp", calls }];
}

/**
 * One step that takes the optimiser step begun in the history on the listed rows, which must be up to date. When the
 * clip factor is NaN or infinite nothing is changed.
 */
export function updateRowsSteps({ table, list, gradients, clip, workers }: UpdateRowsRequest): Step[] {
  const rowBytes = 4 * table.features;
  const calls = shareList(list, workers, (share, worker) =>
    callKernel(updateRowsKernel, {
      ...operands(table),
      ...share,
      gradients: gradients + rowBytes * worker,
      gradientStride: rowBytes * workers,
      clip,
    }));
  return [{ name: "adamw.rows", calls }];
}

/**
 * Rows of the table that are flushed between two barriers: seconds of work at most, on one slow core and when all of
 * them missed a thousand steps. A pool takes a worker for dead that reaches no barrier in a minute.
 */
const flushRows = 2048;

/**
 * Steps after which every row of the table has taken all steps of the history; call `StepHistory.clear` when they are
 * done. Each row is read and written once. Workers take rows in turn: how much there is to do changes along the table.
 */
export function flushSteps({ table, workers }: Pick<CatchUpRequest, "table" | "workers">): Step[] {
  return splitRange(table.rows, Math.ceil(table.rows / flushRows)).map(({ begin, end }) => ({
    name: "adamw.flush",
    calls: Array.from({ length: workers }, (_, worker) => [
      callKernel(flushKernel, {
        ...operands(table),
        begin: begin + worker,
        count: Math.ceil((end - begin - worker) / workers),
        stride: workers,
      }),
    ]),
  }));
}

function operands(
  { weights, firstMoment, secondMoment, features, lastSteps, history, historyLength }: LazyTable,
) {
  return { weights, firstMoment, secondMoment, features, lastSteps, history, historyLength };
}

/** Entries w, w + workers, … are worker w's: lists differ in length, and neighbours in how many steps they missed. */
function shareList(
  { address, capacity }: RowList,
  workers: number,
  call: (share: { list: number; listStride: number; count: number }, worker: number) => KernelCall,
): KernelCall[][] {
  return Array.from({ length: workers }, (_, worker) => {
    const count = Math.ceil((capacity - worker) / workers);
    return count > 0 ? [call({ list: address + 4 * worker, listStride: 4 * workers, count }, worker)] : [];
  });
}

/**
 * The scalars of the steps since the last flush, which rows replay. One step is taken like this:
 *
 *     if (history.isFull) { run the flush; history.clear(); }
 *     history.begin(rule.scalarsOf(group, step));
 *     run the training step;
 *     history.end(clip);
 */
export class StepHistory {
  readonly #blocks: Float32Array;
  readonly #length: Int32Array;
  readonly #words: number;

  /**
   * Takes a lazy rule and views of the arena: f32 [capacity, words of its scalars block], and one i32. Starts with what
   * they hold. Throws a TypeError for a rule whose steps cannot be replayed.
   */
  constructor(
    rule: UpdateRule,
    views: { readonly history: Float32Array; readonly historyLength: Int32Array },
  ) {
    if (!rule.lazy) throw new TypeError(`Cannot keep a history: ${rule.key} is not lazy, wanted adamw`);
    this.#words = rule.scalars.length;
    this.#blocks = views.history;
    this.#length = views.historyLength;
  }

  /** Steps that a row may have missed. */
  get length(): number {
    return this.#length[0];
  }

  /** Whether there is no room for a step: flush, then clear. */
  get isFull(): boolean {
    return (this.length + 1) * this.#words > this.#blocks.length;
  }

  /** Writes the scalars of a step about to run. Throws a RangeError when the history is full. */
  begin(scalars: Float32Array): void {
    if (this.isFull) {
      throw new RangeError(
        `Cannot begin a step: the history is full with ${this.length} steps, wanted a flush`,
      );
    }
    this.#blocks.set(scalars, this.length * this.#words);
  }

  /** Keeps the step that was begun, unless its clip factor was not finite: then it changed nothing and is forgotten. */
  end(clip: number): void {
    if (Number.isFinite(clip)) this.#length[0]++;
  }

  /** Forgets all steps. Every row must be up to date. */
  clear(): void {
    this.#length[0] = 0;
  }
}
