/**
 * What an optimiser is here: the arithmetic of one step on one parameter, in plain numbers, in vectors and in WGSL.
 *
 * Everything around it is written once: the pass over memory (`kernel.ts`), its steps in a plan (`steps.ts`), the shader
 * (`wgsl.ts`), the loop of the references (`reference.ts`). The rules are those of PyTorch's `torch.optim`, in its order of operations.
 * @module
 */
import type { Integer, Vector, VectorMachine } from "../../assemblers/vector_machine.ts";

/** Adam (Kingma and Ba, arXiv 1412.6980) and AdamW (Loshchilov and Hutter, arXiv 1711.05101). */
export interface AdamSettings {
  readonly name: "adamw" | "adam";
  /** Share of the first moment that is kept each step, in [0, 1). */
  readonly beta1: number;
  /** Share of the second moment that is kept each step, in [0, 1). */
  readonly beta2: number;
  /** Added to the root of the corrected second moment; above 0. */
  readonly epsilon: number;
  /** Whether the largest second moment so far divides, instead of the latest (Reddi et al., arXiv 1904.09237). */
  readonly amsgrad: boolean;
}

/** Stochastic gradient descent. */
export interface SgdSettings {
  readonly name: "sgd";
  /** Share of the buffer that is kept each step, in [0, 1); 0: no buffer. */
  readonly momentum: number;
  /** Share of the gradient that is kept out of the buffer, in [0, 1]. Without a buffer it says nothing. */
  readonly dampening: number;
  /** Whether weights move by the buffer of the next step. Wants a momentum above 0 and a dampening of 0. */
  readonly nesterov: boolean;
}

/** RMSprop (Tieleman and Hinton; centred: Graves, arXiv 1308.0850). */
export interface RmspropSettings {
  readonly name: "rmsprop";
  /** Share of the averages that is kept each step, in [0, 1). */
  readonly alpha: number;
  /** Added to the root; above 0. */
  readonly epsilon: number;
  /** Share of the buffer that is kept each step, in [0, 1); 0: no buffer. */
  readonly momentum: number;
  /** Whether the root is of the gradient's variance, instead of its mean square. */
  readonly centered: boolean;
}

/** An optimiser and its constants. The learning rate and the decay come with each step. */
export type OptimizerSettings = AdamSettings | SgdSettings | RmspropSettings;

/** What a step is told for one group of parameters. */
export interface GroupStep {
  readonly learningRate: number;
  /** AdamW: times the learning rate, the share of a weight that decays. The others: the share added to its gradient. */
  readonly weightDecay: number;
  /** In place of β₁ (Adam, AdamW) or of the momentum (SGD, RMSprop), where a schedule cycles it; in [0, 1). */
  readonly momentum?: number;
}

/** Numbers of a reference: f64 to be exact, f32 to round as parameters do when they are stored. */
export type FloatArray = Float64Array | Float32Array;

/** A range of parameters and the optimiser's memory of them, updated in place. */
export interface ReferenceState {
  readonly weights: FloatArray;
  /** As `UpdateRule.states` lists them, each as long as the weights. All zero before the first step. */
  readonly states: readonly FloatArray[];
}

/** Constants in every lane. */
export interface Constants {
  readonly zero: Vector;
  /** Moments nearer to zero than this become zero. */
  readonly smallest: Vector;
  /** Every bit but the sign. */
  readonly signless: Vector;
}

/** A vector of parameters and of each of their states, in registers. */
export interface Element {
  readonly w: Vector;
  readonly states: readonly Vector[];
}

/** One optimiser with its constants. Its step on a parameter depends on that parameter, its gradient and scalars alone. */
export interface UpdateRule {
  /** Names the kernel: the optimiser and what is compiled in. Rules with the same key emit the same code. */
  readonly key: string;
  /** Names of the arrays that the optimiser remembers, one element a parameter: three at most. */
  readonly states: readonly string[];
  /** Names of the f32 words of the scalars block: all that changes from step to step or between groups. */
  readonly scalars: readonly string[];
  /** Whether a step without a gradient can be replayed later from its scalars alone: see `lazy.ts`. */
  readonly lazy: boolean;
  /** Whether `GroupStep.momentum` has something to replace; where it has not, giving one is an InputError. */
  readonly takesMomentum: boolean;

  /** The scalars block of a step, counted from 1. Powers and quotients are formed in f64. */
  scalarsOf(group: GroupStep, step: number): Float32Array;

  /**
   * One step, counted from 1. The gradient is `clip` times what `gradients` holds; a clip factor that is not finite
   * leaves everything unchanged. Where the mask has a zero bit, the weight and all its states become 0.
   */
  reference(
    state: ReferenceState,
    gradients: ArrayLike<number>,
    group: GroupStep,
    step: number,
    clip?: number,
    mask?: Uint32Array,
  ): void;

  /**
   * Emits the step of one vector. `gradient` is the clipped gradient and is destroyed; `scalars` points to the block.
   * Takes at most two vector registers of its own.
   */
  emit(
    vm: VectorMachine,
    element: Element,
    gradient: Vector,
    scalars: Integer,
    constants: Constants,
  ): void;

  /**
   * The same step as WGSL statements, on variables of type `V`: `w`, `g` (the clipped gradient) and the states by their
   * names. The scalars block is the struct `scalars`; `flush(V) -> V` makes zero of moments too small to keep.
   */
  readonly wgsl: string;
}

/** Throws a RangeError when a range does not have the states of the rule. */
export function checkStates({ key, states }: UpdateRule, count: number): void {
  if (count === states.length) return;
  const wanted = [states.length, ...states].join(" ");
  throw new RangeError(`Cannot update with ${key}: a range has ${count} states, wanted ${wanted}`);
}
