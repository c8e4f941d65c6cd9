/**
 * When masks are renewed during training, and how sparse they are to be each time.
 * @module
 */
import { InputError } from "../core/errors.ts";

/** The sparsity to hold at every step. Steps count completed updates, so step 0 is before the first. */
export interface PruningSchedule {
  readonly name: string;
  /** Whether the masks are renewed at this step. */
  refreshes(step: number): boolean;
  /** The sparsity of the latest refresh: 0 before the first, the final sparsity from the last on. */
  sparsity(step: number): number;
}

/** Parameters of `cubicSchedule`. */
export interface CubicScheduleOptions {
  /** Sparsity of the first refresh. */
  readonly initialSparsity: number;
  /** Sparsity of the last refresh. */
  readonly finalSparsity: number;
  /** Step of the first refresh. */
  readonly begin: number;
  /** Step of the last refresh. Equal to `begin`, there is one refresh, to the final sparsity. */
  readonly end: number;
  /** Steps between refreshes; the last interval is shorter where they do not divide `end − begin`. */
  readonly every: number;
}

/**
 * Prunes fast while much is redundant and slowly near the end (Zhu and Gupta, arXiv 1710.01878):
 *
 *     s(t) = s_final + (s_initial − s_final) · (1 − (t − begin) / (end − begin))³
 */
export function cubicSchedule(options: CubicScheduleOptions): PruningSchedule {
  checkOptions(options);
  const { initialSparsity, finalSparsity, begin, end, every } = options;
  return {
    name: "cubic",
    refreshes(step) {
      return step === end || (step >= begin && step < end && (step - begin) % every === 0);
    },
    sparsity(step) {
      if (step < begin) return 0;
      if (step >= end) return finalSparsity;
      const latest = step - (step - begin) % every;
      const left = 1 - (latest - begin) / (end - begin);
      return finalSparsity + (initialSparsity - finalSparsity) * left ** 3;
    },
  };
}

function checkOptions({ initialSparsity, finalSparsity, begin, end, every }: CubicScheduleOptions): void {
  const refuse = (found: string, wanted: string) => {
    throw new InputError(`Cannot make a pruning schedule: ${found}, wanted ${wanted}`);
  };
  for (const [name, sparsity] of Object.entries({ initialSparsity, finalSparsity })) {
    if (!(sparsity >= 0 && sparsity <= 1)) refuse(`${name} is ${sparsity}`, "a number from 0 to 1");
  }
  if (initialSparsity > finalSparsity) {
    refuse(`initialSparsity is ${initialSparsity}`, `at most finalSparsity, ${finalSparsity}`);
  }
  for (const [name, step] of Object.entries({ begin, end })) {
    if (!Number.isInteger(step) || step < 0) refuse(`${name} is ${step}`, "a whole number of steps");
  }
  if (begin > end) refuse(`begin is ${begin}`, `at most end, ${end}`);
  if (!Number.isInteger(every) || every < 1) refuse(`every is ${every}`, "one step or more");
}
