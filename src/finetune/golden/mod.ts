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
import type { GoldenConfig, GoldenTraining as ShortTraining } from "../../graph/golden/mod.ts";
import { bitsetWords, setBit } from "../../pruning/bitset.ts";
import golden from "./training.json" with { type: "json" };

/** How the steps are taken, as in the short run, but each on a batch of its own. */
export interface GoldenTraining extends ShortTraining {
  /** Sequences in a batch. */
  readonly sequences: number;
  /** Longest sequence in tokens; the shortest has one. */
  readonly maximumLength: number;
}

/** One run, computed in float64. */
export interface GoldenRun {
  /** Share of the encoder's weights that are masked from `maskedFromStep` on. */
  readonly sparsity: number;
  /** Mean cross-entropy before each update. */
  readonly losses: Float64Array;
  /** Global norm of the gradients of each step, before clipping; masked weights have none. */
  readonly gradientNorms: Float64Array;
  /** What PyTorch's own rounding to float32 makes of it: the largest differences, of norms as a share. */
  readonly float32Drift: { readonly loss: number; readonly norm: number };
}

/** The golden file. */
export interface TrainingGolden {
  /** Of the programs that wrote the file. */
  readonly versions: Readonly<Record<"torch" | "transformers" | "numpy", string>>;
  readonly config: GoldenConfig;
  readonly training: GoldenTraining;
  /** The step, counted from 0, before which the masks are set. */
  readonly maskedFromStep: number;
  /** `batchChecksum` of all batches. */
  readonly checksum: number;
  /** Dense, half masked, most masked. */
  readonly runs: readonly GoldenRun[];
}

/** Decodes the golden file. */
export function trainingGolden(): TrainingGolden {
  const numbers = (text: string) => new Float64Array(Uint8Array.fromBase64(text).buffer);
  const runs = golden.runs.map((run): GoldenRun => ({
    ...run,
    losses: numbers(run.losses),
    gradientNorms: numbers(run.gradientNorms),
  }));
  return { ...golden, runs };
}

/** The mask of a matrix as a bitset of that many bits, 1 for kept: `mask_of` of training.py is the same formula. */
export function goldenMask(sparsity: number, name: string, length: number): Uint32Array {
  const key = randomKey(0, "golden mask", name);
  const bits = new Uint32Array(bitsetWords(length));
  for (let i = 0; i < length; i++) if (randomBits(key, i) >= sparsity * 2 ** 32) setBit(bits, i);
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
