/**
 * What runs a trainer's batches: the workers of the CPU (`cpu_engine.ts`) or a GPU (`gpu_engine.ts`).
 *
 * Both train the parameters that lie in the arena at `memory`. While steps are taken a device may have them in another form
 * or place; `settle` brings them back, and whoever changes them there says so.
 * @module
 */
import { type RandomKey, randomKey } from "../core/random.ts";
import { type LossScale, smallestLossScale } from "../kernels/loss_scale/reference.ts";
import type { PruningScope } from "../pruning/method.ts";
import type { Pattern } from "../pruning/pattern.ts";
import type { ParameterMemory } from "./memory.ts";
import type { MovementPart } from "./movement_part.ts";
import type { StepSettings } from "./step_settings.ts";

/** What one optimiser step did. */
export interface StepResult {
  /** Mean over the batch. */
  readonly loss: number;
  /** Global norm of the gradients before clipping. Not finite: the step changed nothing. */
  readonly gradientNorm: number;
  /** The scale of the loss after it, where there is one: it fell if the norm is not finite. */
  readonly lossScale?: number;
}

/** Whether a step was skipped because the scale of its loss was too large, and a smaller one is left to try. */
export function isSkipped({ gradientNorm, lossScale }: StepResult): boolean {
  return !Number.isFinite(gradientNorm) && lossScale !== undefined && lossScale > smallestLossScale;
}

/** Loss and results of one evaluation batch. */
export interface BatchAnswers {
  /** Mean over the batch. */
  readonly loss: number;
  /** The results that the model names, by name. */
  readonly outputs: ReadonlyMap<string, BatchOutput>;
}

/** A result of a batch: a matrix, row-major. */
export interface BatchOutput {
  /** [rows, stride] */
  readonly values: Float32Array;
  readonly rows: number;
  /** Columns; those beyond the batch hold nothing of interest. */
  readonly stride: number;
}

/** What masks by magnitude are to become. */
export interface MagnitudeRefresh {
  /** Weight names of the matrices. */
  readonly names: ReadonlySet<string>;
  readonly pattern: Pattern;
  readonly scope: PruningScope;
  /** Share of the weights of each matrix, or of all together. */
  readonly sparsity: number;
}

/** Runs the batches of a trainer, one call at a time. */
export interface StepEngine<Example> {
  /** Where the parameters lie, and what belongs to each of them. */
  readonly memory: ParameterMemory;
  /** Scores of movement pruning, where they can be trained and were asked for. */
  readonly movement?: MovementPart;
  /** Whether what lies at `memory` is what was trained. */
  readonly isSettled: boolean;
  /** Matrices that the last step ran with sparse kernels. */
  readonly sparseMatrices: number;
  /** The scale of the loss, where activations are float16: as it was when the engine was last settled. */
  readonly lossScale?: LossScale;
  /** Goes on with a scale; does nothing where there is none. */
  restoreLossScale(scale: LossScale): void;
  /** Begins a step, and resolves when the next may begin: with the results that are new, those of earlier steps too. */
  advance(
    batches: readonly (readonly Example[])[],
    step: number,
    settings: StepSettings,
  ): Promise<readonly StepResult[]>;
  /** Waits for all steps; gives the results that are new. */
  drain(): Promise<readonly StepResult[]>;
  /** Loss without dropout; the gradients are at `memory` then. */
  gradient(batch: readonly Example[]): Promise<number>;
  /** Loss and results without dropout. */
  evaluate(batch: readonly Example[]): Promise<BatchAnswers>;
  /** Brings weights and states to `memory`. */
  settle(): Promise<void>;
  /** To be called when somebody may change what lies at `memory`, before the next step or evaluation. */
  handedOut(): void;
  /** To be called when the mask has changed. */
  maskChanged(): void;
  /**
   * Renews masks by magnitude where the parameters are while steps are taken, and those at `memory`. False, and nothing done:
   * it is for the workers to do, on what lies at `memory`.
   */
  pruneByMagnitude(refresh: MagnitudeRefresh): Promise<boolean>;
  /** To be called when scores begin or end to be trained. */
  movementChanged(): void;
  /** Frees all but the arena. */
  dispose(): Promise<void>;
}

/** What is random in a batch is named by the step, which counts from 1, and the batch's place in it. */
export interface Draw {
  readonly step: number;
  readonly part: number;
}

/** The first batch of a step has the step's own key, so that a step of one batch draws the same however it is made. */
export function drawKey(seed: number, purpose: "batch" | "dropout", { step, part }: Draw): RandomKey {
  return randomKey(seed, purpose, step, ...(part === 0 ? [] : [part]));
}
