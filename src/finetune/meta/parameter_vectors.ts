/**
 * Passes over the trained parameters of a trainer, spread over its workers. Stretches and the order in which their sums
 * are added follow from the layout alone, so that no result depends on the number of workers.
 * @module
 */
import type { FloatArray } from "../../kernels/optimizer/rule.ts";
import type { Task } from "../../plan/executor.ts";
import type { ParameterGroup } from "../groups.ts";
import type { ParameterLayout, ParameterSlot } from "../parameters.ts";
import { type PassRequest, task } from "./meta_task.ts";
import type { PassArguments, PassSums } from "./passes.ts";

/** What MetaAdamW needs of a trainer; `Trainer` is one. */
export interface MetaTrainer<Example> {
  readonly layout: Pick<ParameterLayout, "slots" | "length" | "prunableLength">;
  readonly groups: readonly ParameterGroup[];
  /** In the order of the layout; live views in shared memory, to be used while settled. So are the others. */
  readonly weights: FloatArray;
  /** Has `firstMoment` and `secondMoment`. */
  readonly states: ReadonlyMap<string, FloatArray>;
  readonly gradients: FloatArray;
  /** Bits of the prunable range. */
  readonly mask: Uint32Array;
  /** Brings weights and states into the order of the layout. */
  settle(): Promise<void>;
  /** Loss and, in `gradients`, the gradient of a batch without dropout; changes no weight. */
  gradient(batch: readonly Example[]): Promise<number>;
  /** Loss of a batch without dropout; may leave the trainer unsettled. */
  evaluate(batch: readonly Example[]): Promise<{ readonly loss: number }>;
  /** Settles, then runs a task on workers. */
  perform<A, R>(task: Task<A, R>, request: () => readonly A[]): Promise<R[]>;
}

/** A piece of a parameter. */
export interface Stretch {
  readonly slot: ParameterSlot;
  /** Elements of the flat range. */
  readonly begin: number;
  readonly end: number;
}

/** Elements of a task at most; a million take some milliseconds. */
const taskElements = 2 ** 20;

/** The trained parameters of a trainer. */
export class ParameterVectors {
  readonly slots: readonly ParameterSlot[];
  readonly #trainer: Pick<MetaTrainer<never>, "perform" | "mask" | "layout">;
  readonly #bundles: readonly (readonly Stretch[])[];

  constructor(trainer: Pick<MetaTrainer<never>, "perform" | "mask" | "layout" | "groups">) {
    const trained = new Set(trainer.groups.flatMap(({ names }) => [...names]));
    this.#trainer = trainer;
    this.slots = trainer.layout.slots.filter(({ name }) => trained.has(name));
    this.#bundles = bundle(this.slots);
  }

  /** Makes a pass over every stretch; gives the sums of each slot. `request` is called while the trainer is settled. */
  async run<P extends keyof PassSums>(
    pass: P,
    request: (stretch: Stretch) => PassArguments[P],
  ): Promise<ReadonlyMap<ParameterSlot, PassSums[P]>> {
    const results = await this.#trainer.perform(
      task as Task<PassRequest<P>, PassSums[P][]>,
      () => this.#bundles.map((stretches) => ({ pass, stretches: stretches.map(request) })),
    );
    const sums = new Map<ParameterSlot, PassSums[P]>();
    this.#bundles.forEach((stretches, index) =>
      stretches.forEach(({ slot }, i) => sums.set(slot, addSums(sums.get(slot), results[index][i])))
    );
    return sums;
  }

  /** The mask of a stretch; undefined where nothing can be pruned. To be called in a request. */
  maskOf({ begin, end }: Stretch): Uint32Array | undefined {
    if (end > this.#trainer.layout.prunableLength) return undefined;
    return this.#trainer.mask.subarray(begin / 32, Math.ceil(end / 32));
  }
}

/** Adds up sums by name. */
export function addSums<S extends object>(a: S | undefined, b: S): S {
  if (!a) return b;
  const added = (Object.keys(b) as (keyof S)[]).map((name) => [name, Number(a[name]) + Number(b[name])]);
  return Object.fromEntries(added) as S;
}

/** A zeroed array of that kind and length in shared memory. */
export function sharedLike(array: FloatArray): FloatArray {
  const memory = new SharedArrayBuffer(array.byteLength);
  return array instanceof Float64Array ? new Float64Array(memory) : new Float32Array(memory);
}

/** Cuts slots into stretches, and puts those together that are small. Slots begin at multiples of 64. */
function bundle(slots: readonly ParameterSlot[]): Stretch[][] {
  const bundles: Stretch[][] = [];
  let room = 0;
  for (const slot of slots) {
    const last = slot.offset + slot.length;
    for (let begin = slot.offset; begin < last; begin += taskElements) {
      const end = Math.min(last, begin + taskElements);
      if (end - begin > room) {
        bundles.push([]);
        room = taskElements;
      }
      bundles.at(-1)!.push({ slot, begin, end });
      room -= end - begin;
    }
  }
  return bundles;
}
