/**
 * Which examples each step of a run takes.
 *
 * The batches of an epoch follow from seed and epoch, so nothing is stored: a run that resumes at step k asks for step k.
 * Limited in tokens, an epoch's number of batches depends on its order; so all epochs are gone through once, at the
 * start (20 ms each for SST-2's 67,349 examples), to know where each begins and how large the largest batch is: 623 tokens
 * in three epochs of 32 sequences a batch, where memory for the 32 longest texts would be that for 1,955.
 * @module
 */
import { type BatchLimit, type EpochRequest, largestBatch, planEpoch } from "./batches.ts";

/** What a plan is made of: an epoch's request, for all epochs. */
export interface BatchPlanRequest extends Omit<EpochRequest, "epoch"> {
  readonly epochs: number;
  /** Batches that make a step; the last step of an epoch may have fewer. Default 1. */
  readonly accumulation?: number;
}

/** The batches of a run, by step. Steps and epochs count from 0. */
export class BatchPlan {
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** The most sequences and the most tokens in a batch of the run. */
  readonly capacity: BatchLimit;
  readonly #request: BatchPlanRequest;
  /** First step of each epoch; then `totalSteps`. */
  readonly #firstSteps: number[] = [0];
  #planned: { readonly epoch: number; readonly batches: readonly Int32Array[] } | undefined;

  /** Goes through all epochs. Throws RangeError for a limit that is no positive integer or Infinity. */
  constructor(request: BatchPlanRequest) {
    this.#request = request;
    let [sequences, tokens] = [0, 0];
    for (let epoch = 0; epoch < request.epochs; epoch++) {
      const batches = planEpoch({ ...request, epoch });
      const largest = largestBatch(batches, request.lengths);
      sequences = Math.max(sequences, largest.sequences);
      tokens = Math.max(tokens, largest.tokens);
      this.#firstSteps.push(this.#firstSteps[epoch] + Math.ceil(batches.length / this.#accumulation));
    }
    this.totalSteps = this.#firstSteps[request.epochs];
    this.capacity = { sequences, tokens };
  }

  /** The batches of a step, as example numbers. Steps of one epoch are best asked for together: one epoch is kept. */
  batches(step: number): readonly Int32Array[] {
    if (!(Number.isInteger(step) && step >= 0 && step < this.totalSteps)) {
      throw new RangeError(`There is no step ${step}: wanted one of 0 to ${this.totalSteps - 1}`);
    }
    const epoch = this.#epochOf(step);
    if (this.#planned?.epoch !== epoch) {
      this.#planned = { epoch, batches: planEpoch({ ...this.#request, epoch }) };
    }
    const first = this.#accumulation * (step - this.#firstSteps[epoch]);
    return this.#planned.batches.slice(first, first + this.#accumulation);
  }

  /** Passes over the data, with fraction, that so many steps are. */
  epochsAt(completedSteps: number): number {
    if (completedSteps >= this.totalSteps) return this.#request.epochs;
    const epoch = this.#epochOf(completedSteps);
    const [first, end] = this.#firstSteps.slice(epoch, epoch + 2);
    return epoch + (completedSteps - first) / (end - first);
  }

  /** First step of each epoch; then `totalSteps`. */
  get epochBegins(): readonly number[] {
    return this.#firstSteps;
  }

  /** Whether the last of so many steps ends an epoch. */
  endsEpoch(completedSteps: number): boolean {
    return completedSteps > 0 && this.#firstSteps.includes(completedSteps);
  }

  get #accumulation(): number {
    return this.#request.accumulation ?? 1;
  }

  #epochOf(step: number): number {
    return this.#firstSteps.findLastIndex((first) => first <= step);
  }
}
