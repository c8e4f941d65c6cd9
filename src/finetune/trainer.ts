/**
 * The training engine: parameters, gradients and optimiser state in one arena, and a plan per batch size in tiles.
 *
 * It knows steps and evaluations, not epochs, files or schedules; `mod.ts` is the loop around it.
 *
 * Between steps the parameters may be in a form that only kernels read: pruned matrices compact (`compact.ts`), rows of
 * the word table behind (`lazy_words.ts`). `settle` brings them into the form that everybody else knows.
 * @module
 */
import type { BertConfig } from "../../models/config.ts";
import { InputError } from "../core/errors.ts";
import { availableMemoryBytes, formatBytes } from "../core/memory.ts";
import { randomKey } from "../core/random.ts";
import { type BatchViews, type EncodedExample, packBatch } from "../data/batches.ts";
import { unpackTiled } from "../graph/layout.ts";
import type { Operand, Target } from "../graph/operation.ts";
import { adamwScalarCount, adamwScalars } from "../kernels/adamw/steps.ts";
import type { Machine } from "../machines/machine.ts";
import { Arena, ArenaSize, Region } from "../plan/arena.ts";
import { type Executor, type ExecutorFactory, prepare, type Task } from "../plan/executor.ts";
import { alignUp } from "../plan/memory.ts";
import { type Plan, planBytes, usualTile } from "../plan/plan.ts";
import { type Program, programBytes } from "../plan/program.ts";
import { zeroPruned } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import { CompactMatrices } from "./compact.ts";
import type { MatrixPlace } from "./compact_task.ts";
import { LazyWords } from "./lazy_words.ts";
import { type BatchCapacity, placeTrainingMemory, type TrainingMemory } from "./memory.ts";
import {
  initialiseParameter,
  type ParameterLayout,
  parameterLayoutOf,
  type ParameterSlot,
} from "./parameters.ts";
import { type OptimizerOptions, planStep, type StepMode, type StepParts } from "./step_plan.ts";

/** What a trainer is made for. */
export interface TrainerOptions {
  readonly config: BertConfig;
  readonly machine: Machine;
  readonly workers: number;
  readonly createExecutor: ExecutorFactory;
  /** Most sequences in a batch. */
  readonly maximumSequences: number;
  /** Most tokens in a batch, all sequences together. */
  readonly maximumTokens: number;
  readonly seed: number;
  readonly optimizer: OptimizerOptions;
  /** What masks prune together; default `unstructured`. */
  readonly pattern?: Pattern;
  /** Whether pruned matrices train with sparse kernels once those are faster; default true. */
  readonly sparse?: boolean;
  /** Whether layers run again in the backward pass instead of being kept: less memory for about a tenth more time. */
  readonly checkpoints?: boolean;
}

/** What one optimiser step did. */
export interface StepResult {
  readonly loss: number;
  /** Global norm of the gradients before clipping. Not finite: the step changed nothing. */
  readonly gradientNorm: number;
}

/** Loss and answers on one evaluation batch. */
export interface BatchAnswers {
  /** Mean cross-entropy over the batch. */
  readonly loss: number;
  /** [labels, sequences] row-major, `stride` columns a row. */
  readonly logits: Float32Array;
  readonly stride: number;
}

interface PreparedPlan {
  readonly program: Program;
  readonly outputs: ReadonlyMap<string, Operand>;
}

/** Programs that fit in the arena at a time, of the largest batch; smaller ones take less. */
const reservedPrograms = 24;

/** A model being trained. Make it with `Trainer.create`; end it with `dispose`. */
export class Trainer {
  readonly layout: ParameterLayout;
  readonly config: BertConfig;
  /** Memory the training takes, for reports. */
  readonly needs: TrainerNeeds;
  readonly #options: TrainerOptions;
  readonly #executor: Executor;
  readonly #target: Target;
  readonly #memory: TrainingMemory;
  readonly #parts: StepParts;
  readonly #activations: number;
  /** Programs lie here; they are made when first needed, and again when there was no room for all. */
  readonly #programRegion: Region;
  readonly #programs = new Map<string, PreparedPlan>();

