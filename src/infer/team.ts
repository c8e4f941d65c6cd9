/**
 * How many workers share a run: all, or one where a run is so small that waking and waiting for others costs more.
 *
 * Which is faster is tried out on the first calls of a size, in turns; results are the same bits. BERT-tiny with 90 % zeros
 * and 16 tokens takes one worker 0.09 ms and two 0.14. Two can also fall into a slow gait, 0.5 ms, in which each sleeps
 * while the other computes; so times are watched further on.
 * @module
 */

/** Multiply-adds below which one worker is tried: a few hundred microseconds of work. */
const smallRun = 40e6;

/** Calls of each team before the faster one is kept. */
const trials = 4;

/** Weight of a later call in the time a team is thought to take. */
const learning = 0.1;

/** The choice for runs of one size. */
export class TeamChoice {
  readonly #teams: readonly number[];
  /** What each team takes: the least of its trials at first. */
  readonly #teamMs: number[];
  #calls = 0;

  /** For runs of so many multiply-adds on an executor of so many workers. */
  constructor(multiplyAdds: number, workers: number) {
    this.#teams = workers > 1 && multiplyAdds < smallRun ? [1, workers] : [workers];
    this.#teamMs = this.#teams.map(() => Infinity);
  }

  /** The team of the next run. */
  get team(): number {
    return this.#teams[this.#index];
  }

  /** Tells how long a run of `team` took. */
  note(milliseconds: number): void {
    const index = this.#index;
    const known = this.#teamMs[index];
    this.#teamMs[index] = this.#isTrying
      ? Math.min(known, milliseconds)
      : known + learning * (milliseconds - known);
    this.#calls++;
  }

  get #isTrying(): boolean {
    return this.#calls < trials * this.#teams.length;
  }

  get #index(): number {
    if (this.#isTrying) return this.#calls % this.#teams.length;
    return this.#teamMs.indexOf(Math.min(...this.#teamMs));
  }
}
