/**
 * Calls to a thread that may die before it answers.
 * @module
 */
import type * as comlink from "comlink";
import { ofItsKind } from "./errors.ts";

/** Calls end with an answer, with the error that the thread threw, or with the reason why it answers no more. */
export class ThreadCalls<T> {
  readonly #remote: comlink.Remote<T>;
  /** Rejections of the calls under way. */
  readonly #pending = new Set<(error: Error) => void>();
  #failure: Error | undefined;

  constructor(remote: comlink.Remote<T>) {
    this.#remote = remote;
  }

  /** Why the thread answers no more. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Makes a call, and waits for its answer or for the end of the thread. */
  call<R>(ask: (remote: comlink.Remote<T>) => Promise<R>): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#pending.add(reject);
      ask(this.#remote)
        .then(resolve, (error) => reject(ofItsKind(error)))
        .finally(() => this.#pending.delete(reject));
    });
  }

  /** Later calls reject; those under way still get their answers. The first reason stays. */
  refuse(reason: string): void {
    this.#failure ??= new Error(reason);
  }

  /** All calls reject, those under way too. The first reason stays. */
  fail(reason: string): void {
    this.refuse(reason);
    for (const reject of this.#pending) reject(this.#failure!);
  }
}
