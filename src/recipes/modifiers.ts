/**
 * Modifiers: what a recipe asks for, as plain data, in the words of SparseML where it has them.
 *
 * Every modifier that begins and ends takes its places in epochs (`start_epoch`), as fractions of the run's steps
 * (`start_fraction`) or in steps (`start_step`); left out or −1, it spans the run. What is pruned stays pruned to the end
 * of the run.
 * @module
 */
import { InputError } from "../core/errors.ts";
import { movementDefaults } from "../pruning/movement.ts";
import { checkModifier } from "./checks.ts";
import { optional, type PlaceOf, readFields, required, type ValuesOf, withDefault } from "./fields.ts";
import {
  below,
  boolean,
  epoch,
  finalSparsity,
  frequency,
  gradientSampler,
  initSparsity,
  maskType,
  nonNegative,
  oneOf,
  options,
  params,
  positive,
  type RecipeMap,
  text,
  whole,
  within,
} from "./values.ts";

const start = {
  start_epoch: optional(epoch),
  start_fraction: optional(within(0, 1)),
  start_step: optional(whole(0)),
};

const span = {
  ...start,
  end_epoch: optional(epoch),
  end_fraction: optional(within(0, 1)),
  end_step: optional(whole(0)),
};

/** Fields of everything that prunes gradually. Left out, `params` is `__ALL_PRUNABLE__`. */
const gradual = {
  ...span,
  /** Epochs between mask refreshes; −1: refresh at every step. */
  update_frequency: optional(frequency),
  /** Instead: steps between refreshes. */
  update_steps: optional(whole(1)),
  /** Instead: refreshes between begin and end. */
  updates: optional(whole(1)),
  /** Sparsity of the first refresh. */
  init_sparsity: required(initSparsity),
  /** Sparsity of the last refresh. */
  final_sparsity: required(finalSparsity),
  params: withDefault(params, []),
  /** SparseML can let weights return after the end; here they stay pruned. */
  leave_enabled: withDefault(boolean, true),
  /** `polynomial` and `one-shot` (all at once, at the begin) are not in SparseML. */
  inter_func: withDefault(oneOf("linear", "cubic", "inverse_cubic", "polynomial", "one-shot"), "cubic"),
  /** Of `polynomial`. */
  exponent: optional(positive),
  mask_type: withDefault(maskType, "unstructured"),
};

const magnitude = {
  ...gradual,
  global_sparsity: withDefault(boolean, false),
  /** Older recipes choose the score here instead of by the modifier. */
  score_type: withDefault(oneOf("magnitude", "movement"), "magnitude"),
};