  private constructor(options: TrainerOptions, executor: Executor, needs: TrainerNeeds) {
    const { layout, capacity } = needs;
    const { arena } = executor;
    this.#options = options;
    this.config = options.config;
    this.layout = layout;
    this.#executor = executor;
    this.needs = needs;
    this.#target = targetOf(options);
    this.#memory = placeTrainingMemory(layout, capacity, arena);
    this.#parts = partsOf(options, layout, capacity, this.#memory, arena);
    this.#activations = arena.allocate(needs.activationBytes, "activations");
    this.#programRegion = new Region(
      arena.allocate(needs.programsBytes, "programs"),
      needs.programsBytes,
    );
    this.#parts.lazy?.attach(arena);
    this.mask.fill(0xffffffff);
  }

  /** Sizes the arena for the largest batch, and starts the workers. Throws `InputError` when it cannot fit. */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const needs = trainerNeeds(options);
    const executor = await options.createExecutor({
      machine: options.machine,
      threads: options.workers,
      arena: new Arena(needs.arenaBytes),
    });
    try {
      return new Trainer(options, executor, needs);
    } catch (error) {
      await executor.dispose();
      throw error;
    }
  }

  /** All weights, in the order of `layout`. A live view of the arena, to be used while settled. */
  get weights(): Float32Array {
    return this.#flat("weights");
  }

  /** AdamW's first moments. A live view, to be used while settled. */
  get firstMoment(): Float32Array {
    return this.#flat("firstMoment");
  }

  /** AdamW's second moments. A live view, to be used while settled. */
  get secondMoment(): Float32Array {
    return this.#flat("secondMoment");
  }

  /**
   * Gradients of the last step. A live view. Those of the word table are of the batch's rows alone where the table is
   * updated lazily, and those of compact matrices in packed order.
   */
  get gradients(): Float32Array {
    return this.#executor.arena.float32(this.#memory.gradients, this.layout.length);
  }

  /**
   * The bits of the prunable range: bit i of word j keeps weight 32j + i. A live view, to be used while settled;
   * `applyMask` must follow a change.
   */
  get mask(): Uint32Array {
    this.#checkSettled("mask");
    const { buffer } = this.#executor.arena.memory;
    return new Uint32Array(buffer, this.#memory.mask, this.layout.prunableLength / 32);
  }

  /** A live view of one parameter, to be used while settled. */
  parameter(slot: ParameterSlot): Float32Array {
    return this.weights.subarray(slot.offset, slot.offset + slot.length);
  }

  /** Whether weights and moments are as `layout` says: not after a step that had pruned matrices or lazy rows. */
  get isSettled(): boolean {
    const { compact, lazy } = this.#parts;
    return compact.compacted.size === 0 && (lazy?.history.length ?? 0) === 0;
  }

  /** Matrices that the last step ran with sparse kernels. 0 while settled. */
  get sparseMatrices(): number {
    return this.#parts.compact.compacted.size;
  }

  /** Brings weights and moments into the order of `layout`, until the next step or evaluation. Changes no number. */
  async settle(): Promise<void> {
    await this.#bringUpToDate();
    await this.#parts.compact.expand(this.#executor);
  }

  /** Fills parameters with fresh random weights; all of them, or those named. */
  initialise(names?: ReadonlySet<string>): void {
    const { config, seed } = this.#options;
    for (const slot of this.layout.slots) {
      if (names && !names.has(slot.name)) continue;
      const options = { range: config.initializerRange, seed, padTokenId: config.padTokenId };
      initialiseParameter(slot, this.parameter(slot), options);
    }
  }

  /** Zeroes weights and moments wherever the mask has a 0. To be called when the mask was changed, while settled. */
  applyMask(): void {
    const prunable = (array: Float32Array) => array.subarray(0, this.layout.prunableLength);
    zeroPruned(this.mask, [this.weights, this.firstMoment, this.secondMoment].map(prunable));
    this.#parts.compact.maskChanged();
  }

  /**
   * Runs a task for each prunable matrix, spread over the workers; it may change the matrix's mask, weights and moments.
   * Settles first.
   */
  async reprune<T>(
    task: Task<T, void>,
    request: (name: string, place: MatrixPlace) => T,
  ): Promise<void> {
    await this.settle();
    const { compact } = this.#parts;
    await this.#executor.perform(task, Array.from(compact.places, ([name, place]) => request(name, place)));
    compact.maskChanged();
  }

  /** One step: forward, backward, clip, AdamW, mask. `step` counts from 1 and names the dropout masks. */
  async step(batch: readonly EncodedExample[], step: number, learningRate: number): Promise<StepResult> {
    const { arena } = this.#executor;
    const { seed, optimizer } = this.#options;
    const { lazy } = this.#parts;
    const memory = this.#memory;
    if (lazy?.history.isFull) await this.#bringUpToDate();
    const { program, outputs } = await this.#load("train", batch);
    const key = randomKey(seed, "dropout", step);
    arena.int32(memory.seed, 2).set([key.low | 0, key.high | 0]);
    const scalars = (weightDecay: number) => adamwScalars({ ...optimizer, learningRate, weightDecay }, step);
    const decayed = scalars(optimizer.weightDecay);
    arena.float32(memory.scalars, adamwScalarCount).set(decayed);
    arena.float32(memory.scalarsWithoutDecay, adamwScalarCount).set(scalars(0));
    lazy?.history.begin(decayed);
    await this.#executor.run(program);
    const [gradientNorm, clip] = arena.float32(memory.norm, 2);
    lazy?.history.end(clip);
    return { loss: arena.float32(outputs.get("loss")!.address, 1)[0], gradientNorm };
  }

  /** Loss and logits without dropout, changing no number. */
  async evaluate(batch: readonly EncodedExample[]): Promise<BatchAnswers> {
    const { arena } = this.#executor;
    await this.#bringUpToDate();
    const { program, outputs } = await this.#load("evaluate", batch);
    await this.#executor.run(program);
    const { address, type } = outputs.get("logits")!;
    const [labels, stride] = type.shape;
    return {
      loss: arena.float32(outputs.get("loss")!.address, 1)[0],
      logits: unpackTiled(arena.float32(address, labels * stride), labels, stride, this.#target.tile),
      stride,
    };
  }

  /** Stops the workers. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }

  #flat(name: "weights" | "firstMoment" | "secondMoment"): Float32Array {
    this.#checkSettled(name);
    return this.#executor.arena.float32(this.#memory[name], this.layout.length);
  }

  #checkSettled(what: string): void {
    if (!this.isSettled) throw new Error(`Cannot read the ${what}: settle the trainer first`);
  }

  /** Makes rows of the word table take the steps that they missed. */
  async #bringUpToDate(): Promise<void> {
    const { lazy } = this.#parts;
    if (!lazy || lazy.history.length === 0) return;
    const { program } = await this.#prepared("flush", () => lazy.flushPlan(this.#target, this.#activations));
    await this.#executor.run(program);
    lazy.history.clear();
  }

  /** Writes the batch into the arena and gives the program for its size. */
  async #load(mode: StepMode, batch: readonly EncodedExample[]): Promise<PreparedPlan> {
    const { arena } = this.#executor;
    const { compact, lazy } = this.#parts;
    if (this.#options.sparse !== false && await compact.compact(this.#executor)) this.#forgetPrograms();
    const tokens = batch.reduce((sum, example) => sum + example.ids.length, 0);
    const columns = alignUp(Math.max(tokens, 1), this.#target.tile);
    const prepared = await this.#prepared(`${mode} ${columns}`, () =>
      planStep(mode, {
        ...this.#options,
        target: this.#target,
        layout: this.layout,
        memory: this.#memory,
        parts: this.#parts,
        columns,
        sequences: this.needs.capacity.sequences,
        activations: this.#activations,
      }));
    packBatch(batch, this.#views(columns));
    if (mode === "train") lazy?.list(arena, columns);
    return prepared;
  }

  async #prepared(key: string, makePlan: () => Plan): Promise<PreparedPlan> {
    const known = this.#programs.get(key);
    if (known) return known;
    const plan = makePlan();
    const { activationBytes } = this.needs;
    if (planBytes(plan) > activationBytes) {
      throw new RangeError(
        `Cannot run ${key}: it takes ${planBytes(plan)} bytes of ${activationBytes}`,
      );
    }
    if (!this.#programRegion.fits(programBytes(plan))) this.#forgetPrograms();
    const program = await prepare(this.#executor, plan, this.#programRegion);
    const prepared = { program, outputs: plan.outputs };
    this.#programs.set(key, prepared);
    return prepared;
  }

  #forgetPrograms(): void {
    this.#programs.clear();
    this.#programRegion.clear();
  }

  #views(columns: number): BatchViews {
    const { arena } = this.#executor;
    const { sequences } = this.needs.capacity;
    const at = this.#memory;
    return {
      tokenIds: arena.int32(at.tokenIds, columns),
      positionIds: arena.int32(at.positionIds, columns),
      typeIds: arena.int32(at.typeIds, columns),
      offsets: arena.int32(at.offsets, sequences + 1),
      firstTokens: arena.int32(at.firstTokens, sequences),
      labels: arena.int32(at.labels, sequences),
    };
  }
}

