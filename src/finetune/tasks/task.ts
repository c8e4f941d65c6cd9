/**
 * What the training loop knows of a task: what is trained, on what, and how good it is.
 * @module
 */
import type { BatchLimit } from "../../data/batches.ts";
import type { ExampleSet } from "../../data/example_set.ts";
import type { Evaluation } from "../../evaluate/metrics.ts";
import type { Trainer } from "../trainer.ts";
import type { TrainingModel } from "../training_model.ts";

/** A task with its data. `Example` is what its batches are made of; the loop does not look inside. */
export interface FinetuneTask<Example> {
  readonly model: TrainingModel<Example>;
  readonly train: ExampleSet<Example>;
  /** Of no examples when there is nothing to evaluate with. */
  readonly evaluation: ExampleSet<Example>;
  /** How good the model in the trainer is on the evaluation set. Its primary metric says which of two is better. */
  evaluate(trainer: Trainer<Example>, limit: BatchLimit): Promise<Evaluation>;
}
