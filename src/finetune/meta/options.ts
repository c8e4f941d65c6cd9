/**
 * What MetaAdamW can be told, and its two modes.
 *
 * MetaAdamW (Zhao and Liu, arXiv 2605.04055) is AdamW whose learning rate and weight decay have a factor α and β for
 * each group of parameters. A small encoder over the groups' statistics gives the factors, and learns now and then from
 * how a step with them would turn out.
 *
 * `paper` keeps to the paper's equations, and to the constructor's defaults of the authors' code where the paper is
 * silent. What that code does otherwise than the paper says is not copied:
 * - β enters the step detached there, so that the meta-loss never reaches it; here it has its gradient.
 * - There α / (1 − β₁ᵗ) multiplies the decay, ten times too much at the first step; Eq. 4 has α alone.
 * - There the hypothetical step leaves B₁'s gradient out of the moments; Algorithm 2 has it in.
 * - There gates have gradients but never change, and `basic_plus` is seven statistics of `enhanced`; not so here.
 * - There is no warm-up there, as epochs are compared with 1 but counted from 1; here it is the paper's one epoch.
 * - Normalised features divide by NaN for a single group there; here a single group is not normalised.
 * - Its meta-losses drop out, in two different draws. Here gradients and losses of meta-updates never drop out, in either
 *   mode: what they compare should differ in the factors alone.
 * - It validates on the test set in two of five experiments. Here both modes hold examples of the training set out.
 *
 * `sound` starts as AdamW to the bit (the output layer is zero), sees features of like scale, and learns from the loss
 * on held-out examples alone.
 * @module
 */
import { InputError } from "../../core/errors.ts";
import { showValue } from "../../core/json.ts";
import { type FeatureVersion, featureVersions } from "./features.ts";
import { type Grouping, groupings } from "./groups.ts";

/** A term of the meta-loss. */
export type MetaTerm = "gradient" | "loss_decrease" | "gen_gap";

/** All of them, in the order of their priorities. */
export const metaTerms: readonly MetaTerm[] = ["gradient", "loss_decrease", "gen_gap"];

/** What the encoder learns from: one term, or all weighted by their uncertainty. */
export type MetaObjective = MetaTerm | "combined";

/** Settings of MetaAdamW. */
export interface MetaOptions {
  /** What is a group of parameters. */
  readonly grouping: Grouping;
  /** Which statistics of a group the encoder sees. */
  readonly features: FeatureVersion;
  /** Whether `basic`, `basic_plus` and `log` have the norm of the second moments. */
  readonly secondMomentNorms: boolean;
  /** Whether tokens have the time as a column. */
  readonly time: boolean;
  /** Whether each column has a learnable gate. */
  readonly gating: boolean;
  /** Pre-norm transformer layers. */
  readonly layers: number;
  /** Their attention heads. */
  readonly heads: number;
  /** Hidden units of its feed-forward parts. */
  readonly feedForward: number;
  /** Tokens are padded to at least so many columns, and to a multiple of the heads. */
  readonly width: number;
  /** α lies in (1 − range / 2, 1 + range / 2); range in [0, 2]. */
  readonly alphaRange: number;
  /** The same of β. */
  readonly betaRange: number;
  /** Whether the output layer starts at zero, so that all factors start at 1, or as Xavier has it. */
  readonly zeroOutput: boolean;
  /** A number for both λ of the gradient term; absent: the encoder gives them. */
  readonly lambda?: number;
  /** What the encoder learns from. */
  readonly objective: MetaObjective;
  /** Where the gap is taken: before the step, where nothing of the encoder enters it, or after. */
  readonly gapAfterStep: boolean;
  /** Weights of the uncertainties of the three terms. */
  readonly priorities: readonly [number, number, number];
  /** Whether s is held in [−3, 3] and losses go through softplus; without that s has no optimum for losses below 0. */
  readonly boundedUncertainty: boolean;
  /** What the encoder learns with. */
  readonly optimizer: "sgd" | "adam";
  /** Its learning rate. */
  readonly learningRate: number;
  /** Factor on the sum of the L2 norms of the encoder's tensors, biases of the output apart. */
  readonly normPenalty: number;
  /** Factor on the L1 norm of the gates. */
  readonly gatePenalty: number;
  /** Steps from one look at the statistics to the next. Between them factors stay. */
  readonly refreshEvery: number;
  /** Steps from one meta-update to the next. */
  readonly updateEvery: number;
  /** Meta-updates begin after so many passes over the data, */
  readonly warmupEpochs: number;
  /** and after this fraction of the steps. */
  readonly warmupFraction: number;
  /** Whether there are meta-updates. False is a control: an encoder that stays as it was drawn. */
  readonly learns: boolean;
  /** Factors for all groups at all times, without any encoder: a control. */
  readonly fixed?: { readonly alpha: number; readonly beta: number };
  /** Share of the training examples that is held out for meta-updates. */
  readonly validationFraction: number;
}

/** `frozen` is `paper` that never learns. */
export type MetaMode = "sound" | "paper" | "frozen";

const paper: MetaOptions = {
  grouping: "fine_grained",
  features: "basic",
  secondMomentNorms: true,
  time: true,
  gating: false,
  layers: 2,
  heads: 4,
  feedForward: 32,
  width: 8,
  alphaRange: 1,
  betaRange: 1,
  zeroOutput: false,
  objective: "combined",
  gapAfterStep: false,
  priorities: [1, 1, 1],
  boundedUncertainty: false,
  optimizer: "sgd",
  learningRate: 1e-4,
  normPenalty: 1e-4,
  gatePenalty: 1e-4,
  refreshEvery: 1,
  updateEvery: 100,
  warmupEpochs: 1,
  warmupFraction: 0,
  learns: true,
  validationFraction: 0.05,
};

