/**
 * What a few runs say about many: mean, spread, and between which bounds the mean would lie.
 * @module
 */
import { centralQuantile } from "./student_t.ts";

/** Confidence of all intervals. */
export const confidence = 0.95;

/** Numbers of several runs in short. */
export interface Summary {
  readonly count: number;
  readonly mean: number;
  /** Sample standard deviation (divided by n − 1); absent for a single number. */
  readonly deviation?: number;
  readonly least: number;
  readonly greatest: number;
  /** Bounds of the mean at `confidence`, after Student; absent for a single number. */
  readonly interval?: readonly [low: number, high: number];
}

/** Sums up numbers. Throws RangeError for none. */
export function summarise(values: readonly number[]): Summary {
  const count = values.length;
  if (count === 0) throw new RangeError("Cannot sum up no numbers");
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const bounds = { least: Math.min(...values), greatest: Math.max(...values) };
  if (count === 1) return { count, mean, ...bounds };
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = Math.sqrt(squares / (count - 1));
  const half = centralQuantile(confidence, count - 1) * deviation / Math.sqrt(count);
  return { count, mean, deviation, ...bounds, interval: [mean - half, mean + half] };
}
