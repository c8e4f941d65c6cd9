/**
 * MetaAdamW beside a trainer: before a step it gives each parameter group of the trainer its factors. `options.ts` tells
 * what MetaAdamW is.
 *
 *     const grouping = metaOptions(mode).grouping;
 *     const { slots } = parameterLayoutOf(model);
 *     const trainer = await Trainer.create({ …, groups: { split: metaGroupNames(slots, grouping) } });
 *     const meta = new MetaAdamW(trainer, { options, optimizer, maximumNorm, totalSteps, stepsPerEpoch, seed });
 *     …
 *     const told = { learningRate, weightDecay, momentum };
 *     const factors = await meta.beforeStep({ completedSteps, told, batch, other, validation });
 *     await trainer.step([batch], completedSteps + 1, { ...told, factors });
 *
 * Every `refreshEvery` steps it takes the gradient of the step's own batch once more, without dropout, and measures all
 * parameters; so features are of the present gradient and of the moments before it, as in the paper's Algorithm 1. Every
 * `updateEvery` steps after the warm-up the encoder learns from that very step, before it is taken, and the factors follow.
 * Between these steps it costs nothing. Where several batches make a step, the first of them stands for all.
 *
 * Pruned weights are not there: no statistic, gradient or hypothetical step has them.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import type { GroupStep, OptimizerSettings } from "../../kernels/optimizer/rule.ts";
import type { ParameterSlot } from "../parameters.ts";
import type { GroupFactors } from "../step_settings.ts";
import { constantFactors, type ControllerState, type Factors, MetaController } from "./controller.ts";
import type { GroupTensor } from "./features.ts";
import { isBias, lastLayerOf, layerOf, type MetaGroup, metaGroups } from "./groups.ts";
import { MetaBuffers } from "./hypothetical_step.ts";
import { type MetaGradient, metaGradient } from "./meta_update.ts";
import { hasTerm, type MetaOptions, warmupSteps } from "./options.ts";
import { type MetaTrainer, ParameterVectors } from "./parameter_vectors.ts";
import type { TensorStatistics } from "./statistics.ts";

/** What MetaAdamW is made for. */
export interface MetaAdamWOptions {
  readonly options: MetaOptions;
  /** The trainer's; AdamW without AMSGrad. */
  readonly optimizer: OptimizerSettings;
  /** The trainer's. */
  readonly maximumNorm: number;
  /** Steps of the run. */
  readonly totalSteps: number;
  readonly stepsPerEpoch: number;
  readonly seed: number;
  /** Length of a finite difference; see `StepRequest`. */
  readonly differenceStep?: number;
}

/** The step to come. */
export interface MetaStep<Example> {
  readonly completedSteps: number;
  /** What all groups are told, before factors. */
  readonly told: GroupStep;
  /** The batch of the step. */
  readonly batch: readonly Example[];
  /** Another batch of training examples; called at meta-updates that have the gradient term. */
  readonly other: () => readonly Example[];
  /** A batch of held-out examples (`metaValidationBatch`) for a meta-update, counted from 0. */
  readonly validation: (update: number) => readonly Example[];
}

/** What resuming needs, besides the trainer's state. JSON keeps every number of it. */
export interface MetaState {
  readonly controller: ControllerState;
  /** Of each group, as they are until the next refresh. */
  readonly alpha: readonly number[];
  readonly beta: readonly number[];
}

/** The last meta-update, for reports. */
export interface MetaUpdate extends Pick<MetaGradient, "value" | "losses"> {
  /** Steps that were completed before it. */
  readonly completedSteps: number;
  /** False: a gradient was not finite, so nothing was learnt. */
  readonly learnt: boolean;
}