/** The fields of every modifier, by name. */
const modifierFields = {
  /** The length of the run. */
  EpochRangeModifier: {
    start_epoch: withDefault(within(-1, 0), 0),
    end_epoch: required(whole(1)),
  },
  /** A rate that follows a function from its begin to its end, and keeps the last value until another modifier begins. */
  LearningRateFunctionModifier: {
    ...span,
    lr_func: required(oneOf("linear", "cosine", "cyclic_linear")),
    init_lr: required(nonNegative),
    final_lr: required(nonNegative),
    /** Length of a cycle of `cyclic_linear`. */
    cycle_epochs: optional(positive),
  },
  /**
   * One of the schedules by name, `learning_rate` being its peak; the options are those of `ScheduleOptions`, of which each
   * schedule takes some. Not in SparseML.
   */
  LearningRateScheduleModifier: {
    ...span,
    schedule: required(text),
    learning_rate: required(positive),
    warmup_steps: optional(whole(0)),
    warmup_ratio: optional(within(0, 1)),
    end_ratio: optional(within(0, 1)),
    cycles: optional(whole(1)),
    power: optional(positive),
    cycle_epochs: optional(positive),
    cycle_steps: optional(whole(1)),
    pct_start: optional(within(0, 1)),
    anneal_strategy: optional(oneOf("cos", "linear")),
    div_factor: optional(positive),
    final_div_factor: optional(positive),
    three_phase: optional(boolean),
    cycle_momentum: optional(boolean),
    base_momentum: optional(below(0, 1)),
    max_momentum: optional(below(0, 1)),
  },
  /** A rate from some place on. */
  SetLearningRateModifier: { ...start, learning_rate: required(nonNegative) },
  /** A weight decay from some place on. */
  SetWeightDecayModifier: { ...start, weight_decay: required(within(0, 1)) },
  /** The optimiser and its constants, in PyTorch's words; each takes some of them. Not in SparseML. */
  OptimizerModifier: {
    optimizer: required(oneOf("adamw", "adam", "sgd", "rmsprop", "metaadamw")),
    beta1: optional(below(0, 1)),
    beta2: optional(below(0, 1)),
    epsilon: optional(positive),
    amsgrad: optional(boolean),
    momentum: optional(below(0, 1)),
    dampening: optional(below(0, 1)),
    nesterov: optional(boolean),
    alpha: optional(below(0, 1)),
    centered: optional(boolean),
    /** Of `metaadamw`: how its controller is made. */
    meta_mode: optional(text),
    /** Of `metaadamw`: what is to be different from the mode, in the words of `MetaOptions`; null is absent. */
    meta_options: optional(options),
  },
  /** Gradual magnitude pruning. */
  GMPruningModifier: magnitude,
  /** Another name of it. */
  MagnitudePruningModifier: magnitude,
  /** Gradual magnitude pruning that ranks the weights of all matrices together. */
  GlobalMagnitudePruningModifier: { ...gradual, global_sparsity: withDefault(boolean, true) },
  /** Movement pruning (arXiv 2005.07683). */
  MovementPruningModifier: {
    ...gradual,
    global_sparsity: withDefault(boolean, false),
    /** Learning rate of the scores. */
    score_learning_rate: withDefault(positive, movementDefaults.scoreLearningRate),
    /** Prunes by a threshold on the scores' sigmoid instead of by rank, under a `penalty`. Not in SparseML. */
    soft: withDefault(boolean, false),
    /** Of `soft`: what the mean of the sigmoids is multiplied by in the loss; default 400. */
    penalty: optional(nonNegative),
    /** Of `soft`: the sigmoid below which weights are pruned in the end; default 0.1. */
    threshold: optional(within(0, 1)),
  },
  /** The Optimal BERT Surgeon (arXiv 2203.07259). */
  OBSPruningModifier: {
    ...gradual,
    global_sparsity: withDefault(boolean, true),
    /** Gradients the Fisher matrix is estimated from. */
    num_grads: withDefault(whole(1), 1024),
    /** What is added to its diagonal. */
    damp: withDefault(positive, 1e-7),
    /** Size of its blocks. */
    fisher_block_size: withDefault(whole(1), 50),
    /** Estimates made on the way from one refresh's sparsity to the next. */
    num_recomputations: withDefault(whole(1), 1),
    /** Sequences in the mean that counts as one gradient. */
    grad_sampler_kwargs: optional(gradientSampler),
    /** Whether weights pruned together are made up for together. Not in SparseML. */
    jointly: optional(boolean),
  },
  /** Keeps what is zero at zero. */
  ConstantPruningModifier: { ...span, params: withDefault(params, []) },
  /** Knowledge distillation: loss = (1 − hardness) · task + hardness · distillation. */
  DistillationModifier: {
    ...span,
    hardness: withDefault(within(0, 1), 0.5),
    temperature: withDefault(positive, 2),
    /**
     * A model folder, or `dense`: this model just before it is pruned, which teaches from then on. SparseML and `--teacher`
     * give it outside of the recipe.
     */
    teacher: optional(text),
  },
} as const;

/** Name of a modifier. */
export type ModifierName = keyof typeof modifierFields;

/** A modifier of that name. */
export type ModifierOf<Name extends ModifierName> = Name extends ModifierName ?
    & {
      /** The kind of modifier. */
      readonly modifier: Name;
      /** Where it comes from, for messages: `recipe.yaml, line 12: GMPruningModifier`. */
      readonly place: string;
    }
    & ValuesOf<(typeof modifierFields)[Name]>
  : never;

/** Any modifier, told apart by `modifier`. */
export type Modifier = ModifierOf<ModifierName>;

/** The modifiers that prune gradually. */
export type GradualPruningModifier = Extract<Modifier, { readonly final_sparsity: unknown }>;

/** All names of modifiers. */
const modifierNames: readonly ModifierName[] = Object.freeze(
  Object.keys(modifierFields) as ModifierName[],
);

/**
 * Makes a modifier from its fields; left-out ones get their defaults.
 * @param placeOf Where a field, or the modifier, comes from: `recipe.yaml, line 12`; the modifier's name is added.
 * @throws InputError for an unknown modifier or field, a value of the wrong kind, or fields that contradict each other.
 */
export function makeModifier(name: string, fields: RecipeMap, placeOf: PlaceOf): Modifier {
  const known = modifierNames.find((each) => each === name);
  if (!known) {
    throw new InputError(
      `${placeOf()}: there is no modifier ${name}: wanted one of ${modifierNames.join(", ")}`,
    );
  }
  const named: PlaceOf = (field) => `${placeOf(field)}: ${name}`;
  const values = readFields(modifierFields[known], fields, named);
  const modifier = { modifier: known, place: named(), ...values } as unknown as Modifier;
  checkModifier(modifier);
  return modifier;
}
