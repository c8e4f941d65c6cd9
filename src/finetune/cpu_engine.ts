/**
 * Steps on the CPU's workers, in the arena in which the parameters lie.
 *
 * Between steps the parameters may be in a form that only kernels read: pruned matrices compact (`compact.ts`), rows of
 * the lookup table behind (`lazy_table.ts`).
 * @module
 */
import type { Executor } from "../plan/executor.ts";
import { BatchPrograms } from "./batch_programs.ts";
import type { TrainingMemory } from "./memory.ts";
import type { MovementPart } from "./movement_part.ts";
import type { BatchAnswers, StepEngine, StepResult } from "./step_engine.ts";
import { groupScalars, type StepSettings } from "./step_settings.ts";
import { placeTrainer, type TrainerNeeds, type TrainerOptions, type TrainerPlaces } from "./trainer_needs.ts";

/** Trains in an executor's arena. */
export class CpuEngine<Example> implements StepEngine<Example> {
  readonly #options: TrainerOptions<Example>;
  readonly #needs: TrainerNeeds;
  readonly #executor: Executor;
  readonly #places: TrainerPlaces;
  readonly #programs: BatchPrograms<Example>;

  /** Takes all of the executor's arena. */
  constructor(options: TrainerOptions<Example>, needs: TrainerNeeds, executor: Executor) {
    this.#options = options;
    this.#needs = needs;
    this.#executor = executor;
    this.#places = placeTrainer(options, needs, executor.arena);
    this.#programs = new BatchPrograms(options, needs, this.#places, executor);
  }

  get memory(): TrainingMemory {
    return this.#places.memory;
  }

  get movement(): MovementPart | undefined {
    return this.#places.parts.movement;
  }

  get isSettled(): boolean {
    const { compact, lazy } = this.#places.parts;
    return compact.compacted.size === 0 && (lazy?.history.length ?? 0) === 0;
  }

  get sparseMatrices(): number {
    return this.#places.parts.compact.compacted.size;
  }

  async settle(): Promise<void> {
    await this.#programs.flush();
    await this.#places.parts.compact.expand(this.#executor);
  }

  /** Steps are over when they are through: their results are the new ones. */
  async advance(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<readonly StepResult[]> {
    const { arena } = this.#executor;
    const { lazy } = this.#places.parts;
    if (lazy?.history.isFull) await this.#programs.flush();
    await this.#compact();
    this.#writeScalars(step, settings);
    this.movement?.beforeStep();
    const loss = this.#options.accumulates
      ? await this.#accumulate(batches, step)
      : await this.#programs.run("train", batches[0], { step, part: 0 });
    const [gradientNorm, clip] = arena.float32(this.memory.norm, 2);
    lazy?.history.end(clip);
    return [{ loss, gradientNorm }];
  }

  drain(): Promise<readonly StepResult[]> {
    return Promise.resolve([]);
  }

  async gradient(batch: readonly Example[]): Promise<number> {
    await this.settle();
    return await this.#programs.run("gradient", batch);
  }

  async evaluate(batch: readonly Example[]): Promise<BatchAnswers> {
    await this.#programs.flush();
    await this.#compact();
    return await this.#programs.evaluate(batch);
  }

  /** Nothing is to be done: kernels read the arena itself. */
  handedOut(): void {}

  maskChanged(): void {
    this.#places.parts.compact.maskChanged();
  }

  pruneByMagnitude(): Promise<boolean> {
    return Promise.resolve(false);
  }

  restoreLossScale(): void {}

  movementChanged(): void {
    this.#programs.forget();
  }

  dispose(): Promise<void> {
    return Promise.resolve();
  }

  /** Makes sparse matrices compact, where nobody needs the gradients of what is pruned. */
  async #compact(): Promise<void> {
    if (this.#options.sparse === false || this.movement?.activity) return;
    if (await this.#places.parts.compact.compact(this.#executor)) this.#programs.forget();
  }

  #writeScalars(step: number, settings: StepSettings): void {
    const { rule, groups } = this.#needs;
    const { lazy } = this.#places.parts;
    const blocks = groupScalars(rule, groups, step, settings);
    for (const [index, scalars] of blocks.entries()) {
      this.#executor.arena.float32(this.memory.scalars[index], scalars.length).set(scalars);
      if (lazy && groups[index].names.has(lazy.name)) lazy.history.begin(scalars);
    }
  }

  /** Sums up the gradients of batches, each with its share of the sequences, and updates. Gives the mean loss. */
  async #accumulate(batches: readonly (readonly Example[])[], step: number): Promise<number> {
    const { arena } = this.#executor;
    const total = batches.reduce((sum, { length }) => sum + length, 0);
    let loss = 0;
    for (const [part, batch] of batches.entries()) {
      const share = batch.length / total;
      arena.float32(this.memory.batchShare, 1)[0] = share;
      loss += share * await this.#programs.run(part === 0 ? "begin" : "accumulate", batch, { step, part });
    }
    await this.#programs.update();
    return loss;
  }
}
