/**
 * Trainers of tiny models on one machine and one thread, for tests of tasks.
 * @module
 */
import { availableMachines } from "../../machines/mod.ts";
import { InlineExecutor } from "../../plan/executor.ts";
import { Trainer } from "../trainer.ts";
import type { TrainingModel } from "../training_model.ts";

/** A trainer with fresh weights on the fastest machine; `workers` take turns. Dispose of it. */
export async function tinyTrainer<Example>(
  model: TrainingModel<Example>,
  { sequences, tokens, workers = 2 }: { sequences: number; tokens: number; workers?: number },
): Promise<Trainer<Example>> {
  const trainer = await Trainer.create({
    model,
    machine: availableMachines()[0],
    workers,
    createExecutor: ({ machine, threads, arena }) => {
      // Poison: whatever is read before it is written shows as NaN.
      new Uint32Array(arena.memory.buffer).fill(0x7fc0dead);
      return Promise.resolve(new InlineExecutor(machine, threads, arena));
    },
    maximumSequences: sequences,
    maximumTokens: tokens,
    seed: 1,
    optimizer: { name: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, amsgrad: false },
    maximumNorm: 1,
  });
  for (const state of [trainer.weights, trainer.gradients, ...trainer.states.values()]) state.fill(0);
  trainer.initialise();
  return trainer;
}

/** Trains on one batch after the other, over and over; gives the loss of each step. */
export async function trainSteps<Example>(
  trainer: Trainer<Example>,
  batches: readonly (readonly Example[])[],
  steps: number,
  learningRate: number,
): Promise<number[]> {
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const settings = { learningRate, weightDecay: 0.01 };
    losses.push((await trainer.step([batches[step % batches.length]], step + 1, settings)).loss);
  }
  return losses;
}
