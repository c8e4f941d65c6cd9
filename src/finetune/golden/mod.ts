/**
 * What PyTorch says about 300 training steps of a tiny BERT, dense and pruned: losses and gradient norms, a fresh batch
 * every step.
 *
 * `tools/golden/training.py` wrote `training.json`; this file types it and draws the same batches. Model and initial
 * weights are those of `src/graph/golden`.
 * @module
 */
import { mix32, randomBits, randomKey } from "../../core/random.ts";
import type { EncodedExample } from "../../data/batches.ts";
import type { GoldenConfig } from "../../graph/golden/mod.ts";
import { bitsetWords, setBit } from "../../pruning/bitset.ts";
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

/** The mask of the masked run: at `fromStep`, counted from 0, that share of the encoder's weights is pruned. */
export interface GoldenMask {
  readonly fromStep: number;
  readonly sparsity: number;
}

/** What one precision computed, step by step. */
export interface GoldenSteps {
  /** Mean cross-entropy before each update. */
  readonly losses: Float64Array;
  /** Global norm of the gradients of each step, before clipping; those of masked weights are 0. */
  readonly gradientNorms: Float64Array;
}

/** One run in both precisions. */
export interface GoldenRun {
  /** The right answer. */
  readonly float64: GoldenSteps;
  /** What PyTorch's own rounding makes of it. */
  readonly float32: GoldenSteps;
}

/** The golden file. */
export interface TrainingGolden {
  /** Of the programs that wrote the file. */
  readonly versions: Readonly<Record<"torch" | "transformers" | "numpy", string>>;
  readonly config: GoldenConfig;
  readonly training: GoldenTraining;
  readonly mask: GoldenMask;
  /** `batchChecksum` of all batches. */
  readonly checksum: number;
  readonly dense: GoldenRun;
  /** The same with a mask, and without clipping. */
  readonly masked: GoldenRun;
}

/** Decodes the golden file. */
export function trainingGolden(): TrainingGolden {
  const numbers = (text: string) => new Float64Array(Uint8Array.fromBase64(text).buffer);
  const steps = ({ losses, gradientNorms }: typeof golden.dense.float64): GoldenSteps => ({
    losses: numbers(losses),
    gradientNorms: numbers(gradientNorms),
  });
  const run = ({ float64, float32 }: typeof golden.dense): GoldenRun => ({
    float64: steps(float64),
    float32: steps(float32),
  });
  return { ...golden, dense: run(golden.dense), masked: run(golden.masked) };
}

/** The mask of a matrix as a bitset of that many bits, 1 for kept: `mask_of` of training.py is the same formula. */
export function goldenMask({ mask }: TrainingGolden, name: string, length: number): Uint32Array {
  const key = randomKey(0, "golden mask", name);
  const bits = new Uint32Array(bitsetWords(length));
  for (let i = 0; i < length; i++) if (randomBits(key, i) >= mask.sparsity * 2 ** 32) setBit(bits, i);
  return bits;
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
