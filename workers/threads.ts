/**
 * Starting threads: a fresh one needs some 50 to 100 ms to load its modules, so whoever will need a pool starts them
 * first and does other things meanwhile.
 * @module
 */
import { checkThreads } from "../src/plan/executor.ts";

/** Starts the thread of a pool worker; debuggers and profilers show its number. */
export function startThread(index: number): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: `lacuna-${index}` });
}

/** Threads that belong to no pool yet. Pools take them; whoever made them ends what is left. */
export class SpareThreads implements Disposable {
  readonly #threads: Worker[];

  /** Starts that many threads. Throws `InputError` for what is no number of threads. */
  constructor(count: number) {
    this.#threads = Array.from({ length: checkThreads(count) }, (_, index) => startThread(index));
    for (const thread of this.#threads) thread.addEventListener("error", this.#note);
  }

  readonly #note = (event: ErrorEvent): void => {
    event.preventDefault();
    const index = this.#threads.indexOf(event.target as Worker);
    if (index >= 0) this.#threads.splice(index, 1); // The pool starts another, which fails where it is heard.
  };

  /** A thread that runs already, if there is one left. */
  take(): Worker | undefined {
    const thread = this.#threads.shift();
    thread?.removeEventListener("error", this.#note);
    return thread;
  }

  /** Ends those that nobody took. */
  [Symbol.dispose](): void {
    for (const thread of this.#threads.splice(0)) thread.terminate();
  }
}