/** What a trainer takes of memory. */
export interface TrainerNeeds {
  readonly layout: ParameterLayout;
  readonly capacity: BatchCapacity;
  /** Weights, gradients, moments, and what is known of zeros. */
  readonly parameterBytes: number;
  readonly activationBytes: number;
  readonly programsBytes: number;
  /** All together. */
  readonly arenaBytes: number;
}

/**
 * Planning is pure: plans at made-up addresses tell how much memory the largest batch takes. Throws `InputError` when
 * that is more than there can be.
 */
export function trainerNeeds(options: TrainerOptions): TrainerNeeds {
  const target = targetOf(options);
  const layout = parameterLayoutOf(options.config);
  const capacity: BatchCapacity = {
    columns: alignUp(Math.max(1, options.maximumTokens), target.tile),
    sequences: alignUp(options.maximumSequences, target.tile),
  };
  const size = new ArenaSize();
  const memory = placeTrainingMemory(layout, capacity, size);
  const parts = partsOf(options, layout, capacity, memory, size);
  const parameterBytes = size.byteLength;
  checkArenaBytes(parameterBytes, options);
  const plans = (["train", "evaluate"] as const).map((mode) =>
    planStep(mode, { ...options, target, layout, memory, parts, ...capacity, activations: 0 })
  );
  const sparseBytes = options.sparse === false ? 0 : parts.compact.planBytes;
  // Buffers are placed greedily, so that a plan of fewer may take a little more.
  const activationBytes = alignUp(1.02 * Math.max(...plans.map(planBytes)) + sparseBytes);
  // Programs of sparse matrices have more calls than dense ones.
  const programsBytes = reservedPrograms * Math.max(...plans.map((plan) => programBytes(plan)));
  size.allocate(activationBytes, "activations");
  size.allocate(programsBytes, "programs");
  checkArenaBytes(size.byteLength, options);
  const arenaBytes = size.byteLength;
  return { layout, capacity, parameterBytes, activationBytes, programsBytes, arenaBytes };
}

