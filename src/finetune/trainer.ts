/**
 * The training engine: parameters, gradients and optimiser state in one arena, and a plan per batch size in tiles.
 *
 * It knows steps and evaluations, not epochs, files or schedules; `loop.ts` is what goes around it.
 *
 * Between steps the parameters may be in a form that only kernels read: pruned matrices compact (`compact.ts`), rows of
 * the lookup table behind (`lazy_table.ts`). `settle` brings them into the form that everybody else knows.
 * @module
 */
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
import { Arena } from "../plan/arena.ts";
import type { Executor, Task } from "../plan/executor.ts";
import { zeroPruned } from "../pruning/method.ts";
import { type BatchAnswers, BatchPrograms } from "./batch_programs.ts";
import type { MatrixPlace } from "./compact_task.ts";
import type { ParameterGroup } from "./groups.ts";
import type { TrainingMemory } from "./memory.ts";
import type { MovementPart } from "./movement_part.ts";
import type { ParameterLayout, ParameterSlot } from "./parameters.ts";
import { groupScalars, type StepSettings } from "./step_settings.ts";
import {
  placeTrainer,
  type TrainerNeeds,
  trainerNeeds,
  type TrainerOptions,
  type TrainerPlaces,
} from "./trainer_needs.ts";
import type { TrainingModel } from "./training_model.ts";

/** What one optimiser step did. */
export interface StepResult {
  /** Mean over the batch. */
  readonly loss: number;
  /** Global norm of the gradients before clipping. Not finite: the step changed nothing. */
  readonly gradientNorm: number;
}

/** A model being trained. Make it with `Trainer.create`; end it with `dispose`. */
export class Trainer<Example> {
  readonly model: TrainingModel<Example>;
  readonly layout: ParameterLayout;
  /** Groups of parameters that are updated alike. */
  readonly groups: readonly ParameterGroup[];
  /** The optimiser. */
  readonly rule: UpdateRule;
  /** Memory the training takes, for reports. */
  readonly needs: TrainerNeeds;
  readonly #options: TrainerOptions<Example>;
  readonly #executor: Executor;
  readonly #places: TrainerPlaces;
  readonly #programs: BatchPrograms<Example>;

  private constructor(options: TrainerOptions<Example>, executor: Executor, needs: TrainerNeeds) {
    this.#options = options;
    this.model = options.model;
    this.layout = needs.layout;
    this.groups = needs.groups;
    this.rule = needs.rule;
    this.needs = needs;
    this.#executor = executor;
    this.#places = placeTrainer(options, needs, executor.arena);
    this.#programs = new BatchPrograms(options, needs, this.#places, executor);
    this.mask.fill(0xffffffff);
  }

  /** Sizes the arena for the largest batch, and starts the workers. Throws `InputError` when it cannot fit. */
  static async create<Example>(options: TrainerOptions<Example>): Promise<Trainer<Example>> {
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
    return this.#flat("weights", this.#places.memory.weights);
  }

