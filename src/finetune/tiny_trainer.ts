/**
 * Trainers of tiny models on one thread, and examples for them, for tests of single steps. `tiny_run.ts` has whole runs.
 * @module
 */
import type { BertConfig } from "../../models/config.ts";
import { presetConfig } from "../../models/presets.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import type { EncodedExample } from "../data/batches.ts";
import { optimizerDefaults } from "../kernels/optimizer/optimizers.ts";
import { selectMachine } from "../machines/mod.ts";
import { InlineExecutor } from "../plan/executor.ts";
import { Trainer } from "./trainer.ts";
import type { TrainerOptions } from "./trainer_needs.ts";
import type { TrainingModel } from "./training_model.ts";

/** What a tiny trainer is to have in place of its defaults. */
export type TinyOptions<Example> = Partial<Omit<TrainerOptions<Example>, "model">>;

/**
 * A trainer with fresh weights and zeros elsewhere: AdamW, batches of up to 8 sequences and 80 tokens, the fastest machine,
 * two workers that take turns on this thread. Dispose of it.
 */
export async function tinyTrainer<Example>(
  model: TrainingModel<Example>,
  options: TinyOptions<Example> = {},
): Promise<Trainer<Example>> {
  const trainer = await Trainer.create({
    model,
    machine: selectMachine(),
    workers: 2,
    createExecutor: ({ machine, threads, arena }) => {
      // Poison: whatever is read before it is written shows as NaN.
      new Uint32Array(arena.memory.buffer).fill(0x7fc0dead);
      return Promise.resolve(new InlineExecutor(machine, threads, arena));
    },
    maximumSequences: 8,
    maximumTokens: 80,
    seed: 1,
    optimizer: optimizerDefaults("adamw"),
    maximumNorm: 1,
    ...options,
  });
  for (const array of [trainer.weights, trainer.gradients, ...trainer.states.values()]) array.fill(0);
  trainer.initialise();
  return trainer;
}

/** A classifier of three classes that learns in few steps: 16 hidden units, wide starting weights, no dropout. */
export function tinyClassifierConfig(layers: number): BertConfig {
  return {
    ...presetConfig("bert-tiny", { vocabularySize: 50, maximumPositions: 16, labels: ["a", "b", "c"] }),
    ...{ hiddenSize: 16, heads: 2, intermediateSize: 32, layers, initializerRange: 0.2 },
    ...{ hiddenDropout: 0, attentionDropout: 0, classifierDropout: 0 },
  };
}

/** Examples for it, of 2 to 9 tokens; the first token tells the class. The first are the same whatever the count. */
export function tinyExamples(count: number): EncodedExample[] {
  const random = new RandomStream(randomKey(3, "examples"));
  return Array.from({ length: count }, () => {
    const ids = Int32Array.from({ length: 2 + random.below(8) }, () => 1 + random.below(49));
    return { ids, typeIds: new Uint8Array(ids.length), label: ids[0] % 3 };
  });
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