function partsOf(
  options: TrainerOptions,
  layout: ParameterLayout,
  { columns }: BatchCapacity,
  memory: TrainingMemory,
  allocator: Arena | ArenaSize,
): StepParts {
  const { pattern = "unstructured", machine } = options;
  return {
    compact: new CompactMatrices(layout, { pattern, machine, at: memory }, allocator),
    lazy: LazyWords.pays(layout.words, columns) ? new LazyWords(layout.words, memory) : undefined,
  };
}

/** Kernels take 32-bit addresses, and what the system does not have it would take from the disk, or end the run. */
function checkArenaBytes(bytes: number, { maximumTokens, checkpoints }: TrainerOptions): void {
  const available = availableMemoryBytes() ?? Infinity;
  if (bytes <= Math.min(maximumArenaBytes, available)) return;
  const wanted = available < maximumArenaBytes
    ? `${formatBytes(available)} of memory are free`
    : `an arena has at most ${formatBytes(maximumArenaBytes)}`;
  throw new InputError(
    `training needs ${
      formatBytes(bytes)
    } for batches of ${maximumTokens} tokens, and ${wanted}: take a smaller ` +
      `model, lower --batch-size, --tokens-per-batch or --max-length` +
      (checkpoints ? "" : ", or take --gradient-checkpointing"),
  );
}

/** All that 32 bits address, but for the first line of an arena, which stays unused. */
const maximumArenaBytes = 2 ** 32 - 64;

function targetOf({ machine: { lanes, vectorRegisters }, workers }: TrainerOptions): Target {
  return { lanes, vectorRegisters, tile: usualTile(lanes), workers };
}
