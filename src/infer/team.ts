/**
 * How many workers share a run: all, or one where a run is so small that waking and waiting for others costs more.
 *
 * Which is faster is tried out on the first calls of a size, in turns; results are the same bits. BERT-tiny with 90 % zeros
 * and 16 tokens takes one worker 0.09 ms and two 0.14. Two can also fall into a slow gait, 0.5 ms, in which each sleeps
 * while the other computes; so times are watched further on.
 * @module
 */

/** Multiply-adds below which one worker is tried: about a hundred microseconds of work. */
const smallRun = 8e6;

/** Calls of each team before the faster one is kept. */
const trials = 8;

/** Weight of a later call in the time its team is thought to take. */
const learning = 0.1;

/** A call that takes longer than so many times that counts as so long: single calls are late, slow gaits last. */
const mostSurprise = 1.5;

/**
 * How fast the team at rest is thought to become a tenth faster than the other, by call: so it is tried again now and
 * then, one call in a hundred where the two are far apart. First calls are slow, and slow gaits end.
 */
const hope = 0.02;

/** The choice for runs of one size. */
export class TeamChoice {
  readonly #teams: readonly number[];
  /** What each team is thought to take: the least of its trials at first. */
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
    if (this.#isTrying) {
      this.#teamMs[index] = Math.min(this.#teamMs[index], milliseconds);
    } else {
      const hoped = 0.9 * this.#teamMs[index];
      this.#teamMs.forEach((known, team) => {
        const [goal, weight] = team === index
          ? [Math.min(milliseconds, mostSurprise * known), learning]
          : [hoped, hope];
        this.#teamMs[team] = known + weight * (goal - known);
      });
    }
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
