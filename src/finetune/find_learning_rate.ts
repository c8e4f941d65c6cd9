/**
 * The learning-rate range test (Smith, arXiv 1506.01186), as fastai's `lr_find` does it: a mock training in which the
 * rate grows exponentially from step to step. Where the loss falls is a good rate; where it shoots up, one too high.
 * @module
 */
import { InputError } from "../core/errors.ts";
import {
  type FinderPoint,
  type LearningRateSuggestions,
  suggestLearningRates,
} from "./learning_rate_suggestions.ts";
import type { Trainer } from "./trainer.ts";

/** How to search. */
export interface FindLearningRateOptions {
  /** Rate of the first step; default 1e-7. */
  readonly lowest?: number;
  /** Rate that the last step comes up to, but for one factor of the progression; default 10. */
  readonly highest?: number;
  /** Steps, at least 20; default 100. */
  readonly steps?: number;
  /** Decoupled decay, as the training will have; default 0. */
  readonly weightDecay?: number;
  /** Never suggest more; default: no limit. */
  readonly cap?: number;
  /** Hears each point. */
  readonly point?: (point: FinderPoint, index: number) => void;
  /** Aborting ends the search with the signal's reason; everything is restored. */
  readonly signal?: AbortSignal;
}

/**
 * The range and limit for pretrained encoders. Beyond 1e-2 they only diverge, and with rates above 1e-4 they forget what
 * they have learned, whatever the first hundred losses say.
 */
export const pretrainedEncoderRange = { lowest: 1e-7, highest: 1e-2, cap: 1e-4 } as const;

/** What a search found. */
export interface FoundLearningRate {
  /** Every step taken, in order of the rate. */
  readonly points: readonly FinderPoint[];
  /** What the rules say. */
  readonly suggestion: LearningRateSuggestions;
  /** The valley, or the cap where that is lower. */
  readonly suggested: number;
  /** Why the search ended before its last step; absent when it did not. */
  readonly stopped?: string;
}

/** Weight of the past in the smoothed loss. */
const beta = 0.98;
/** The search ends when the smoothed loss is so many times its lowest. */
const divergence = 4;
/** With fewer steps, the tenth and the five points that are left out leave no curve. */
const fewestSteps = 20;

/**
 * Takes steps with rates lowest · (highest/lowest)^(i/n), i = 0 … n − 1, until the smoothed loss is four times its lowest
 * or no number. Weights and optimiser states are afterwards what they were before, to the bit, also when a step throws; a
 * copy of all of them is held meanwhile.
 * @param batchesAt The batches of step i, as `Trainer.step` takes them.
 * @throws InputError for bad options, or where the loss diverges before there is a curve.
 */
export async function findLearningRate<Example>(
  trainer: Trainer<Example>,
  batchesAt: (index: number) => readonly (readonly Example[])[],
  options: FindLearningRateOptions = {},
): Promise<FoundLearningRate> {
  const { lowest = 1e-7, highest = 10, steps = 100, cap = Infinity, weightDecay = 0 } = options;
  checkRange({ lowest, highest, steps, cap });
  const restore = await keepState(trainer);
  const points: FinderPoint[] = [];
  let stopped: string | undefined;
  try {
    let average = 0;
    let best = Infinity;
    for (let index = 0; index < steps && stopped === undefined; index++) {
      options.signal?.throwIfAborted();
      const learningRate = lowest * (highest / lowest) ** (index / steps);
      const { loss } = await trainer.step(batchesAt(index), index + 1, { learningRate, weightDecay });
      average = beta * average + (1 - beta) * loss;
      const smoothed = average / (1 - beta ** (index + 1));
      const point = { learningRate, loss, smoothed };
      points.push(point);
      options.point?.(point, index);
      best = Math.min(best, smoothed);
      if (!Number.isFinite(smoothed)) stopped = `the loss is ${loss}`;
      else if (smoothed > divergence * best) stopped = `the loss is ${divergence} times its lowest`;
    }
  } finally {
    await restore();
  }
  const suggestion = suggestLearningRates(points, steps);
  if (!suggestion) {
    throw new InputError(
      `Cannot find a learning rate: ${stopped} after ${points.length} of ${steps} steps from ${lowest}, ` +
        "wanted a lower first rate",
    );
  }
  return { points, suggestion, suggested: Math.min(suggestion.valley, cap), ...(stopped && { stopped }) };
}

function checkRange(
  { lowest, highest, steps, cap }: Required<
    Pick<FindLearningRateOptions, "lowest" | "highest" | "steps" | "cap">
  >,
): void {
  const check = (holds: boolean, what: string, found: number, wanted: string) => {
    if (!holds) throw new InputError(`Cannot find a learning rate: ${what} is ${found}, wanted ${wanted}`);
  };
  check(lowest > 0 && lowest < Infinity, "lowest", lowest, "a positive number");
  check(highest > lowest && highest < Infinity, "highest", highest, `more than lowest, which is ${lowest}`);
  check(
    Number.isSafeInteger(steps) && steps >= fewestSteps,
    "steps",
    steps,
    `a whole number of at least ${fewestSteps}`,
  );
  check(cap > 0, "cap", cap, "a positive number");
}

/** Copies weights and optimiser states; the result puts them back. */
async function keepState<Example>(trainer: Trainer<Example>): Promise<() => Promise<void>> {
  await trainer.settle();
  const weights = trainer.weights.slice();
  const states = new Map(Array.from(trainer.states, ([name, state]) => [name, state.slice()]));
  return async () => {
    await trainer.settle();
    trainer.weights.set(weights);
    for (const [name, state] of trainer.states) state.set(states.get(name)!);
  };
}
