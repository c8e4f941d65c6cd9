/**
 * Smith's one-cycle policy (arXiv 1708.07120, 1803.09820), as PyTorch's `OneCycleLR` computes it.
 * @module
 */
import { halfWave } from "./cosine.ts";
import { checkOption, type ScheduleKind, type ScheduleOptions } from "./schedule.ts";

/** A stretch between two corners of the cycle. */
interface Phase {
  /** Completed steps at its end; may be a fraction. */
  readonly end: number;
  /** Factors on the peak rate at its two ends. */
  readonly rates: readonly [number, number];
  /** Momentum at its two ends. */
  readonly momenta: readonly [number, number];
}

/**
 * The rate rises from 1/`divFactor` to 1 and falls to 1/(`divFactor` · `finalDivFactor`), while the momentum falls from
 * `maxMomentum` to `baseMomentum` and rises again. With k completed steps of T and p = `pctStart`, the corners are at
 *
 *     k = 0,  pT − 1,  T − 1        or, with `threePhase`,        0,  pT − 1,  2pT − 2,  T − 1
 *
 * the latter falling to the first rate at its third corner and staying at `maxMomentum` from there. Between two corners a
 * and b the value is b + (a − b)(1 + cos πq)/2, or a line, with q the progress from one to the other.
 */
export const oneCycle: ScheduleKind = {
  name: "one_cycle",
  takesWarmup: false,
  takes: [
    "pctStart",
    "annealStrategy",
    "divFactor",
    "finalDivFactor",
    "threePhase",
    "cycleMomentum",
    "baseMomentum",
    "maxMomentum",
  ],
  make({ totalSteps }, options) {
    const phases = phasesOf(totalSteps, options);
    const { annealStrategy = "cos", cycleMomentum = true } = options;
    const curve = annealStrategy === "cos" ? halfWave : (progress: number) => 1 - progress;
    const at = (completedSteps: number, of: "rates" | "momenta") => {
      if (!(completedSteps >= 0 && completedSteps < totalSteps)) {
        throw new RangeError(`one_cycle has ${totalSteps} steps: no update follows ${completedSteps}`);
      }
      const index = phases.findIndex(({ end }) => completedSteps <= end);
      const begin = index === 0 ? 0 : phases[index - 1].end;
      const { end, [of]: [from, to] } = phases[index];
      // A phase of no length, as the first with pT = 1, is at its end.
      const progress = end > begin ? (completedSteps - begin) / (end - begin) : 1;
      return to + (from - to) * curve(progress);
    };
    return {
      factor: (completedSteps) => at(completedSteps, "rates"),
      ...(cycleMomentum ? { momentum: (completedSteps) => at(completedSteps, "momenta") } : {}),
    };
  },
};

/**
 * The values with which fastai's `fit_one_cycle` differs from PyTorch: a shorter rise, and an end at 1e-5 of the peak
 * (its `div_final` divides the peak, not the first rate). The corners stay those of PyTorch, whole steps from the first
 * update to the last; fastai's lie up to a step later.
 */
export const fastaiOneCycle = { pctStart: 0.25, divFactor: 25, finalDivFactor: 4000 } as const;

function phasesOf(totalSteps: number, options: ScheduleOptions): readonly Phase[] {
  const { pctStart = 0.3, divFactor = 25, finalDivFactor = 1e4, threePhase = false } = options;
  const { baseMomentum: low = 0.85, maxMomentum: high = 0.95, annealStrategy = "cos" } = options;
  const check = (holds: boolean, option: keyof ScheduleOptions, found: unknown, wanted: string) =>
    checkOption(holds, "one_cycle", option, found, wanted);
  check(
    annealStrategy === "cos" || annealStrategy === "linear",
    "annealStrategy",
    annealStrategy,
    "cos or linear",
  );
  const most = threePhase ? 0.5 : 1;
  check(
    pctStart >= 0 && pctStart <= most,
    "pctStart",
    pctStart,
    `a number from 0 to ${most}${threePhase ? ", as it falls again as long as it rose" : ""}`,
  );
  check(divFactor >= 1 && divFactor < Infinity, "divFactor", divFactor, "a number of at least 1");
  check(
    finalDivFactor >= 1 && finalDivFactor < Infinity,
    "finalDivFactor",
    finalDivFactor,
    "a number of at least 1",
  );
  check(high >= 0 && high < 1, "maxMomentum", high, "a number in [0, 1)");
  check(low >= 0 && low <= high, "baseMomentum", low, `a number from 0 to maxMomentum, which is ${high}`);

  const first = 1 / divFactor;
  const last = first / finalDivFactor;
  const peak = pctStart * totalSteps - 1;
  const end = totalSteps - 1;
  const rise: Phase = { end: peak, rates: [first, 1], momenta: [high, low] };
  if (!threePhase) return [rise, { end, rates: [1, last], momenta: [low, high] }];
  return [
    rise,
    { end: 2 * pctStart * totalSteps - 2, rates: [1, first], momenta: [low, high] },
    { end, rates: [first, last], momenta: [high, high] },
  ];
}
