/**
 * A model in training: parameters, gradients and optimiser state in one arena, and the engine that takes steps with them.
 *
 * It knows steps and evaluations, not epochs, files or schedules; `loop.ts` is what goes around it. It is the same on every
 * device: `step_engine.ts` has what differs. Between steps the parameters may be in a form or place that only the engine
 * reads. `settle` brings them into the form that everybody else knows.
 * @module
 */
import type { LossScale } from "../kernels/loss_scale/reference.ts";
import type { UpdateRule } from "../kernels/optimizer/rule.ts";
import { Arena } from "../plan/arena.ts";
import type { Executor, Task } from "../plan/executor.ts";
import { bitsetWords } from "../pruning/bitset.ts";
import { zeroPruned } from "../pruning/method.ts";
import { isPrunable, sparsityOfMasks } from "../pruning/sparsity.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import type { MatrixPlace } from "./compact_task.ts";
import { CpuEngine } from "./cpu_engine.ts";
import type { ParameterGroup } from "./groups.ts";
import { matrixPlace, type ParameterMemory } from "./memory.ts";
import type { MovementPart } from "./movement_part.ts";
import type { ParameterLayout, ParameterSlot } from "./parameters.ts";
import type { BatchAnswers, MagnitudeRefresh, StepEngine, StepResult } from "./step_engine.ts";
import type { StepSettings } from "./step_settings.ts";
import { type TrainerNeeds, trainerNeeds, type TrainerOptions } from "./trainer_needs.ts";
import type { TrainingModel } from "./training_model.ts";

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
  readonly #engine: StepEngine<Example>;

  private constructor(
    options: TrainerOptions<Example>,
    needs: TrainerNeeds,
    executor: Executor,
    engine: StepEngine<Example>,
  ) {
    this.#options = options;
    this.model = options.model;
    this.layout = needs.layout;
    this.groups = needs.groups;
    this.rule = needs.rule;
    this.needs = needs;
    this.#executor = executor;
    this.#engine = engine;
    this.mask.fill(0xffffffff);
  }

  /**
   * Takes memory for the largest batch, and starts the workers. Throws `InputError` when it cannot fit, and `UnsupportedError`
   * for what a GPU cannot do.
   */
  static async create<Example>(options: TrainerOptions<Example>): Promise<Trainer<Example>> {
    const { machine, workers, gpu } = options;
    const startWorkers = (bytes: number) =>
      options.createExecutor({ machine, threads: workers, arena: new Arena(bytes) });
    if (gpu) {
      const { createGpuEngine } = await import("./gpu_start.ts");
      const { needs, executor, engine } = await createGpuEngine(options, gpu, startWorkers);
      return new Trainer(options, needs, executor, engine);
    }
    const needs = trainerNeeds(options);
    const executor = await startWorkers(needs.arenaBytes);
    try {
      return new Trainer(options, needs, executor, new CpuEngine(options, needs, executor));
    } catch (error) {
      await executor.dispose();
      throw error;
    }
  }

  /** All weights, in the order of `layout`. A live view of the arena, to be used while settled. */
  get weights(): Float32Array {
    return this.#flat("weights", this.#engine.memory.weights);
  }

  /** The optimiser's arrays by name, each in the order of `layout`. Live views, to be used while settled. */
  get states(): ReadonlyMap<string, Float32Array> {
    const addresses = this.#engine.memory.states;
    return new Map(this.rule.states.map((name, index) => [name, this.#flat(name, addresses[index])]));
  }

  /**
   * Gradients of the last call of `gradient`, of all weights, or on the CPU of the last step. A live view. After a step those
   * of a lazily updated table are of the batch's rows alone, and those of compact matrices in packed order.
   */
  get gradients(): Float32Array {
    return this.#executor.arena.float32(this.#engine.memory.gradients, this.layout.length);
  }

  /**
   * The bits of the prunable range: bit i of word j keeps weight 32j + i. A live view, to be used while settled;
   * `applyMask` must follow a change.
   */
  get mask(): Uint32Array {
    this.#checkSettled("mask");
    this.#engine.handedOut();
    return this.#maskView;
  }

  /** Share of the prunable weights that the mask prunes. */
  get sparsity(): number {
    const mask = this.#maskView;
    return sparsityOfMasks(
      this.layout.slots.filter(({ name }) => isPrunable(name)).map(({ name, shape, offset, length }) => ({
        ...{ name, rows: shape[0], columns: shape[1] },
        mask: mask.subarray(offset / 32, offset / 32 + bitsetWords(length)),
      })),
    ).overall;
  }

  /** A live view of one parameter, to be used while settled. */
  parameter(slot: ParameterSlot): Float32Array {
    return this.weights.subarray(slot.offset, slot.offset + slot.length);
  }

  /** Whether weights and states are as `layout` says: not after a step that had pruned matrices or lazy rows. */
  get isSettled(): boolean {
    return this.#engine.isSettled;
  }

  /** Matrices that the last step ran with sparse kernels. 0 while settled. */
  get sparseMatrices(): number {
    return this.#engine.sparseMatrices;
  }

  /** Brings weights and states into the order of `layout`, until the next step or evaluation. Changes no number. */
  settle(): Promise<void> {
    return this.#engine.settle();
  }

  /** Movement pruning; undefined in a trainer that was made without a `scoreOptimizer`. */
  get movement(): MovementPart | undefined {
    return this.#engine.movement;
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
    this.#engine.movementChanged();
  }

  /** Ends training scores: the mask stays as it is, and what it prunes is lost. */
  async endMovement(): Promise<void> {
    await this.settle();
    this.movement?.end();
    this.#engine.movementChanged();
  }

  /** Fills parameters with fresh random weights; all of them, or those named. */
  initialise(names?: ReadonlySet<string>): void {
    for (const slot of this.layout.slots) {
      if (names && !names.has(slot.name)) continue;
      this.model.initialise(slot, this.parameter(slot), this.#options.seed);
    }
  }

  /** The scale of the loss, while settled; undefined where activations are float32. */
  get lossScale(): LossScale | undefined {
    this.#checkSettled("loss scale");
    return this.#engine.lossScale;
  }

  /** Goes on with a scale. */
  restoreLossScale(scale: LossScale): void {
    this.#engine.restoreLossScale(scale);
  }

  /** Zeroes weights and states wherever the mask has a 0. To be called when the mask was changed, while settled. */
  applyMask(): void {
    const prunable = (array: Float32Array) => array.subarray(0, this.layout.prunableLength);
    zeroPruned(this.mask, [this.weights, ...this.states.values()].map(prunable));
    this.#engine.maskChanged();
  }

  /**
   * Renews masks by magnitude on the device, with what they prune, without fetching a weight. False, and nothing done: it is
   * for `reprune` or `perform`.
   */
  pruneByMagnitude(refresh: MagnitudeRefresh): Promise<boolean> {
    return this.#engine.pruneByMagnitude(refresh);
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
    const places = this.layout.slots
      .filter(({ name }) => isPrunable(name) && (names?.has(name) ?? true))
      .map((slot) => [slot.name, matrixPlace(slot, this.#engine.memory)] as const);
    this.#engine.handedOut();
    await this.#executor.perform(task, places.map(([name, place]) => request(name, place)));
    this.#engine.maskChanged();
  }

  /**
   * Runs a task on the workers, once for each argument; gives the results in order. Settles first. What the task writes
   * must be none of the weights that masks zero.
   */
  async perform<A, R>(task: Task<A, R>, request: (memory: ParameterMemory) => readonly A[]): Promise<R[]> {
    await this.settle();
    this.#engine.handedOut();
    return await this.#executor.perform(task, request(this.#engine.memory));
  }

  /**
   * Begins a step: forward, backward, clip, update, mask. `step` counts from 1 and names the dropout masks. Of several
   * batches the gradients are averaged over all their sequences; the trainer must have been made for that.
   *
   * Resolves when the next step may begin, which on some devices is before this one is over. Gives what is known by now and
   * was not told before, of earlier steps too, in their order; `drain` has the rest.
   */
  advance(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<readonly StepResult[]> {
    return this.#engine.advance(batches, step, settings);
  }

  /** Waits for the steps that were begun; gives the results that were not told before, in order. */
  drain(): Promise<readonly StepResult[]> {
    return this.#engine.drain();
  }

  /** Takes one step as `advance` does, and waits for it: of steps that were begun before nothing is told. */
  async step(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<StepResult> {
    const known = await this.advance(batches, step, settings);
    return [...known, ...await this.drain()].at(-1)!;
  }

  /**
   * Loss and gradient of a batch without dropout, changing no weight: `gradients` then holds them, of all weights, pruned
   * ones too. Settles first.
   */
  gradient(batch: readonly Example[]): Promise<number> {
    return this.#engine.gradient(batch);
  }

  /** Loss and results without dropout, changing no number. */
  evaluate(batch: readonly Example[]): Promise<BatchAnswers> {
    return this.#engine.evaluate(batch);
  }

  /** The GPU that takes the steps; undefined where the workers do. */
  get gpu(): Pick<GpuExecutor, "adapter" | "lost"> | undefined {
    return this.#options.gpu;
  }

  /** Stops the workers, and leaves the device. */
  async dispose(): Promise<void> {
    try {
      await this.#engine.dispose();
    } finally {
      await this.#executor.dispose();
    }
  }

  get #maskView(): Uint32Array {
    const { buffer } = this.#executor.arena.memory;
    return new Uint32Array(buffer, this.#engine.memory.mask, this.layout.prunableLength / 32);
  }

  #flat(name: string, address: number): Float32Array {
    this.#checkSettled(name);
    this.#engine.handedOut();
    return this.#executor.arena.float32(address, this.layout.length);
  }

  #checkSettled(what: string): void {
    if (!this.isSettled) throw new Error(`Cannot read the ${what}: settle the trainer first`);
  }
}
