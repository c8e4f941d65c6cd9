/**
 * The batches of a run as the trainer takes them, each made while the step before it runs, so that the pool never waits
 * for data; and how long it did wait. On SST-2 that is for the first batch: 30 ms. What is left to the step,
 * packing a batch into the arena, takes 9 µs for 32 texts.
 * @module
 */
import { setImmediate } from "node:timers/promises";
import type { BatchPlan } from "./batch_plan.ts";
import type { EncodedExample } from "./batches.ts";
import { type EncodedSet, exampleAt } from "./encoded_set.ts";

/** Hands out batches step by step. */
export class BatchFeed {
  readonly #plan: BatchPlan;
  readonly #set: EncodedSet;
  #ready: { readonly step: number; readonly batch: readonly EncodedExample[] } | undefined;
  #waitSeconds = 0;

  constructor(plan: BatchPlan, set: EncodedSet) {
    this.#plan = plan;
    this.#set = set;
  }

  /** Time in which nobody computed: making batches in `take`, and in `prepare` for longer than a step usually takes. */
  get waitSeconds(): number {
    return this.#waitSeconds;
  }

  /** The batch of a step: the one that is ready, or made now. */
  take(step: number): readonly EncodedExample[] {
    const begin = performance.now();
    const batch = this.#ready?.step === step ? this.#ready.batch : this.#make(step);
    this.#waitSeconds += (performance.now() - begin) / 1000;
    return batch;
  }

  /**
   * Makes the batch of a step ready, if there is such a step. Not at once but on the event loop's next turn: by then a
   * step that was asked for just before runs on the workers, for about `stepSeconds`.
   */
  async prepare(step: number, stepSeconds: number): Promise<void> {
    if (step >= this.#plan.totalSteps) return;
    await setImmediate();
    const begin = performance.now();
    this.#ready = { step, batch: this.#make(step) };
    this.#waitSeconds += Math.max(0, (performance.now() - begin) / 1000 - stepSeconds);
  }

  #make(step: number): EncodedExample[] {
    return Array.from(this.#plan.batch(step), (index) => exampleAt(this.#set, index));
  }
}
