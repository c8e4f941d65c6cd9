/**
 * Times engines against each other on a machine that is never quiet.
 *
 * Engines take turns. In a turn an engine first answers once untimed, which wakes its threads and brings its
 * weights back into the caches, as they are while serving; then it answers again and again for `turnMs`, each
 * answer timed. Before a turn there is a pause in which the threads of the engine before stop spinning, or they would
 * slow the next one down. The order reverses every round, so no engine always follows the same one. What disturbs the
 * machine for longer than a round falls on all engines, so ratios suffer less than latencies; engines whose threads
 * spin suffer most, so compare on an idle machine.
 * @module
 */

/** Anything that can be timed. */
export interface Contestant {
  /** For the reader of the result. */
  readonly name: string;
  /** One call, the thing that is timed. */
  run(): Promise<unknown>;
}

/** How long to measure. */
export interface MeasureOptions {
  /** Untimed calls of each contestant before the first round. */
  readonly warmup?: number;
  /** Rounds of turns, unless `seconds` is given. */
  readonly rounds?: number;
  /** Timed seconds each contestant gets on average; whole rounds are run until they have passed. */
  readonly seconds?: number;
  /** Length of a turn. A turn has at least one timed call. */
  readonly turnMs?: number;
  /** Pause before a turn. */
  readonly settleMs?: number;
  /** Called after each round with the share of the work that is done, 0 to 1. */
  readonly onProgress?: (share: number) => void;
  /** The clock and the pause, to be replaced in tests. */
  readonly timer?: Timer;
}

/** A monotonic clock in milliseconds, and a pause. */
export interface Timer {
  /** Milliseconds since any fixed moment. */
  now(): number;
  /** Resolves after about that long. */
  pause(ms: number): Promise<void>;
}

/** Latencies and what they amount to. */
export interface Measurement {
  /** Of the contestant. */
  readonly name: string;
  /** Every timed call, in order. */
  readonly latenciesMs: readonly number[];
  /** What they amount to. */
  readonly summary: LatencySummary;
}

/** Percentiles, mean and sample standard deviation, in milliseconds. */
export interface LatencySummary {
  /** Median. */
  readonly p50: number;
  /** One call in twenty takes longer. */
  readonly p95: number;
  /** One call in a hundred takes longer. */
  readonly p99: number;
  /** Sum over count. */
  readonly mean: number;
  /** Sample standard deviation, divisor count − 1. */
  readonly std: number;
}

const systemTimer: Timer = {
  now: () => performance.now(),
  pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};

/** Times the contestants in turns. Gives the measurements in the order of the contestants. */
export async function interleave(
  contestants: readonly Contestant[],
  options: MeasureOptions = {},
): Promise<Measurement[]> {
  const { warmup = 3, rounds = 10, seconds, turnMs = 200, settleMs = 5, onProgress, timer = systemTimer } =
    options;
  for (const contestant of contestants) {
    for (let call = 0; call < warmup; call++) await contestant.run();
  }
  const latencies = contestants.map((): number[] => []);
  const wantedMs = (seconds ?? 0) * 1000 * contestants.length;
  let timedMs = 0;
  const done = (round: number) => seconds === undefined ? round / rounds : timedMs / wantedMs;
  for (let round = 0; contestants.length > 0 && done(round) < 1;) {
    const order = contestants.map((_, i) => round % 2 === 0 ? i : contestants.length - 1 - i);
    for (const i of order) {
      await timer.pause(settleMs);
      await contestants[i].run();
      timedMs += await turn(contestants[i], latencies[i], turnMs, timer);
    }
    round++;
    onProgress?.(Math.min(1, done(round)));
  }
  return contestants.map(({ name }, i) => ({
    name,
    latenciesMs: latencies[i],
    summary: summarize(latencies[i]),
  }));
}

/** Runs one turn, appends its latencies and gives the time it took. */
async function turn(
  contestant: Contestant,
  latencies: number[],
  turnMs: number,
  timer: Timer,
): Promise<number> {
  const start = timer.now();
  let end = start;
  do {
    const before = end;
    await contestant.run();
    end = timer.now();
    latencies.push(end - before);
  } while (end - start < turnMs);
  return end - start;
}

/** Summary of a list of latencies, which must not be empty. A single one has no spread. */
export function summarize(latenciesMs: readonly number[]): LatencySummary {
  const sorted = Float64Array.from(latenciesMs).sort();
  const count = sorted.length;
  if (count === 0) throw new RangeError("Cannot summarize latencies: there are none, wanted at least one");
  const mean = sorted.reduce((sum, value) => sum + value, 0) / count;
  const squares = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    p50: percentile(sorted, 0.5),
    p95: percentile(sorted, 0.95),
    p99: percentile(sorted, 0.99),
    mean,
    std: count === 1 ? 0 : Math.sqrt(squares / (count - 1)),
  };
}

/** The value below which a share of the sorted values (at least one) lies, interpolated as NumPy does by default. */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  const position = share * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}
