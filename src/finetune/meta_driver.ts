/**
 * MetaAdamW in the training loop: which batches it sees beside those that are trained on.
 * @module
 */
import type { BatchPlan } from "../data/batch_plan.ts";
import type { ExampleSet } from "../data/example_set.ts";
import type { GroupStep } from "../kernels/optimizer/rule.ts";
import type { MetaAdamW, MetaState } from "./meta/meta_adamw.ts";
import { metaValidationBatch } from "./meta/validation.ts";
import type { GroupFactors } from "./step_settings.ts";

/** What the driver is made of. */
export interface MetaDriverOptions<Example> {
  readonly meta: MetaAdamW<Example>;
  /** Plan of the examples that are trained on. */
  readonly plan: BatchPlan;
  /** The example of that number of the plan. */
  readonly exampleAt: (index: number) => Example;
  /** All training examples, held-out ones too. */
  readonly examples: ExampleSet<Example>;
  /** Numbers of those that are held out. */
  readonly heldOut: Int32Array;
  /** Held-out examples in a meta-update. */
  readonly batchSize: number;
  readonly seed: number;
}

/** Asks MetaAdamW for the factors of each step. */
export class MetaDriver<Example> {
  readonly #options: MetaDriverOptions<Example>;

  constructor(options: MetaDriverOptions<Example>) {
    this.#options = options;
  }

  /** Bytes that meta-updates take besides the trainer's memory. */
  get bufferBytes(): number {
    return this.#options.meta.bufferBytes;
  }

  /** Factors for the step to come, by group of the trainer. */
  beforeStep(
    completedSteps: number,
    told: GroupStep,
    batches: readonly (readonly Example[])[],
  ): Promise<readonly GroupFactors[]> {
    const { meta, plan, exampleAt, examples, heldOut, batchSize, seed } = this.#options;
    return meta.beforeStep({
      completedSteps,
      told,
      batch: batches[0],
      other: () => Array.from(plan.batches((completedSteps + 1) % plan.totalSteps)[0], exampleAt),
      validation: (update) =>
        Array.from(metaValidationBatch(heldOut, batchSize, update, seed), (index) => examples.at(index)),
    });
  }

  /** Goes on from a state. Throws `InputError` for one of other groups or sizes. */
  restore(state: MetaState): void {
    this.#options.meta.restore(state);
  }

  /** All that a resumed run needs. */
  state(): MetaState {
    return this.#options.meta.state();
  }
}
