/**
 * When masks are renewed during training, and how sparse they are to be each time.
 * @module
 */
import { InputError } from "../core/errors.ts";

/** The sparsity to hold at every step. Steps count completed updates, so step 0 is before the first. */
export interface PruningSchedule {
  readonly name: PruningScheduleName;
  /** Step of the first refresh. */
  readonly begin: number;
  /** Step of the last refresh: from here on the mask is constant. */
  readonly end: number;
  /** Whether the masks are renewed at this step. */
  refreshes(step: number): boolean;
  /** The sparsity of the latest refresh: 0 before the first, the final sparsity from the last on. */
  sparsity(step: number): number;
}

/** The schedules by name; those of ramps are SparseML's `inter_func`. */
export type PruningScheduleName = keyof typeof ramps | "one-shot" | "constant";

/** Parameters of `pruningSchedule`. */
export interface PruningScheduleOptions {
  /** Sparsity of the first refresh, at most that of the last. */
  readonly initialSparsity: number;
  /** Sparsity of the last refresh. */
  readonly finalSparsity: number;
  /** Step of the first refresh. */
  readonly begin: number;
  /** Step of the last refresh. Equal to `begin`, there is one refresh, to the final sparsity. */
  readonly end: number;
  /** Steps between refreshes; the last interval is shorter where they do not divide `end − begin`. */
  readonly every: number;
  /** Of `polynomial`; default 3, which is `cubic`. */
  readonly exponent?: number;
}

/**
 * What is left of the way to the final sparsity, 1 to 0, where a share `left` of the time is left, 1 to 0. With x = 1 − left:
 *
 *     s = s_final + (s_initial − s_final) · ramp(left)
 *
 * `cubic` prunes fast while much is redundant and slowly near the end (Zhu and Gupta, arXiv 1710.01878); `inverse_cubic` the
 * other way about: y = 1 − (1 − x)^(1/3) as in SparseML. `polynomial` is y = 1 − (1 − x)^exponent, TensorFlow's
 * `PolynomialDecay`; SparseML's new modifiers mean x^exponent by that name.
 */
const ramps = {
  cubic: (left: number) => left ** 3,
  linear: (left: number) => left,
  inverse_cubic: (left: number) => Math.cbrt(left),
  polynomial: (left: number, exponent: number) => left ** exponent,
} as const;

/** All names `pruningSchedule` knows. */
export const pruningScheduleNames: readonly PruningScheduleName[] = Object.freeze(
  [...Object.keys(ramps) as (keyof typeof ramps)[], "one-shot", "constant"],
);

/**
 * Makes a schedule by name. `one-shot` is one refresh at `begin`, to the final sparsity, whatever `end` and `every`.
 * `constant` is `constantSchedule(begin)`. Throws InputError for an unknown name, and for options that are no schedule: a
 * sparsity that falls, or steps in the wrong order.
 */
export function pruningSchedule(name: string, options: PruningScheduleOptions): PruningSchedule {
  const known = pruningScheduleNames.find((each) => each === name);
  if (!known) {
    throw new InputError(
      `Unknown pruning schedule ${name}: wanted one of ${pruningScheduleNames.join(", ")}`,
    );
  }
  checkOptions(options);
  if (known === "constant") return constantSchedule(options.begin);
  if (known === "one-shot") return rampSchedule(known, ramps.linear, { ...options, end: options.begin });
  const { exponent = 3 } = options;
  return rampSchedule(known, (left) => ramps[known](left, exponent), options);
}

/**
 * Holds the zeros that are there at a step and asks for no more: sparse transfer. Its one refresh finds them; the sparsity
 * it asks for is 0.
 */
export function constantSchedule(begin: number): PruningSchedule {
  checkSteps({ begin });
  return { name: "constant", begin, end: begin, refreshes: (step) => step === begin, sparsity: () => 0 };
}

function rampSchedule(
  name: PruningScheduleName,
  ramp: (left: number) => number,
  { initialSparsity, finalSparsity, begin, end, every }: PruningScheduleOptions,
): PruningSchedule {
  return {
    name,
    begin,
    end,
    refreshes(step) {
      return step === end || (step >= begin && step < end && (step - begin) % every === 0);
    },
    sparsity(step) {
      if (step < begin) return 0;
      if (step >= end) return finalSparsity;
      const latest = step - (step - begin) % every;
      return finalSparsity + (initialSparsity - finalSparsity) * ramp(1 - (latest - begin) / (end - begin));
    },
  };
}

function checkOptions(options: PruningScheduleOptions): void {
  const { initialSparsity, finalSparsity, begin, end, every, exponent } = options;
  for (const [name, sparsity] of Object.entries({ initialSparsity, finalSparsity })) {
    if (!(sparsity >= 0 && sparsity <= 1)) refuse(`${name} is ${sparsity}`, "a number from 0 to 1");
  }
  if (initialSparsity > finalSparsity) {
    refuse(`initialSparsity is ${initialSparsity}`, `at most finalSparsity, ${finalSparsity}`);
  }
  checkSteps({ begin, end });
  if (begin > end) refuse(`begin is ${begin}`, `at most end, ${end}`);
  if (!Number.isInteger(every) || every < 1) refuse(`every is ${every}`, "one step or more");
  if (exponent !== undefined && !(exponent > 0 && exponent < Infinity)) {
    refuse(`exponent is ${exponent}`, "a positive number");
  }
}

function checkSteps(steps: Readonly<Record<string, number>>): void {
  for (const [name, step] of Object.entries(steps)) {
    if (!Number.isInteger(step) || step < 0) refuse(`${name} is ${step}`, "a whole number of steps");
  }
}

function refuse(found: string, wanted: string): never {
  throw new InputError(`Cannot make a pruning schedule: ${found}, wanted ${wanted}`);
}
