/**
 * Movement pruning inside the trainer: scores with an optimiser of their own, and the weights that sleep.
 *
 * While it is active, gradients are those of all weights, pruned ones too, so that the scores of pruned weights are trained
 * as well; the matrices run dense. Two steps are added to those of an update: the scores' gradients before the weights
 * change, and the scores' update after.
 * @module
 */
import type { Step } from "../graph/operation.ts";
import { movementSteps } from "../kernels/movement/steps.ts";
import { updateRule } from "../kernels/optimizer/optimizers.ts";
import type { OptimizerSettings, UpdateRule } from "../kernels/optimizer/rule.ts";
import { updateSteps } from "../kernels/optimizer/steps.ts";
import type { Allocator, Arena } from "../plan/arena.ts";
import type { TrainingMemory } from "./memory.ts";
import type { ParameterLayout } from "./parameters.ts";

/** What movement pruning is doing: all that a resumed run must know besides the arrays. */
export interface MovementActivity {
  /** Weight names of the matrices. */
  readonly names: readonly string[];
  /** Whether scores are under a penalty. */
  readonly isSoft: boolean;
  /** Steps that the scores have taken. */
  steps: number;
}

/** What a step is told about scores. */
export interface ScoreStep {
  readonly learningRate: number;
  /** λ of soft movement's penalty on the mean sigmoid. */
  readonly penalty?: number;
}

/** What the steps of an update are made for. */
export interface MovementStepsRequest {
  readonly memory: TrainingMemory;
  /** Where the gradients lie that the update is of. */
  readonly gradients: number;
  readonly workers: number;
}

/** The scores of all prunable matrices. Their arrays have the order of the layout's prunable range. */
export class MovementPart {
  /** The scores' optimiser. */
  readonly rule: UpdateRule;
  readonly #layout: ParameterLayout;
  readonly #scores: number;
  readonly #dormant: number;
  readonly #states: readonly number[];
  readonly #gradients: number;
  readonly #scalars: number;
  readonly #penalty: number;
  #arena: Arena | undefined;
  #activity: MovementActivity | undefined;
  #told: ScoreStep | undefined;

  /** Reserves memory. With a made-up allocator, to learn how much that takes, nothing else may be called. */
  constructor(layout: ParameterLayout, optimizer: OptimizerSettings, allocator: Allocator) {
    this.rule = updateRule(optimizer);
    this.#layout = layout;
    const take = (elements: number, purpose: string) => allocator.allocate(4 * elements, purpose);
    const length = layout.prunableLength;
    this.#scores = take(length, "scores");
    this.#dormant = take(length, "dormant weights");
    this.#states = this.rule.states.map((name) => take(length, `${name} of scores`));
    this.#gradients = take(length, "gradients of scores");
    this.#scalars = take(this.rule.scalars.length, "scalars of scores");
    this.#penalty = take(1, "penalty");
  }

  /** Gives the arena that the memory was reserved of. */
  attach(arena: Arena): void {
    this.#arena = arena;
  }

  /** What is going on; undefined: nothing. */
  get activity(): Readonly<MovementActivity> | undefined {
    return this.#activity;
  }

  /** Begins, or goes on as it was. All scores are 0 then, and no weight sleeps: `arrays` may be filled. */
  begin(activity: MovementActivity): void {
    for (const name of activity.names) {
      if (this.#layout.slot(name).offset < this.#layout.prunableLength) continue;
      throw new RangeError(`Cannot prune ${name}: it is not prunable`);
    }
    for (const array of this.arrays.values()) array.fill(0);
    this.#activity = { ...activity };
    this.#told = undefined;
  }

  /** Ends: weights that sleep are lost. */
  end(): void {
    this.#activity = undefined;
  }

  /** Scores, dormant weights and the states of scores, by name: live views, to be saved and restored. */
  get arrays(): ReadonlyMap<string, Float32Array> {
    const entries: [string, number][] = [
      ["scores", this.#scores],
      ["dormant", this.#dormant],
      ...this.rule.states.map((name, index): [string, number] => [`scores.${name}`, this.#states[index]]),
    ];
    const { prunableLength } = this.#layout;
    return new Map(entries.map(([name, address]) => [name, this.#attached.float32(address, prunableLength)]));
  }

  /** Where the scores and the dormant weights of a matrix lie, in bytes from the arena's start. */
  place(name: string): { readonly scores: number; readonly dormant: number } {
    const offset = 4 * this.#layout.slot(name).offset;
    return { scores: this.#scores + offset, dormant: this.#dormant + offset };
  }

  /** Says how scores are to be updated, from the next step on. */
  tell(step: ScoreStep): void {
    this.#told = step;
  }

  /** Writes what the next step's kernels read. */
  beforeStep(): void {
    if (!this.#activity) return;
    if (!this.#told) throw new Error("Cannot take a step: the scores' learning rate was not told");
    const { learningRate, penalty = 0 } = this.#told;
    const step = ++this.#activity.steps;
    const scalars = this.rule.scalarsOf({ learningRate, weightDecay: 0 }, step);
    this.#attached.float32(this.#scalars, scalars.length).set(scalars);
    this.#attached.float32(this.#penalty, 1)[0] = penalty;
  }

  /**
   * Steps before and after those that update the weights; none where nothing is going on. The clip factor of the weights'
   * gradients is that of the scores' too: they are gradients of one loss.
   */
  steps({ memory, gradients, workers }: MovementStepsRequest): { before: Step[]; after: Step[] } {
    if (!this.#activity) return { before: [], after: [] };
    const { names, isSoft } = this.#activity;
    const slots = names.map((name) => this.#layout.slot(name));
    const before = movementSteps({
      ranges: slots.map(({ offset, length }) => ({
        gradients: gradients + 4 * offset,
        weights: memory.weights + 4 * offset,
        dormant: this.#dormant + 4 * offset,
        scores: this.#scores + 4 * offset,
        target: this.#gradients + 4 * offset,
        count: length,
      })),
      penalty: isSoft ? this.#penalty : undefined,
      workers,
    });
    const after = updateSteps({
      rule: this.rule,
      ranges: slots.map(({ offset, length }) => ({
        weights: this.#scores + 4 * offset,
        states: this.#states.map((address) => address + 4 * offset),
        gradients: this.#gradients + 4 * offset,
        scalars: this.#scalars,
        count: length,
      })),
      clip: memory.norm + 4,
      workers,
    });
    return { before, after };
  }

  get #attached(): Arena {
    if (!this.#arena) throw new Error("Cannot prune by movement: the arena is not attached");
    return this.#arena;
  }
}
