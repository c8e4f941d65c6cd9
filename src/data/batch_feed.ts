/**
 * The batches of a run as the trainer takes them, each made while the step before it runs, so that the pool never waits
 * for data; and how long it did wait. On SST-2 that is for the first batch: 30 ms. What is left to the step,
 * packing a batch into the arena, takes 9 µs for 32 texts.
 * @module
 */
import { setImmediate } from "node:timers/promises";
import type { BatchPlan } from "./batch_plan.ts";

/** Hands out the batches of each step. */
export class BatchFeed<Example> {
  readonly #plan: BatchPlan;
  readonly #exampleAt: (index: number) => Example;
  #ready: { readonly step: number; readonly batches: readonly (readonly Example[])[] } | undefined;
  #waitSeconds = 0;

  /** `exampleAt` gives examples by number. */
  constructor(plan: BatchPlan, exampleAt: (index: number) => Example) {
    this.#plan = plan;
    this.#exampleAt = exampleAt;
  }

  /** Time in which nobody computed: making batches in `take`, and in `prepare` for longer than a step usually takes. */
  get waitSeconds(): number {
    return this.#waitSeconds;
  }

  /** The batches of a step: those that are ready, or made now. */
  take(step: number): readonly (readonly Example[])[] {
    const begin = performance.now();
    const batches = this.#ready?.step === step ? this.#ready.batches : this.#make(step);
    this.#waitSeconds += (performance.now() - begin) / 1000;
    return batches;
  }

  /**
   * Makes the batches of a step ready, if there is such a step. Not at once but on the event loop's next turn: by then a
   * step that was asked for just before runs on the workers, for about `stepSeconds`.
   */
  async prepare(step: number, stepSeconds: number): Promise<void> {
    if (step >= this.#plan.totalSteps) return;
    await setImmediate();
    const begin = performance.now();
    this.#ready = { step, batches: this.#make(step) };
    this.#waitSeconds += Math.max(0, (performance.now() - begin) / 1000 - stepSeconds);
  }

  #make(step: number): Example[][] {
    return this.#plan.batches(step).map((batch) => Array.from(batch, this.#exampleAt));
  }
}