/** Gives factors to a trainer's groups. */
export class MetaAdamW<Example> {
  readonly groups: readonly MetaGroup[];
  readonly #trainer: MetaTrainer<Example>;
  readonly #options: MetaAdamWOptions;
  readonly #constants: { readonly beta1: number; readonly beta2: number; readonly epsilon: number };
  readonly #controller: MetaController;
  readonly #vectors: ParameterVectors;
  readonly #buffers = new MetaBuffers();
  readonly #lastLayer: number;
  /** Numbers of the meta-groups: of each parameter, and of each group of the trainer. */
  readonly #groupOf = new Map<string, number>();
  readonly #metaGroups: readonly number[];
  #factors: Factors;
  #lastUpdate: MetaUpdate | undefined;

  /** Throws `InputError` for another optimiser than AdamW. */
  constructor(trainer: MetaTrainer<Example>, options: MetaAdamWOptions) {
    const { optimizer, options: { grouping, fixed }, seed } = options;
    if (optimizer.name !== "adamw" || optimizer.amsgrad) {
      const found = optimizer.name === "adamw" ? "adamw with amsgrad" : optimizer.name;
      throw new InputError(`MetaAdamW's optimizer is ${found}: wanted adamw without amsgrad`);
    }
    const { slots } = trainer.layout;
    const trained = new Set(trainer.groups.flatMap(({ names }) => [...names]));
    this.#trainer = trainer;
    this.#options = options;
    this.#constants = optimizer;
    this.#lastLayer = lastLayerOf(slots);
    this.groups = metaGroups(slots, grouping, ({ name }) => trained.has(name));
    this.groups.forEach((group, index) => {
      for (const slot of group.slots) this.#groupOf.set(slots[slot].name, index);
    });
    this.#metaGroups = trainer.groups.map(({ names }) => {
      const found = new Set(Array.from(names, (name) => this.#groupOf.get(name)!));
      if (found.size === 1) return [...found][0];
      throw new Error(`Cannot scale a group of ${[...names].join(", ")}: split the trainer's groups alike`);
    });
    this.#vectors = new ParameterVectors(trainer);
    this.#controller = new MetaController(this.groups.map(({ name }) => name), options.options, seed);
    this.#factors = constantFactors(this.groups.length, fixed?.alpha ?? 1, fixed?.beta ?? 1);
  }

  /** The factors in force, by group of `groups`. */
  get factors(): Factors {
    return this.#factors;
  }

  /** The last meta-update of this sitting. */
  get lastUpdate(): MetaUpdate | undefined {
    return this.#lastUpdate;
  }

  /** Bytes that meta-updates take besides the trainer's: two copies of the parameters, three with the gradient term. */
  get bufferBytes(): number {
    const { options } = this.#options;
    if (!options.learns || options.fixed) return 0;
    return (hasTerm(options, "gradient") ? 3 : 2) * this.#trainer.gradients.byteLength;
  }

  /** Factors for the step to come, by group of the trainer: what `StepSettings.factors` wants. */
  async beforeStep(step: MetaStep<Example>): Promise<readonly GroupFactors[]> {
    const { options } = this.#options;
    const updates = this.#updatesAt(step.completedSteps);
    if (!options.fixed && (updates || step.completedSteps % options.refreshEvery === 0)) {
      await this.#refresh(step, updates);
    }
    const { alpha, beta } = this.#factors;
    return this.#metaGroups.map((g) => ({ learningRate: alpha[g], weightDecay: beta[g] }));
  }

  /** All that a resumed run needs to go on to the same numbers. */
  state(): MetaState {
    const { alpha, beta } = this.#factors;
    return { controller: this.#controller.state(), alpha: [...alpha], beta: [...beta] };
  }

  /** Goes on from a state. Throws `InputError` for one of other groups or sizes. */
  restore({ controller, alpha, beta }: MetaState): void {
    const count = this.groups.length;
    if (alpha?.length !== count || beta?.length !== count) {
      throw new InputError(
        `MetaAdamW's saved factors are ${alpha?.length} and ${beta?.length}: wanted ${count} of each`,
      );
    }
    this.#controller.restore(controller);
    const { lambda1, lambda2 } = this.#factors;
    this.#factors = { alpha: Float64Array.from(alpha), beta: Float64Array.from(beta), lambda1, lambda2 };
  }

  #updatesAt(completedSteps: number): boolean {
    const { options, totalSteps, stepsPerEpoch } = this.#options;
    const first = Math.max(1, warmupSteps(options, { totalSteps, stepsPerEpoch }));
    return options.learns && !options.fixed && completedSteps >= first &&
      completedSteps % options.updateEvery === 0;
  }

