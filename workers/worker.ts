/**
 * A worker: links kernels and performs tasks when told to, and otherwise replays programs in lockstep with the others.
 * @module
 */
import * as comlink from "comlink";
import type { CodeImage, LinkedKernel } from "../src/machines/machine.ts";
import { linkImage } from "../src/machines/mod.ts";
import { runPhase } from "../src/plan/executor.ts";
import { Barrier } from "./barrier.ts";
import { pinThread } from "./pin.ts";
import { loadTask } from "./tasks.ts";
import {
  Command,
  Control,
  entryIndex,
  epochIndex,
  pulseIndex,
  wakeAll,
  type WorkerControl,
  type WorkerSetup,
} from "./protocol.ts";

class PoolWorker implements WorkerControl {
  #setup!: WorkerSetup;
  #control!: Int32Array;
  #barrier!: Barrier;
  #epoch = 0;
  readonly #kernels: LinkedKernel[] = [];

  setUp(setup: WorkerSetup): boolean {
    this.#setup = setup;
    this.#control = new Int32Array(setup.control);
    this.#barrier = new Barrier(this.#control, setup.index);
    return setup.core !== undefined && pinThread(setup.core);
  }

  link(image: CodeImage): void {
    this.#kernels.push(...linkImage(image, this.#setup.memory));
  }

  async perform(name: string, argument: unknown): Promise<unknown> {
    const task = await loadTask(name);
    const result = await task.run(this.#setup.memory, argument);
    Atomics.add(this.#control, pulseIndex(this.#setup.index), 1);
    return result;
  }

  serve(): boolean {
    const control = this.#control;
    while (true) {
      if (!this.#barrier.awaitCommand(this.#epoch)) return false;
      this.#epoch = Atomics.load(control, epochIndex(this.#setup.index));
      if (Atomics.load(control, Control.command) === Command.recall) return true;
      try {
        if (!this.#runProgram()) return false;
      } catch (error) {
        Atomics.store(control, Control.aborted, 1 + this.#setup.index);
        wakeAll(control, this.#setup.workers);
        throw error;
      }
    }
  }

  /** Replays the current program; false when another worker failed. */
  #runProgram(): boolean {
    const { index, memory } = this.#setup;
    const team = Atomics.load(this.#control, Control.team);
    const words = new Int32Array(memory.buffer);
    // Addresses from 2 GiB on are negative as i32.
    let position = (Atomics.load(this.#control, entryIndex(index)) >>> 0) / 4;
    const phases = words[position++];
    for (let phase = 0; phase < phases; phase++) {
      position = runPhase(words, position, this.#kernels);
      if (!this.#barrier.pass(team)) return false;
    }
    if (index === 0) {
      Atomics.add(this.#control, Control.finished, 1);
      Atomics.notify(this.#control, Control.finished);
    }
    return true;
  }
}

comlink.expose(new PoolWorker());
