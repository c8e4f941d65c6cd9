/**
 * A trainer that takes steps on random batches, at a sparsity that changes from step to step. The thing that `train.ts` times.
 * @module
 */
import type { BertConfig } from "../models/config.ts";
import { randomBits, randomKey, RandomStream } from "../src/core/random.ts";
import type { EncodedExample } from "../src/data/batches.ts";
import { finetuneDefaults, type Precision } from "../src/finetune/options.ts";
import type { ParameterLayout } from "../src/finetune/parameters.ts";
import { isSkipped, type StepResult } from "../src/finetune/step_engine.ts";
import { classifier } from "../src/finetune/tasks/classification.ts";
import { Trainer } from "../src/finetune/trainer.ts";
import { optimizerDefaults } from "../src/kernels/optimizer/optimizers.ts";
import { selectMachine } from "../src/machines/mod.ts";
import type { ExecutorFactory } from "../src/plan/executor.ts";
import { pruneMasks, type PruningMethod } from "../src/pruning/method.ts";
import { blockGrid, checkPattern, type Pattern } from "../src/pruning/pattern.ts";
import { isPrunable, sparsityOfMasks } from "../src/pruning/sparsity.ts";
import type { GpuExecutor } from "../src/webgpu/executor.ts";

/** A batch of equal sequences. */
export interface TrainBatch {
  /** Sequences. */
  readonly batch: number;
  /** Tokens in each. */
  readonly tokens: number;
}

/** What takes steps. */
export interface StepRunnerOptions extends TrainBatch {
  readonly config: BertConfig;
  readonly pattern: Pattern;
  /** As `selectMachine` takes it. */
  readonly isa?: string;
  /** What a GPU keeps activations and their gradients in; default `fp32`. */
  readonly precision?: Precision;
}

/** What takes the steps of a runner. */
export interface StepDevices {
  readonly workers: number;
  readonly createExecutor: ExecutorFactory;
  /** Takes the steps instead of the workers. */
  readonly gpu?: GpuExecutor;
}

/** A trainer that takes steps at a chosen sparsity. */
export class StepRunner {
  readonly trainer: Trainer<EncodedExample>;
  readonly #config: BertConfig;
  readonly #pattern: Pattern;
  readonly #shape: TrainBatch;
  readonly #stream = new RandomStream(randomKey(0, "bench train"));
  /** Made once each: random bits for every weight of BERT-base take a second. */
  readonly #masks = new Map<number, RandomMask>();
  #mask: RandomMask | undefined;
  #step = 0;

  private constructor(
    trainer: Trainer<EncodedExample>,
    config: BertConfig,
    pattern: Pattern,
    shape: TrainBatch,
  ) {
    this.trainer = trainer;
    this.#config = config;
    this.#pattern = pattern;
    this.#shape = shape;
  }

  /** Makes a trainer with random weights; to be disposed of. */
  static async create(
    { config, isa, pattern, batch, tokens, precision }: StepRunnerOptions,
    devices: StepDevices,
  ): Promise<StepRunner> {
    const trainer = await Trainer.create({
      model: classifier(config),
      machine: selectMachine(isa),
      ...devices,
      maximumSequences: batch,
      maximumTokens: batch * tokens,
      seed: 0,
      optimizer: optimizerDefaults("adamw"),
      maximumNorm: finetuneDefaults.maximumNorm,
      pattern,
      precision,
    });
    trainer.initialise();
    return new StepRunner(trainer, config, pattern, { batch, tokens });
  }

  /** One step at that sparsity; the first after another sparsity renews the mask. */
  async step(sparsity: number): Promise<StepKind> {
    const kind = await this.advance(sparsity);
    await this.drain();
    return kind;
  }

  /** Begins a step: resolves when the next may begin, which on a GPU is before this one is over. */
  async advance(sparsity: number): Promise<StepKind> {
    const { trainer } = this;
    const mask = this.#masks.get(sparsity) ?? randomMask(trainer.layout, this.#pattern, sparsity);
    this.#masks.set(sparsity, mask);
    if (mask !== this.#mask) {
      await trainer.settle();
      trainer.mask.set(mask.words);
      trainer.applyMask();
      this.#mask = mask;
    }
    const batch = randomBatch(this.#config, this.#shape, this.#stream);
    const settings = { learningRate: 2e-5, weightDecay: finetuneDefaults.weightDecay };
    check(await trainer.advance([batch], ++this.#step, settings));
    return { sparsity: mask.sparsity, kernels: trainer.sparseMatrices > 0 ? "sparse" : "dense" };
  }

  /** Waits for the steps that were begun. */
  async drain(): Promise<void> {
    check(await this.trainer.drain());
  }
}

/** Time of steps that computed nothing means nothing. One that is skipped for its loss scale computes all but the update. */
function check(results: readonly StepResult[]): void {
  for (const result of results) {
    const { loss, gradientNorm } = result;
    if (Number.isFinite(loss + gradientNorm) || isSkipped(result)) continue;
    throw new Error(`The loss of a timed step is ${loss}, its gradient's norm ${gradientNorm}`);
  }
}

/** What a step ran on. */
export interface StepKind {
  /** Counted share of masked weights. */
  readonly sparsity: number;
  /** Whether its pruned matrices ran sparse. */
  readonly kernels: "dense" | "sparse";
}

/** A batch of full sequences of random ids. */
function randomBatch(
  { vocabularySize, labels }: BertConfig,
  { batch, tokens }: TrainBatch,
  stream: RandomStream,
): EncodedExample[] {
  return Array.from({ length: batch }, (): EncodedExample => ({
    ids: Int32Array.from({ length: tokens }, () => stream.below(vocabularySize)),
    typeIds: new Uint8Array(tokens),
    label: stream.below(labels.length),
  }));
}

/** A mask of all prunable matrices, as a trainer holds it. */
export interface RandomMask {
  readonly words: Uint32Array;
  /** Share of masked weights, counted. */
  readonly sparsity: number;
}

/**
 * Prunes that share of the blocks of every prunable matrix by random scores, each block's of its own, so that a higher sparsity
 * keeps the zeros of a lower one.
 */
export function randomMask(layout: ParameterLayout, pattern: Pattern, sparsity: number): RandomMask {
  const method: PruningMethod = {
    name: "random",
    score(matrix) {
      const grid = blockGrid(pattern, matrix);
      const key = randomKey(0, "bench mask", matrix.name);
      return {
        values: Float32Array.from({ length: grid.rows * grid.columns }, (_, block) => randomBits(key, block)),
      };
    },
  };
  const words = new Uint32Array(layout.prunableLength / 32);
  const matrices = layout.slots.filter(({ name }) => isPrunable(name)).map((slot) => ({
    ...slot,
    rows: slot.shape[0],
    columns: slot.shape[1],
  }));
  checkPattern(pattern, matrices);
  const masked = matrices.map((matrix) => {
    const unread = { ...matrix, values: new Float32Array(matrix.length) };
    const mask = pruneMasks([unread], { method, pattern, scope: "layer", sparsity }).get(matrix.name)!;
    words.set(mask, matrix.offset / 32);
    return { ...matrix, mask };
  });
  return { words, sparsity: sparsityOfMasks(masked).overall };
}
