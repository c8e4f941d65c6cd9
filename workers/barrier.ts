/**
 * Waiting for each other: spin, then sleep, and spin less where spinning does not pay.
 *
 * Threads that spin on two free cores answer each other in 0.35 µs; one that sleeps has to be woken, 3 µs on the same
 * core and 20 µs on another. But on a busy machine the thread waited for may need the very core the other spins on,
 * and then each spin is lost in full. Measured on 2 cores, a MiniLM of 90 % zeros, 16 tokens, 2 workers (median of a
 * call in ms; least call in brackets), while other programs kept 5 threads runnable:
 *
 * | polls before sleep | 200         | 2,000       | 20,000       | 100,000     | no sleep   | 20,000 with patience |
 * | ------------------ | ----------- | ----------- | ------------ | ----------- | ---------- | -------------------- |
 * | ms                 | 1.90 (1.56) | 2.68 (0.95) | 10.20 (0.99) | 59.0 (0.96) | 114 (0.89) | 2.43 (0.88)          |
 *
 * The bracketed numbers are those of quiet moments. In the others the system often runs both workers on one core and
 * leaves the second to other programs; what can be done about that is in `pin.ts`.
 * @module
 */
import { Control, epochIndex, pulseIndex } from "./protocol.ts";

/** Polls of an unbroken spin, 7 ns each: the workers of a phase rarely differ by more than these 150 µs. */
const barrierPolls = 20_000;

/** Between runs there is no one to wait for but the caller, whose thread needs a core too: 15 µs. */
const idlePolls = 2_000;

/** Polls while patience is lost. */
const impatientPolls = 200;

/** Spins in vain, one after another, that cost the patience: one alone may be a phase of uneven shares. */
const vainSpins = 3;

/** Waits until it is tried again. */
const impatientWaits = 16;

/** How long a sleeping worker waits before it shows a sign of life and looks at the abort flag. */
const sleepMs = 100;

/** One worker's way of waiting for words of the control block to change. */
export class Waiter {
  readonly #control: Int32Array;
  readonly #pulse: number;
  readonly #polls: number;
  #vain = 0;
  #impatience = 0;

  /** A waiter of `worker` that spins for `polls` while that pays. */
  constructor(control: Int32Array, worker: number, polls: number) {
    this.#control = control;
    this.#pulse = pulseIndex(worker);
    this.#polls = polls;
  }

  /** Waits until word `index` differs from `value`, or the pool is aborted. */
  wait(index: number, value: number): void {
    const control = this.#control;
    const polls = this.#impatience > 0 ? impatientPolls : this.#polls;
    for (let poll = 0; poll < polls; poll++) {
      if (Atomics.load(control, index) === value) continue;
      this.#vain = 0;
      return;
    }
    if (this.#impatience > 0) this.#impatience--;
    else if (++this.#vain >= vainSpins) this.#impatience = impatientWaits;
    // Whoever changes the word reads `sleepers` afterwards, so either it notifies or `Atomics.wait` sees the change.
    Atomics.add(control, Control.sleepers, 1);
    while (Atomics.load(control, index) === value && Atomics.load(control, Control.aborted) === 0) {
      Atomics.wait(control, index, value, sleepMs);
      Atomics.add(control, this.#pulse, 1);
    }
    Atomics.sub(control, Control.sleepers, 1);
  }
}

/** What one worker waits for: the next command, and the others. */
export class Barrier {
  readonly #control: Int32Array;
  readonly #worker: number;
  readonly #pulse: number;
  readonly #atCommand: Waiter;
  readonly #atBarrier: Waiter;

  /** The barrier as seen by `worker`. */
  constructor(control: Int32Array, worker: number) {
    this.#control = control;
    this.#worker = worker;
    this.#pulse = pulseIndex(worker);
    this.#atCommand = new Waiter(control, worker, idlePolls);
    this.#atBarrier = new Waiter(control, worker, barrierPolls);
  }

  /** Waits for a command after number `epoch`. False when the pool was aborted meanwhile. */
  awaitCommand(epoch: number): boolean {
    this.#atCommand.wait(epochIndex(this.#worker), epoch);
    return Atomics.load(this.#control, Control.aborted) === 0;
  }

  /** Returns true in every worker of a team once all have called it; false when the pool was aborted meanwhile. */
  pass(team: number): boolean {
    const control = this.#control;
    Atomics.add(control, this.#pulse, 1);
    if (team > 1) {
      const generation = Atomics.load(control, Control.generation);
      if (Atomics.add(control, Control.arrived, 1) === team - 1) {
        Atomics.store(control, Control.arrived, 0);
        Atomics.add(control, Control.generation, 1);
        if (Atomics.load(control, Control.sleepers) > 0) Atomics.notify(control, Control.generation);
      } else {
        this.#atBarrier.wait(Control.generation, generation);
      }
    }
    return Atomics.load(control, Control.aborted) === 0;
  }
}
