/**
 * Which differences between variants are real.
 * @module
 */
import type { Summary } from "../core/statistics.ts";

/** What a paired comparison shows. */
export type Verdict = "better" | "worse" | "no difference shown";

/**
 * Whether differences (one side less the other, pair by pair) are of one sign: their interval leaves 0 out. A single pair shows
 * nothing, whatever its difference.
 */
export function verdictOf({ interval }: Summary, higherIsBetter: boolean): Verdict {
  if (interval === undefined) return "no difference shown";
  const [low, high] = interval;
  if (low > 0) return higherIsBetter ? "better" : "worse";
  if (high < 0) return higherIsBetter ? "worse" : "better";
  return "no difference shown";
}