  /** The optimiser's arrays by name, each in the order of `layout`. Live views, to be used while settled. */
  get states(): ReadonlyMap<string, Float32Array> {
    const addresses = this.#places.memory.states;
    return new Map(this.rule.states.map((name, index) => [name, this.#flat(name, addresses[index])]));
  }

  /**
   * Gradients of the last step. A live view. After `gradient` they are those of all weights; after a step those of a
   * lazily updated table are of the batch's rows alone, and those of compact matrices in packed order.
   */
  get gradients(): Float32Array {
    return this.#executor.arena.float32(this.#places.memory.gradients, this.layout.length);
  }

  /**
   * The bits of the prunable range: bit i of word j keeps weight 32j + i. A live view, to be used while settled;
   * `applyMask` must follow a change.
   */
  get mask(): Uint32Array {
    this.#checkSettled("mask");
    const { buffer } = this.#executor.arena.memory;
    return new Uint32Array(buffer, this.#places.memory.mask, this.layout.prunableLength / 32);
  }

  /** A live view of one parameter, to be used while settled. */
  parameter(slot: ParameterSlot): Float32Array {
    return this.weights.subarray(slot.offset, slot.offset + slot.length);
  }

  /** Whether weights and states are as `layout` says: not after a step that had pruned matrices or lazy rows. */
  get isSettled(): boolean {
    const { compact, lazy } = this.#places.parts;
    return compact.compacted.size === 0 && (lazy?.history.length ?? 0) === 0;
  }

  /** Matrices that the last step ran with sparse kernels. 0 while settled. */
  get sparseMatrices(): number {
    return this.#places.parts.compact.compacted.size;
  }

  /** Brings weights and states into the order of `layout`, until the next step or evaluation. Changes no number. */
  async settle(): Promise<void> {
    await this.#programs.flush();
    await this.#places.parts.compact.expand(this.#executor);
  }

  /** Movement pruning; undefined in a trainer that was made without a `scoreOptimizer`. */
  get movement(): MovementPart | undefined {
    return this.#places.parts.movement;
  }

  /**
   * Begins to train scores of matrices by weight name, or goes on after so many steps: see `MovementPart.begin`. Matrices run
   * dense until the end. `isSoft`: under the penalty that each step is told.
   */
  async beginMovement(names: readonly string[], isSoft: boolean, steps = 0): Promise<void> {
    if (!this.movement) {
      throw new Error("Cannot prune by movement: the trainer was made without a scoreOptimizer");
    }
    await this.settle();
    this.movement.begin({ names, isSoft, steps });
    this.#programs.forget();
  }

  /** Ends training scores: the mask stays as it is, and what it prunes is lost. */
  async endMovement(): Promise<void> {
    await this.settle();
    this.movement?.end();
    this.#programs.forget();
  }

  /** Fills parameters with fresh random weights; all of them, or those named. */
  initialise(names?: ReadonlySet<string>): void {
    for (const slot of this.layout.slots) {
      if (names && !names.has(slot.name)) continue;
      this.model.initialise(slot, this.parameter(slot), this.#options.seed);
    }
  }

  /** Zeroes weights and states wherever the mask has a 0. To be called when the mask was changed, while settled. */
  applyMask(): void {
    const prunable = (array: Float32Array) => array.subarray(0, this.layout.prunableLength);
    zeroPruned(this.mask, [this.weights, ...this.states.values()].map(prunable));
    this.#places.parts.compact.maskChanged();
  }

  /**
   * Runs a task for each prunable matrix, or those named, spread over the workers; it may change the matrix's mask, weights
   * and states. Settles first.
   */
  async reprune<T>(
    task: Task<T, void>,
    request: (name: string, place: MatrixPlace) => T,
    names?: ReadonlySet<string>,
  ): Promise<void> {
    await this.settle();
    const { compact } = this.#places.parts;
    const places = [...compact.places].filter(([name]) => !names || names.has(name));
    await this.#executor.perform(task, places.map(([name, place]) => request(name, place)));
    compact.maskChanged();
  }

  /**
   * Runs a task on the workers, once for each argument; gives the results in order. Settles first. What the task writes
   * must be none of the weights that masks zero.
   */
  async perform<A, R>(task: Task<A, R>, request: (memory: TrainingMemory) => readonly A[]): Promise<R[]> {
    await this.settle();
    return await this.#executor.perform(task, request(this.#places.memory));
  }

  /**
   * One step: forward, backward, clip, update, mask. `step` counts from 1 and names the dropout masks. Of several
   * batches the gradients are averaged over all their sequences; the trainer must have been made for that.
   */
  async step(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<StepResult> {
    const { arena } = this.#executor;
    const { lazy } = this.#places.parts;
    if (lazy?.history.isFull) await this.#programs.flush();
    await this.#compact();
    this.#writeScalars(step, settings);
    this.movement?.beforeStep();
    const loss = this.#options.accumulates
      ? await this.#accumulate(batches, step)
      : await this.#programs.run("train", batches[0], { step, part: 0 });
    const [gradientNorm, clip] = arena.float32(this.#places.memory.norm, 2);
    lazy?.history.end(clip);
    return { loss, gradientNorm };
  }

  /**
   * Loss and gradient of a batch without dropout, changing no weight: `gradients` then holds them, of all weights, pruned
   * ones too. Settles first.
   */
  async gradient(batch: readonly Example[]): Promise<number> {
    await this.settle();
    return await this.#programs.run("gradient", batch);
  }

  /** Loss and results without dropout, changing no number. */
  async evaluate(batch: readonly Example[]): Promise<BatchAnswers> {
    await this.#programs.flush();
    await this.#compact();
    return await this.#programs.evaluate(batch);
  }

  /** Stops the workers. */
  dispose(): Promise<void> {
    return this.#executor.dispose();
  }

  #flat(name: string, address: number): Float32Array {
    this.#checkSettled(name);
    return this.#executor.arena.float32(address, this.layout.length);
  }

  #checkSettled(what: string): void {
    if (!this.isSettled) throw new Error(`Cannot read the ${what}: settle the trainer first`);
  }

  /** Makes sparse matrices compact, where nobody needs the gradients of what is pruned. */
  async #compact(): Promise<void> {
    if (this.#options.sparse === false || this.movement?.activity) return;
    if (await this.#places.parts.compact.compact(this.#executor)) this.#programs.forget();
  }

  #writeScalars(step: number, settings: StepSettings): void {
    const { lazy } = this.#places.parts;
    const blocks = groupScalars(this.rule, this.groups, step, settings);
    for (const [index, scalars] of blocks.entries()) {
      this.#executor.arena.float32(this.#places.memory.scalars[index], scalars.length).set(scalars);
      if (lazy && this.groups[index].names.has(lazy.name)) lazy.history.begin(scalars);
    }
  }

  /** Sums up the gradients of batches, each with its share of the sequences, and updates. Gives the mean loss. */
  async #accumulate(batches: readonly (readonly Example[])[], step: number): Promise<number> {
    const { arena } = this.#executor;
    const total = batches.reduce((sum, { length }) => sum + length, 0);
    let loss = 0;
    for (const [part, batch] of batches.entries()) {
      const share = batch.length / total;
      arena.float32(this.#places.memory.batchShare, 1)[0] = share;
      loss += share * await this.#programs.run(part === 0 ? "begin" : "accumulate", batch, { step, part });
    }
    await this.#programs.update();
    return loss;
  }
}
