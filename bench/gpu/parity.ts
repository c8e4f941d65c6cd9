/**
 * The same fine-tuning on the CPU and on the GPU, and there in float32 and in float16: how far losses, gradients and weights come
 * apart.
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
import { finetuneDefaults, type Precision } from "../../src/finetune/options.ts";
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

/** How far the two come apart: the GPU in float32 from the CPU, or in float16 from itself in float32. Keys are part of the result's contract. */
export interface ParityRow {
  readonly case: string;
  /** What is compared. */
  readonly precision: Precision;
  readonly steps: number;
  /** Mean loss of the first and last five steps on the GPU: whether it learned. */
  readonly first_loss: number;
  readonly last_loss: number;
  /** Largest difference of a step's loss. */
  readonly loss_difference: number;
  /** Largest difference of a step's gradient norm, as a share of the norm. */
  readonly norm_difference: number;
  /** Before the first step: √(Σ (found − wanted)² / Σ wanted²) over all gradients, which for masks are float32 in any case. */
  readonly gradient_difference: number;
  /** Largest difference of a weight at the end, but for keys' biases: softmax does not see them, their gradients are rounding. */
  readonly weight_difference: number;
  /** The mean of those. */
  readonly weight_mean_difference: number;
  /** √(Σ (found − wanted)² / Σ (wanted − start)²): as a share of the way that the weights went. */
  readonly weight_difference_of_way: number;
}

type Limits = Partial<Record<Exclude<keyof ParityRow, "case" | "precision" | "steps">, number>>;

/**
 * More than this is no rounding. In float32 all are a hundredth of it and less on software Vulkan; those of float16 are the
 * tolerances of src/finetune/gpu_precision_test.ts, also for fifty steps.
 */
export const parityLimits: Readonly<Record<Precision, Limits>> = {
  fp32: { loss_difference: 1e-4, gradient_difference: 1e-4, weight_difference_of_way: 2e-3 },
  fp16: {
    loss_difference: 3e-3,
    norm_difference: 5e-3,
    gradient_difference: 1e-4,
    weight_difference: 1e-2,
    weight_mean_difference: 1e-4,
  },
};

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
  return Object.entries(parityLimits[row.precision]).flatMap(([name, limit]) => {
    const value = row[name as keyof Limits];
    return value <= limit
      ? []
      : [`${row.case} in ${row.precision}: ${name} is ${value}, wanted at most ${limit}`];
  });
}

/** Trains a case on the CPU and on the GPU, there in each precision. */
export async function compareTraining(
  test: ParityCase,
  createGpu: () => Promise<GpuExecutor>,
  precisions: readonly Precision[],
): Promise<ParityRow[]> {
  const batches = examplesOf(test);
  const cpu = await trainWith(test, batches);
  const whole = await trainWith(test, batches, { gpu: await createGpu() });
  const rows = [difference(test, "fp32", whole, cpu)];
  if (precisions.includes("fp16")) {
    const half = await trainWith(test, batches, { gpu: await createGpu(), precision: "fp16" });
    rows.push(difference(test, "fp16", half, whole));
  }
  return rows;
}

type Training = Awaited<ReturnType<typeof trainWith>>;

function difference(
  { name, steps }: ParityCase,
  precision: Precision,
  found: Training,
  wanted: Training,
): ParityRow {
  const last = steps - Math.min(5, steps);
  const apart = found.seenWeights.map((weight, index) => Math.abs(weight - wanted.seenWeights[index]));
  return {
    case: name,
    precision,
    steps,
    first_loss: mean(found.losses.slice(0, 5)),
    last_loss: mean(found.losses.slice(last)),
    loss_difference: largest(found.losses.map((loss, step) => Math.abs(loss - wanted.losses[step]))),
    norm_difference: largest(found.norms.map((norm, step) => Math.abs(norm / wanted.norms[step] - 1))),
    gradient_difference: distance(found.gradients, wanted.gradients) / length(wanted.gradients),
    weight_difference: largest(apart),
    weight_mean_difference: mean(apart),
    weight_difference_of_way: distance(found.weights, wanted.weights) /
      distance(wanted.weights, wanted.start),
  };
}

async function trainWith(
  { config, steps, batch, tokens, learningRate }: ParityCase,
  batches: readonly EncodedExample[][],
  device: { readonly gpu?: GpuExecutor; readonly precision?: Precision } = {},
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
    ...device,
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
    if (results.length !== steps) throw new Error(`${steps} steps have ${results.length} results`);
    await trainer.settle();
    const seen = trainer.layout.slots.filter(({ name }) => !name.endsWith(".key.bias"));
    return {
      losses: results.map(({ loss }) => loss),
      norms: results.map(({ gradientNorm }) => gradientNorm),
      weights: trainer.weights.slice(),
      seenWeights: Float32Array.from(seen.flatMap((slot) => [...trainer.parameter(slot)])),
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

/** The largest of some numbers from 0; NaN where there is one. */
function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let index = 0; index < values.length; index++) most = Math.max(most, values[index]);
  return most;
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < values.length; index++) sum += values[index];
  return sum / values.length;
}

function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += (a[index] - b[index]) ** 2;
  return Math.sqrt(sum);
}

function length(a: Float32Array): number {
  return Math.sqrt(a.reduce((sum, value) => sum + value ** 2, 0));
}
