/**
 * An optimiser's step as steps of a plan. Not a graph operation: it updates parameters and their states where they lie.
 *
 * A plan is made once and replayed every step, so everything that changes from step to step is read from the arena:
 * the scalars block (`UpdateRule.scalarsOf`), and the clip factor that `globalNormSteps` leaves.
 * @module
 */
import { splitRange, type Step } from "../../graph/operation.ts";
import { callKernel, type KernelCall } from "../kernel.ts";
import { stateArguments, updateKernel } from "./kernel.ts";
import { checkStates, type UpdateRule } from "./rule.ts";

/** Elements a worker's share is a multiple of: whole cache lines, and whole words of the mask. */
const grain = 64;

/** A range of parameters that share a scalars block. Addresses are bytes from the arena's start. */
export interface UpdateRange {
  /** Updated in place, as all states are. */
  readonly weights: number;
  /** As `UpdateRule.states` lists them. */
  readonly states: readonly number[];
  /** Only read. */
  readonly gradients: number;
  /** Bitset of 32-bit words: element i is kept when bit i mod 32 of word ⌊i / 32⌋ is set. Absent: all are kept. */
  readonly mask?: number;
  /** A block of `UpdateRule.scalars`, filled before the step runs. */
  readonly scalars: number;
  /** Elements of the range. */
  readonly count: number;
}

/** What to update. */
export interface UpdateRequest {
  readonly rule: UpdateRule;
  /** Disjoint ranges, each with its own scalars and mask. */
  readonly ranges: readonly UpdateRange[];
  /** Address of the f32 that gradients are multiplied by: the second element of `globalNormSteps`' result. */
  readonly clip: number;
  /** Workers that share the step. */
  readonly workers: number;
}

/**
 * One step that updates all ranges as `UpdateRule.reference` says. Pruned elements leave with weight and states of
 * zero, whatever their gradient. When the clip factor is NaN or infinite (the global norm was not finite) nothing is
 * changed at all.
 *
 * The ranges are laid end to end and split between the workers at multiples of 64 elements of a range. Throws a
 * RangeError when a range does not have the states of the rule.
 */
export function updateSteps({ rule, ranges, clip, workers }: UpdateRequest): Step[] {
  for (const { states } of ranges) checkStates(rule, states.length);
  const unitsOf = (range: UpdateRange) => Math.ceil(range.count / grain);
  const units = ranges.reduce((sum, range) => sum + unitsOf(range), 0);
  const calls = splitRange(units, workers).map(({ begin, end }) => {
    const share: KernelCall[] = [];
    let firstUnit = 0;
    for (const range of ranges) {
      const from = grain * (Math.max(begin, firstUnit) - firstUnit);
      const to = Math.min(range.count, grain * (end - firstUnit));
      if (from < to) share.push(callRange(rule, range, from, to, clip));
      firstUnit += unitsOf(range);
    }
    return share;
  });
  return [{ name: rule.key, calls }];
}

/** The call for elements [from, to) of a range. */
function callRange(rule: UpdateRule, range: UpdateRange, from: number, to: number, clip: number): KernelCall {
  const { mask } = range;
  const [state0, state1, state2] = stateArguments.map((_, i) =>
    i < range.states.length ? range.states[i] + 4 * from : 0
  );
  return callKernel(updateKernel(rule, mask !== undefined), {
    weights: range.weights + 4 * from,
    gradients: range.gradients + 4 * from,
    state0,
    state1,
    state2,
    mask: mask === undefined ? 0 : mask + from / 8,
    scalars: range.scalars,
    clip,
    count: to - from,
  });
}
