/**
 * What the flags of a command ask for, as the modifiers that say the same.
 * @module
 */
import { obertDefaults, type ObertOptions } from "../pruning/obert/options.ts";
import type { PruningMethodName, PruningOptions } from "../pruning/options.ts";
import { makeModifier, type Modifier, type ModifierName } from "./modifiers.ts";
import { type RecipeValue, recipeValueOf } from "./values.ts";

/** Options by name; undefined ones are not said. */
export type FlagOptions = Readonly<Record<string, RecipeValue | undefined>>;

/** Settings that have modifiers. What is absent makes none. */
export interface FlagSettings {
  /** Passes over the training data. */
  readonly epochs?: number;
  /** The schedule of the learning rate. */
  readonly learningRate?: {
    /** Name of the schedule. */
    readonly schedule: string;
    readonly peak: number;
    /** The options of `ScheduleOptions`, by their names there. */
    readonly options?: FlagOptions;
  };
  /** Decay of weights. */
  readonly weightDecay?: number;
  /** The optimiser, with those of its constants that are said. */
  readonly optimizer?: {
    readonly name: string;
    readonly constants?: FlagOptions;
    /** Of MetaAdamW. */
    readonly metaMode?: string;
    /** The same: what is to be different from the mode. */
    readonly metaOptions?: object;
  };
  /** Pruning; places are fractions of the run's steps. */
  readonly pruning?: PruningFlags;
  /** Distillation over the whole run. */
  readonly distillation?: {
    readonly teacher?: string;
    readonly hardness: number;
    readonly temperature: number;
  };
}

/** Settings of pruning. Constants that are absent have the defaults of `movementDefaults` and `obertDefaults`. */
export interface PruningFlags extends PruningOptions {
  /** How weights are chosen. `constant` takes `targets` alone. */
  readonly method: PruningMethodName;
  /** Share of zeros in the end. */
  readonly sparsity: number;
  /** Share of zeros at the first refresh; default 0. */
  readonly initialSparsity?: number;
  /** How the sparsity rises: `inter_func`; default cubic. */
  readonly schedule?: string;
  readonly pattern: string;
  readonly scope: "layer" | "global";
  /** Names, `re:` expressions; default all that can be pruned. */
  readonly targets?: readonly string[];
  /** Fraction of the run at the first refresh. */
  readonly begin: number;
  /** Fraction of the run at the last. */
  readonly end: number;
  /** Refreshes between the two; default at every step. */
  readonly refreshes?: number;
}

/** Throws InputError for values that the modifiers refuse. */
export function modifiersOfFlags(flags: FlagSettings): Modifier[] {
  const { epochs, learningRate, weightDecay, optimizer, pruning, distillation } = flags;
  const modifiers: Modifier[] = [];
  const add = (name: ModifierName, fields: FlagOptions) => modifiers.push(fromFlags(name, fields));
  if (epochs !== undefined) add("EpochRangeModifier", { end_epoch: epochs });
  if (optimizer) {
    const { name, constants, metaMode, metaOptions } = optimizer;
    add("OptimizerModifier", {
      optimizer: name,
      ...constants,
      meta_mode: metaMode,
      meta_options: metaOptions && recipeValueOf(metaOptions),
    });
  }
  if (learningRate) {
    const { schedule, peak, options } = learningRate;
    add("LearningRateScheduleModifier", { schedule, learning_rate: peak, ...snakeCase(options) });
  }
  if (weightDecay !== undefined) add("SetWeightDecayModifier", { weight_decay: weightDecay });
  if (pruning) modifiers.push(...pruningModifiers(pruning));
  if (distillation) add("DistillationModifier", { ...distillation });
  return modifiers;
}

const methodModifiers = {
  "magnitude": "GMPruningModifier",
  "movement": "MovementPruningModifier",
  "soft-movement": "MovementPruningModifier",
  "obert": "OBSPruningModifier",
} as const satisfies Partial<Record<PruningFlags["method"], ModifierName>>;

function pruningModifiers(flags: PruningFlags): Modifier[] {
  const { method, targets } = flags;
  if (method === "constant") return [fromFlags("ConstantPruningModifier", { params: targets })];
  if (flags.sparsity === 0) return [];
  const { gradients, dampening, blockSize, recomputations, jointly }: Partial<ObertOptions> =
    method === "obert" ? { ...obertDefaults, ...said(flags) } : flags;
  return [fromFlags(methodModifiers[method], {
    params: targets,
    start_fraction: flags.begin,
    end_fraction: flags.end,
    updates: flags.refreshes,
    init_sparsity: flags.initialSparsity ?? 0,
    final_sparsity: flags.sparsity,
    inter_func: flags.schedule,
    mask_type: flags.pattern,
    global_sparsity: flags.scope === "global",
    score_learning_rate: flags.scoreLearningRate,
    soft: method === "soft-movement" ? true : undefined,
    penalty: flags.penalty,
    threshold: flags.threshold,
    num_grads: gradients,
    damp: dampening,
    fisher_block_size: blockSize,
    num_recomputations: recomputations,
    jointly,
  })];
}

function fromFlags(name: ModifierName, fields: FlagOptions): Modifier {
  const given = Object.entries(said(fields)) as [string, RecipeValue][];
  return makeModifier(name, new Map(given), () => "the flags");
}

/** Without what is undefined. */
function said<Options extends object>(options: Options): Partial<Options> {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as Partial<Options>;
}

/** `warmupRatio` is `warmup_ratio` in a recipe. */
function snakeCase(options: FlagOptions = {}): FlagOptions {
  const spelled = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(options).map(([name, value]) => [spelled(name), value]));
}

/** What a modifier is about. */
export type Subject = "length" | "learning rate" | "weight decay" | "optimizer" | "pruning" | "distillation";

/** What a modifier is about. */
export function subjectOf({ modifier }: Modifier): Subject {
  switch (modifier) {
    case "EpochRangeModifier":
      return "length";
    case "LearningRateFunctionModifier":
    case "LearningRateScheduleModifier":
    case "SetLearningRateModifier":
      return "learning rate";
    case "SetWeightDecayModifier":
      return "weight decay";
    case "OptimizerModifier":
      return "optimizer";
    case "DistillationModifier":
      return "distillation";
    default:
      return "pruning";
  }
}

/** The modifiers of `recipe`, and those of `defaults` about which it says nothing. */
export function overlay(defaults: readonly Modifier[], recipe: readonly Modifier[]): Modifier[] {
  const said = new Set(recipe.map(subjectOf));
  return [...defaults.filter((modifier) => !said.has(subjectOf(modifier))), ...recipe];
}
