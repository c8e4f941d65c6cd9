/**
 * Learning rate and momentum at every step of a run, from the modifiers that set them.
 * @module
 */
import { atPlace, refuse } from "../recipes/checks.ts";
import type { Modifier, ModifierOf } from "../recipes/modifiers.ts";
import { type RunLength, spanOf, stepsIn, type StepSpan } from "../recipes/positions.ts";
import { learningRateSchedule } from "./schedules/mod.ts";

/** What the optimiser is told for an update. */
export interface Rates {
  readonly learningRate: number;
  /** Replaces β₁ or the momentum; absent: nothing is replaced. */
  readonly momentum?: number;
}

/** A modifier at work from `begin` on, with steps counted from there; from `end` on it keeps its last rate. */
interface Stretch extends StepSpan {
  readonly modifier: Modifier;
  ratesAt(completedSteps: number): Rates;
}

/**
 * The rates at a step (completed updates, from 0). Each modifier holds its last rate until the next begins; before the
 * first, and without any, the rate is `learningRate`.
 * @throws InputError for two modifiers at once, and for options that a schedule refuses.
 */
export function learningRatesOf(
  modifiers: readonly Modifier[],
  run: RunLength & { readonly learningRate: number },
): (step: number) => Rates {
  const stretches = modifiers.flatMap((modifier) => stretchOf(modifier, run) ?? []);
  stretches.sort((a, b) => a.begin - b.begin);
  for (const [index, { modifier, begin }] of stretches.entries()) {
    const previous = stretches[index - 1];
    if (!previous || (begin >= previous.end && begin > previous.begin)) continue;
    refuse(
      modifier,
      `it sets the learning rate from step ${begin}, and ${previous.modifier.place} until step ${previous.end}`,
      "one modifier at a time",
    );
  }
  return (step) => {
    const stretch = stretches.findLast(({ begin }) => begin <= step);
    return stretch ? stretch.ratesAt(step - stretch.begin) : { learningRate: run.learningRate };
  };
}

function stretchOf(modifier: Modifier, run: RunLength): Stretch | undefined {
  switch (modifier.modifier) {
    case "SetLearningRateModifier": {
      const { begin } = spanOf(modifier, run);
      const rates = { learningRate: modifier.learning_rate };
      return { modifier, begin, end: begin, ratesAt: () => rates };
    }
    case "LearningRateFunctionModifier":
      return functionStretch(modifier, run);
    case "LearningRateScheduleModifier":
      return scheduleStretch(modifier, run);
  }
}

/**
 * SparseML's functions, with f the factor of the schedule of that name, from 1 to 0:  final + (init − final) · f
 */
function functionStretch(modifier: ModifierOf<"LearningRateFunctionModifier">, run: RunLength): Stretch {
  const { lr_func, init_lr, final_lr, cycle_epochs } = modifier;
  const span = filledSpan(modifier, run);
  const schedule = atPlace(modifier, () =>
    learningRateSchedule(lr_func, {
      totalSteps: span.end - span.begin,
      cycleSteps: cycle_epochs && stepsIn(cycle_epochs, run),
    }));
  const ratesAt = (step: number) => ({
    learningRate: final_lr + (init_lr - final_lr) * schedule.factor(step),
  });
  return { modifier, ...span, ratesAt };
}

function scheduleStretch(modifier: ModifierOf<"LearningRateScheduleModifier">, run: RunLength): Stretch {
  const { learning_rate: peak, cycle_epochs } = modifier;
  const span = filledSpan(modifier, run);
  const totalSteps = span.end - span.begin;
  const schedule = atPlace(modifier, () =>
    learningRateSchedule(modifier.schedule, {
      totalSteps,
      warmupSteps: modifier.warmup_steps,
      warmupRatio: modifier.warmup_ratio,
      endRatio: modifier.end_ratio,
      cycles: modifier.cycles,
      power: modifier.power,
      cycleSteps: modifier.cycle_steps ?? (cycle_epochs && stepsIn(cycle_epochs, run)),
      pctStart: modifier.pct_start,
      annealStrategy: modifier.anneal_strategy,
      divFactor: modifier.div_factor,
      finalDivFactor: modifier.final_div_factor,
      threePhase: modifier.three_phase,
      cycleMomentum: modifier.cycle_momentum,
      baseMomentum: modifier.base_momentum,
      maxMomentum: modifier.max_momentum,
    }));
  // After its cycle there is no `one_cycle`; the others know where they end.
  const last = schedule.name === "one_cycle" ? totalSteps - 1 : totalSteps;
  return {
    modifier,
    ...span,
    ratesAt(step) {
      const known = Math.min(step, last);
      const learningRate = peak * schedule.factor(known);
      return schedule.momentum ? { learningRate, momentum: schedule.momentum(known) } : { learningRate };
    },
  };
}

function filledSpan(modifier: Modifier, run: RunLength): StepSpan {
  const span = spanOf(modifier, run);
  if (span.begin === span.end) refuse(modifier, `it begins and ends at step ${span.begin}`, "a step or more");
  return span;
}