const modes: Readonly<Record<MetaMode, MetaOptions>> = {
  paper,
  frozen: { ...paper, learns: false },
  sound: {
    ...paper,
    features: "log",
    heads: 2,
    zeroOutput: true,
    lambda: 0.5,
    objective: "loss_decrease",
    gapAfterStep: true,
    boundedUncertainty: true,
    optimizer: "adam",
    learningRate: 1e-3,
    normPenalty: 0,
    refreshEvery: 10,
    warmupEpochs: 0,
    warmupFraction: 0.1,
  },
};

/** Names of the modes. */
export const metaModes: readonly MetaMode[] = ["sound", "paper", "frozen"];

/** What a mode may be silent about. */
const optionalNames = ["lambda", "fixed"] as const satisfies readonly (keyof MetaOptions)[];

/** A mode's options, with changes; null is absent. Throws `InputError` for unknown names and for values that make no sense. */
export function metaOptions(mode: MetaMode = "sound", changes: Partial<MetaOptions> = {}): MetaOptions {
  if (!Object.hasOwn(modes, mode)) {
    throw new InputError(`MetaAdamW's mode is ${showValue(mode)}: wanted ${listOf(metaModes)}`);
  }
  const known: readonly string[] = [
    ...Object.keys(modes[mode]),
    ...optionalNames.filter((name) => !(name in modes[mode])),
  ];
  for (const [name, value] of Object.entries(changes)) {
    if (known.includes(name)) continue;
    throw new InputError(
      `MetaAdamW has no option ${name}, ${showValue(value)}: wanted one of ${known.join(", ")}`,
    );
  }
  const given = Object.entries({ ...modes[mode], ...changes }).filter(([, value]) =>
    value !== null && value !== undefined
  );
  const options = Object.fromEntries(given) as unknown as MetaOptions;
  checkMetaOptions(options);
  return options;
}

/** Steps before the first meta-update. */
export function warmupSteps(
  { warmupEpochs, warmupFraction }: MetaOptions,
  { totalSteps, stepsPerEpoch }: { readonly totalSteps: number; readonly stepsPerEpoch: number },
): number {
  return Math.ceil(Math.max(warmupEpochs * stepsPerEpoch, warmupFraction * totalSteps));
}

/** Whether an objective has a term. */
export function hasTerm({ objective }: Pick<MetaOptions, "objective">, term: MetaTerm): boolean {
  return objective === "combined" || objective === term;
}

function checkMetaOptions(options: MetaOptions): void {
  const fail = (name: string, found: unknown, wanted: string) => {
    throw new InputError(`MetaAdamW's ${name} is ${showValue(found)}: wanted ${wanted}`);
  };
  const oneOf = (name: string, value: string, values: readonly string[]) => {
    if (!values.includes(value)) fail(name, value, listOf(values));
  };
  const switches = [
    "secondMomentNorms",
    "time",
    "gating",
    "zeroOutput",
    "gapAfterStep",
    "boundedUncertainty",
    "learns",
  ] as const;
  for (const name of switches) {
    if (typeof options[name] !== "boolean") fail(name, options[name], "true or false");
  }
  const counts = ["layers", "heads", "feedForward", "width", "refreshEvery", "updateEvery"] as const;
  for (const name of counts) {
    const value = options[name];
    if (!(Number.isSafeInteger(value) && value >= 1)) fail(name, value, "a whole number of at least 1");
  }
  const within = (name: string, value: number, low: number, high: number) => {
    if (!(typeof value === "number" && value >= low && value <= high)) {
      fail(name, value, `a number from ${low} to ${high}`);
    }
  };
  const positive = (name: string, value: number) => {
    if (!(typeof value === "number" && value >= 0 && value < Infinity)) {
      fail(name, value, "a number of at least 0");
    }
  };
  oneOf("grouping", options.grouping, groupings);
  oneOf("features", options.features, featureVersions);
  oneOf("objective", options.objective, [...metaTerms, "combined"]);
  oneOf("optimizer", options.optimizer, ["sgd", "adam"]);
  within("alphaRange", options.alphaRange, 0, 2);
  within("betaRange", options.betaRange, 0, 2);
  within("warmupFraction", options.warmupFraction, 0, 1);
  if (options.lambda !== undefined) within("lambda", options.lambda, 0, 1);
  for (const name of ["learningRate", "normPenalty", "gatePenalty", "warmupEpochs"] as const) {
    positive(name, options[name]);
  }
  if (!Array.isArray(options.priorities) || options.priorities.length !== 3) {
    fail("priorities", options.priorities, "three numbers");
  }
  for (const priority of options.priorities) positive("priorities", priority);
  if (options.fixed !== undefined) {
    positive("fixed alpha", options.fixed.alpha);
    positive("fixed beta", options.fixed.beta);
  }
  const { validationFraction } = options;
  if (!(typeof validationFraction === "number" && validationFraction > 0 && validationFraction < 1)) {
    fail("validationFraction", validationFraction, "a number above 0 and below 1");
  }
}

function listOf(names: readonly string[]): string {
  return `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}
