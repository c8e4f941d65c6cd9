/**
 * Deals work to runners: whatever waits when a runner comes free goes out as one batch.
 *
 * Nobody is made to wait for company: an idle runner takes a call as soon as the caller's turn of the event loop ends.
 * Only what arrives while all runners are busy (or in that same turn) is put together. With several runners a batch is a
 * runner's share of what waits, so that a long call is spread over them (guided self-scheduling: Polychronopoulos and
 * Kuck 1987); with one runner it is everything, up to the largest batch. First come, first served.
 * @module
 */

/** How work is dealt. */
export interface BatchQueueOptions<Item, Answer> {
  /** Batches that may run at once. */
  readonly runners: number;
  /** Most cost in a batch; an item that alone costs more is a batch of its own. */
  readonly maximumCost: number;
  /** Most items in a batch. */
  readonly maximumItems: number;
  /** What an item counts. */
  cost(item: Item): number;
  /** Answers a batch, in order, on the runner of that number. */
  run(runner: number, batch: readonly Item[]): Promise<readonly Answer[]>;
}

/** One `submit`. */
interface Call<Answer> {
  readonly answers: Answer[];
  missing: number;
  resolve(answers: Answer[]): void;
  reject(error: unknown): void;
}

interface Waiting<Item, Answer> {
  readonly item: Item;
  readonly cost: number;
  readonly call: Call<Answer>;
  /** Place of the answer in its call. */
  readonly index: number;
}

/** A queue in front of runners. */
export class BatchQueue<Item, Answer> {
  readonly #options: BatchQueueOptions<Item, Answer>;
  readonly #idleRunners: number[];
  readonly #waiting: Waiting<Item, Answer>[] = [];
  #waitingCost = 0;
  /** Why no more calls are taken. */
  #refusal: unknown;
  /** Ends of the calls under way. */
  readonly #underWay = new Set<Promise<unknown>>();

  /** A queue in front of idle runners. */
  constructor(options: BatchQueueOptions<Item, Answer>) {
    this.#options = options;
    this.#idleRunners = Array.from({ length: options.runners }, (_, runner) => runner).reverse();
  }

  /**
   * The answers of all items, in order. When a batch fails, its calls, all that wait and all later ones reject: items
   * were checked before, so a runner that fails has lost a worker.
   */
  submit(items: readonly Item[]): Promise<Answer[]> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    if (items.length === 0) return Promise.resolve([]);
    const promise = new Promise<Answer[]>((resolve, reject) => {
      const call: Call<Answer> = { answers: [], missing: items.length, resolve, reject };
      items.forEach((item, index) => {
        const cost = this.#options.cost(item);
        this.#waiting.push({ item, cost, call, index });
        this.#waitingCost += cost;
      });
    });
    const end = promise.then(() => {}, () => {}).finally(() => this.#underWay.delete(end));
    this.#underWay.add(end);
    queueMicrotask(() => this.#deal());
    return promise;
  }

  /** Takes no more calls; resolves when those before are answered. */
  async close(): Promise<void> {
    this.#refusal ??= new Error("Cannot answer: the session is disposed");
    await Promise.all(this.#underWay);
  }

  #deal(): void {
    while (this.#idleRunners.length > 0 && this.#waiting.length > 0) {
      const runner = this.#idleRunners.pop()!;
      this.#serve(runner, this.#take());
    }
  }

  /** The next batch, off the queue. */
  #take(): Waiting<Item, Answer>[] {
    const { runners, maximumCost, maximumItems } = this.#options;
    const limit = Math.min(maximumCost, Math.ceil(this.#waitingCost / runners));
    let cost = 0;
    let end = 0;
    while (end < Math.min(this.#waiting.length, maximumItems)) {
      const next = this.#waiting[end].cost;
      if (end > 0 && cost + next > limit) break;
      cost += next;
      end++;
    }
    this.#waitingCost -= cost;
    return this.#waiting.splice(0, end);
  }

  async #serve(runner: number, batch: readonly Waiting<Item, Answer>[]): Promise<void> {
    try {
      const answers = await this.#options.run(runner, batch.map(({ item }) => item));
      batch.forEach(({ call, index }, place) => {
        call.answers[index] = answers[place];
        if (--call.missing === 0) call.resolve(call.answers);
      });
    } catch (error) {
      this.#refusal ??= error;
      for (const { call } of [...batch, ...this.#waiting.splice(0)]) call.reject(error);
      this.#waitingCost = 0;
    }
    this.#idleRunners.push(runner);
    this.#deal();
  }
}
