/**
 * The same fine-tuning on the CPU and on the GPU: how far losses, gradients and weights come apart.
 *
 * Dropout draws the same bits on both, so only roundings differ. AdamW divides each gradient by its own size: where that is little
 * more than rounding, weights may walk to different sides, each step by no more than the learning rate. So single weights say
 * little, and their mean square says much.
 * @module
 */
import type { BertConfig } from "../../models/config.ts";
import { presetConfig } from "../../models/presets.ts";
import { randomKey, RandomStream } from "../../src/core/random.ts";
import type { EncodedExample } from "../../src/data/batches.ts";
import { finetuneDefaults } from "../../src/finetune/options.ts";
import { classifier } from "../../src/finetune/tasks/classification.ts";
import { Trainer } from "../../src/finetune/trainer.ts";
import { optimizerDefaults } from "../../src/kernels/optimizer/optimizers.ts";
import { selectMachine } from "../../src/machines/mod.ts";
import type { GpuExecutor } from "../../src/webgpu/executor.ts";
import { poolFactory } from "../../workers/pool.ts";

/** A model to train twice. */
export interface ParityCase {
  readonly name: string;
  readonly config: BertConfig;
  readonly steps: number;
  /** Sequences in a batch. */
  readonly batch: number;
  /** Most tokens in a sequence. */
  readonly tokens: number;
  readonly learningRate: number;
}

/** How far the two come apart. Keys are part of the result's contract. */
export interface ParityRow {
  readonly case: string;
  readonly steps: number;
  /** Mean loss of the first and last five steps on the GPU: whether it learned. */
  readonly first_loss: number;
  readonly last_loss: number;
  /** Largest difference of a step's loss. */
  readonly loss_difference: number;
  /** Largest difference of a step's gradient norm, as a share of the norm. */
  readonly norm_difference: number;
  /** Before the first step: √(Σ (gpu − cpu)² / Σ cpu²) over all gradients. */
  readonly gradient_difference: number;
  /** Largest difference of a weight at the end. */
  readonly weight_difference: number;
  /** √(Σ (gpu − cpu)² / Σ (cpu − start)²): as a share of the way that the weights went. */
  readonly weight_difference_of_way: number;
}

/** More than this is no rounding: on software Vulkan all are a hundredth of it and less. */
export const parityLimits = {
  loss_difference: 1e-4,
  gradient_difference: 1e-4,
  weight_difference_of_way: 2e-3,
} as const satisfies Partial<Record<keyof ParityRow, number>>;

/** Fifty steps of a tiny BERT; one layer of MiniLM's size. */
export const parityCases: readonly ParityCase[] = [
  {
    name: "bert-tiny",
    config: presetConfig("bert-tiny", { vocabularySize: 512, maximumPositions: 64 }),
    steps: 50,
    batch: 16,
    tokens: 32,
    learningRate: 5e-4,
  },
  {
    name: "one layer of minilm-l6",
    config: presetConfig("minilm-l6", { vocabularySize: 2048, maximumPositions: 128, layers: 1 }),
    steps: 20,
    batch: 16,
    tokens: 128,
    learningRate: 1e-4,
  },
];

/** The limits that a row is beyond, in words. */
export function parityFaults(row: ParityRow): string[] {
  return Object.entries(parityLimits).flatMap(([name, limit]) => {
    const value = row[name as keyof typeof parityLimits];
    return value <= limit ? [] : [`${row.case}: ${name} is ${value}, wanted at most ${limit}`];
  });
}

/** Trains a case on both. */
export async function compareTraining(
  test: ParityCase,
  createGpu: () => Promise<GpuExecutor>,
): Promise<ParityRow> {
  const batches = examplesOf(test);
  const cpu = await trainWith(test, batches);
  const other = await trainWith(test, batches, await createGpu());
  const last = test.steps - Math.min(5, test.steps);
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    case: test.name,
    steps: test.steps,
    first_loss: mean(other.losses.slice(0, 5)),
    last_loss: mean(other.losses.slice(last)),
    loss_difference: largestDifference(other.losses, cpu.losses),
    norm_difference: Math.max(...other.norms.map((norm, step) => Math.abs(norm / cpu.norms[step] - 1))),
    gradient_difference: distance(other.gradients, cpu.gradients) / length(cpu.gradients),
    weight_difference: largestDifference(other.weights, cpu.weights),
    weight_difference_of_way: distance(other.weights, cpu.weights) / distance(cpu.weights, cpu.start),
  };
}

async function trainWith(
  { config, steps, batch, tokens, learningRate }: ParityCase,
  batches: readonly EncodedExample[][],
  gpu?: GpuExecutor,
) {
  const trainer = await Trainer.create({
    model: classifier(config),
    machine: selectMachine(),
    workers: 1,
    createExecutor: poolFactory(),
    maximumSequences: batch,
    maximumTokens: batch * tokens,
    seed: 1,
    optimizer: optimizerDefaults("adamw"),
    maximumNorm: finetuneDefaults.maximumNorm,
    gpu,
  });
  try {
    trainer.initialise();
    const start = trainer.weights.slice();
    await trainer.gradient(batches[0]);
    const gradients = trainer.gradients.slice();
    const settings = { learningRate, weightDecay: finetuneDefaults.weightDecay };
    const results = [];
    for (let step = 1; step <= steps; step++) {
      results.push(...await trainer.advance([batches[step % batches.length]], step, settings));
    }
    results.push(...await trainer.drain());
    await trainer.settle();
    return {
      losses: results.map(({ loss }) => loss),
      norms: results.map(({ gradientNorm }) => gradientNorm),
      weights: trainer.weights.slice(),
      start,
      gradients,
    };
  } finally {
    await trainer.dispose();
  }
}

/** Batches of sequences of many lengths; the first token tells the label. */
function examplesOf({ config, batch, tokens }: ParityCase): EncodedExample[][] {
  const random = new RandomStream(randomKey(0, "parity"));
  const { vocabularySize, labels } = config;
  const example = (): EncodedExample => {
    const ids = Int32Array.from({ length: 2 + random.below(tokens - 1) }, () => random.below(vocabularySize));
    return { ids, typeIds: new Uint8Array(ids.length), label: ids[0] % labels.length };
  };
  return Array.from({ length: 8 }, () => Array.from({ length: batch }, example));
}

/** The largest |a − b|; NaN where there is one. */
function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) {
    throw new Error(`there are ${a.length} numbers on the GPU, ${b.length} on the CPU`);
  }
  let largest = 0;
  for (let index = 0; index < a.length; index++) largest = Math.max(largest, Math.abs(a[index] - b[index]));
  return largest;
}

function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += (a[index] - b[index]) ** 2;
  return Math.sqrt(sum);
}

function length(a: Float32Array): number {
  return Math.sqrt(a.reduce((sum, value) => sum + value ** 2, 0));
}