  /** New factors, from an encoder that has learnt if it is time. Numbers that are not finite leave all as it was. */
  async #refresh(step: MetaStep<Example>, updates: boolean): Promise<void> {
    const { totalSteps } = this.#options;
    const controller = this.#controller;
    const loss = await this.#trainer.gradient(step.batch);
    const statistics = await this.#measure();
    if (!statistics.every((each) => Object.values(each).every(Number.isFinite))) return;
    const tensors = this.#tensors(statistics);
    const time = step.completedSteps / totalSteps;
    this.#factors = controller.factors(tensors, time);
    if (!updates) return;
    const { value, losses, factors, uncertainties } = await this.#gradient(step, loss, statistics);
    const learnt = controller.learn(factors, uncertainties);
    this.#lastUpdate = { completedSteps: step.completedSteps, value, losses, learnt };
    if (learnt) this.#factors = controller.factors(tensors, time);
  }

  /** Of the trained parameters, in order. */
  async #measure(): Promise<TensorStatistics[]> {
    const trainer = this.#trainer;
    const sums = await this.#vectors.run("measure", (stretch) => {
      const { begin, end } = stretch;
      return {
        gradients: trainer.gradients.subarray(begin, end),
        firstMoment: trainer.states.get("firstMoment")!.subarray(begin, end),
        secondMoment: trainer.states.get("secondMoment")!.subarray(begin, end),
        weights: trainer.weights.subarray(begin, end),
        mask: this.#vectors.maskOf(stretch),
      };
    });
    return this.#vectors.slots.map((slot) => sums.get(slot)!);
  }

  #tensors(statistics: readonly TensorStatistics[]): GroupTensor[][] {
    const tensors: GroupTensor[][] = this.groups.map(() => []);
    this.#vectors.slots.forEach((slot, index) =>
      tensors[this.#groupOf.get(slot.name)!].push({
        statistics: statistics[index],
        isBias: isBias(slot),
        depth: this.#lastLayer === 0 ? 0 : (layerOf(slot.name) ?? 0) / this.#lastLayer,
      })
    );
    return tensors;
  }

  #gradient(
    { completedSteps, told, batch, other, validation }: MetaStep<Example>,
    loss: number,
    statistics: readonly TensorStatistics[],
  ): Promise<MetaGradient> {
    const { options, maximumNorm, differenceStep } = this.#options;
    const { beta1, beta2, epsilon } = this.#constants;
    const norm = Math.sqrt(statistics.reduce((sum, { gradientSquares }) => sum + gradientSquares, 0));
    const tellings = new Map(
      this.#trainer.groups.flatMap(({ names, decayed, rateFactor }) => {
        const telling = {
          learningRate: told.learningRate * rateFactor,
          weightDecay: decayed ? told.weightDecay : 0,
        };
        return Array.from(names, (name) => [name, telling] as const);
      }),
    );
    return metaGradient(this.#trainer, this.#vectors, this.#buffers, {
      batch,
      loss,
      other,
      validation: () => validation(this.#controller.updates),
      scalars: {
        clip: maximumNorm > 0 ? Math.min(1, maximumNorm / (norm + 1e-6)) : 1,
        beta1: told.momentum ?? beta1,
        beta2,
        epsilon,
        step: completedSteps + 1,
      },
      told: ({ name }: ParameterSlot) => tellings.get(name)!,
      groupOf: ({ name }: ParameterSlot) => this.#groupOf.get(name)!,
      factors: this.#factors,
      uncertainties: this.#controller.uncertainties,
      options,
      differenceStep,
    });
  }
}
