/**
 * What PyTorch says about 300 training steps of a tiny BERT: losses and gradient norms, a fresh batch every step.
 *
 * `tools/golden/training.py` wrote `training.json`; this file types it and draws the same batches. Model and initial
 * weights are those of `src/graph/golden`.
 * @module
 */
import { mix32, randomBits, randomKey } from "../../core/random.ts";
import type { EncodedExample } from "../../data/batches.ts";
import type { GoldenConfig } from "../../graph/golden/mod.ts";
import golden from "./training.json" with { type: "json" };

/**
 * How the steps are taken: AdamW with bias correction, weight decay on everything but biases and LayerNorm, gradients
 * clipped by their global norm, learning rate rising linearly for `warmupSteps` and falling linearly to 0 at `steps`.
 */
export interface GoldenTraining {
  readonly steps: number;
  readonly warmupSteps: number;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly maxGradientNorm: number;
  /** Sequences in a batch. */
  readonly sequences: number;
  /** Longest sequence in tokens; the shortest has one. */
  readonly maximumLength: number;
}

/** What one precision computed, step by step. */
export interface GoldenSteps {
  /** Mean cross-entropy before each update. */
  readonly losses: Float64Array;
  /** Global norm of the gradients of each step, before clipping. */
  readonly gradientNorms: Float64Array;
}

/** The golden file. */
export interface TrainingGolden {
  /** Of the programs that wrote the file. */
  readonly versions: Readonly<Record<"torch" | "transformers" | "numpy", string>>;
  readonly config: GoldenConfig;
  readonly training: GoldenTraining;
  /** `batchChecksum` of all batches. */
  readonly checksum: number;
  /** The right answer. */
  readonly float64: GoldenSteps;
  /** What PyTorch's own rounding makes of it. */
  readonly float32: GoldenSteps;
}

/** Decodes the golden file. */
export function trainingGolden(): TrainingGolden {
  const numbers = (text: string) => new Float64Array(Uint8Array.fromBase64(text).buffer);
  const steps = ({ losses, gradientNorms }: typeof golden.float64): GoldenSteps => ({
    losses: numbers(losses),
    gradientNorms: numbers(gradientNorms),
  });
  return { ...golden, float64: steps(golden.float64), float32: steps(golden.float32) };
}

/** The batch of a step, from 0: `batch_of` of training.py is the same formula. The first token decides the class. */
export function goldenBatch({ config, training }: TrainingGolden, step: number): EncodedExample[] {
  const key = randomKey(0, "golden training", step);
  const below = (index: number, bound: number) => Math.floor((randomBits(key, index) / 2 ** 32) * bound);
  // The first numbers of a key are lengths, then come the tokens.
  let index = training.sequences;
  return Array.from({ length: training.sequences }, (_, sequence) => {
    const length = 1 + below(sequence, training.maximumLength);
    const ids = Int32Array.from({ length }, () => 1 + below(index++, config.vocab_size - 1));
    // Every other sequence is a pair, whose second text begins in the middle.
    const secondText = sequence % 2 === 1 ? length - Math.floor(length / 2) : length;
    const typeIds = Uint8Array.from({ length }, (_, position) => Number(position >= secondText));
    return { ids, typeIds, label: ids[0] % config.num_labels };
  });
}

/** Folds ids, types and classes into one word: equal sums mean that both sides train on the same. */
export function batchChecksum(batches: Iterable<readonly EncodedExample[]>): number {
  let word = 0;
  for (const batch of batches) {
    for (const { ids, typeIds, label } of batch) {
      for (const value of [...ids, ...typeIds, label]) word = mix32(word ^ value);
    }
  }
  return word;
}
