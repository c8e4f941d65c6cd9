/**
 * How many workers share a run: all, or one where a run is so small that waking and waiting for others costs more.
 *
 * Which is faster is tried out on the first calls of a size, in turns; results are the same bits. BERT-tiny with 90 % zeros
 * and 16 tokens takes one worker 0.09 ms and two 0.14.
 * @module
 */

/** Multiply-adds below which one worker is tried: a few hundred microseconds of work. */
const smallRun = 40e6;

/** Calls of each team before the faster one is kept. */
const trials = 4;

/** The choice for runs of one size. */
export class TeamChoice {
  readonly #teams: readonly number[];
  readonly #bestMs: number[];
  #calls = 0;

  /** For runs of so many multiply-adds on an executor of so many workers. */
  constructor(multiplyAdds: number, workers: number) {
    this.#teams = workers > 1 && multiplyAdds < smallRun ? [1, workers] : [workers];
    this.#bestMs = this.#teams.map(() => Infinity);
  }

  /** The team of the next run. */
  get team(): number {
    return this.#teams[this.#index];
  }

  /** Tells how long a run of `team` took. */
  note(milliseconds: number): void {
    this.#bestMs[this.#index] = Math.min(this.#bestMs[this.#index], milliseconds);
    this.#calls++;
  }

  get #index(): number {
    const count = this.#teams.length;
    if (this.#calls < trials * count) return this.#calls % count;
    return this.#bestMs.indexOf(Math.min(...this.#bestMs));
  }
}
