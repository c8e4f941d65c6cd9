/**
 * A trainer in float64 for tests of MetaAdamW: logistic regression with a hidden layer, whose gradients are exact.
 * @module
 */
import { randomKey, RandomStream } from "../../core/random.ts";
import { updateRule } from "../../kernels/optimizer/optimizers.ts";
import type { OptimizerSettings } from "../../kernels/optimizer/rule.ts";
import type { Task } from "../../plan/executor.ts";
import type { ParameterGroup } from "../groups.ts";
import { isDecayed, type ParameterSlot, slotEnd } from "../parameters.ts";
import type { MetaTrainer } from "./parameter_vectors.ts";

/** A point and its value. */
export interface ToyExample {
  readonly x: readonly number[];
  readonly y: number;
}

/** AdamW as the toy is trained with it. */
export const toyOptimizer: OptimizerSettings = {
  name: "adamw",
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-6,
  amsgrad: false,
};

const [inputs, hidden] = [3, 4];
const shapes = [
  ["layer.0.dense.weight", [hidden, inputs]],
  ["layer.1.attention.weight", [1, hidden]],
  ["layer.0.dense.bias", [hidden]],
] as const;

/** y ≈ a · tanh(W x + b), mean squared error. The first matrix can be pruned. */
export class ToyTrainer implements MetaTrainer<ToyExample> {
  readonly layout: { slots: ParameterSlot[]; length: number; prunableLength: number };
  readonly groups: readonly ParameterGroup[];
  readonly weights: Float64Array;
  readonly gradients: Float64Array;
  readonly states: ReadonlyMap<string, Float64Array>;
  readonly mask: Uint32Array;

  constructor() {
    const slots: ParameterSlot[] = [];
    for (const [name, shape] of shapes) {
      const offset = slots.length > 0 ? slotEnd(slots.at(-1)!) : 0;
      slots.push({ name, shape, offset, length: shape.reduce((a: number, b) => a * b) });
    }
    const length = slotEnd(slots.at(-1)!);
    this.layout = { slots, length, prunableLength: slotEnd(slots[0]) };
    this.groups = slots.map(({ name }, index) => ({
      names: new Set([name]),
      decayed: isDecayed(name),
      rateFactor: 1 - index / 4,
      part: "",
    }));
    const random = new RandomStream(randomKey(11, "toy"));
    const array = (of: () => number) => Float64Array.from({ length }, of);
    this.weights = array(() => 0.5 * random.normal());
    this.gradients = array(() => NaN);
    this.states = new Map([
      ["firstMoment", array(() => 0.1 * random.normal())],
      ["secondMoment", array(() => 0.1 * random.uniform())],
    ]);
    this.mask = new Uint32Array(this.layout.prunableLength / 32).fill(0xffffffff);
  }

  /** Prunes elements of the first matrix, as the real trainer does: they become 0, and their moments. */
  prune(...elements: readonly number[]): void {
    for (const i of elements) {
      this.mask[i >> 5] &= ~(1 << (i & 31));
      this.weights[i] = 0;
      for (const state of this.states.values()) state[i] = 0;
    }
  }

  /** Nothing is ever unsettled. */
  settle(): Promise<void> {
    return Promise.resolve();
  }

  gradient(batch: readonly ToyExample[]): Promise<number> {
    const [w, a, b] = this.layout.slots.map(({ offset }) => offset);
    const { weights, gradients } = this;
    gradients.fill(0);
    let loss = 0;
    for (const { x, y } of batch) {
      const h = Array.from(
        { length: hidden },
        (_, j) =>
          Math.tanh(x.reduce((sum, value, i) => sum + value * weights[w + j * inputs + i], weights[b + j])),
      );
      const error = h.reduce((sum, value, j) => sum + value * weights[a + j], -y);
      loss += error * error / batch.length;
      h.forEach((value, j) => {
        const slope = 2 * error / batch.length;
        gradients[a + j] += slope * value;
        const inner = slope * weights[a + j] * (1 - value * value);
        gradients[b + j] += inner;
        x.forEach((input, i) => gradients[w + j * inputs + i] += inner * input);
      });
    }
    return Promise.resolve(loss);
  }

  async evaluate(batch: readonly ToyExample[]): Promise<{ readonly loss: number }> {
    const kept = this.gradients.slice();
    const loss = await this.gradient(batch);
    this.gradients.set(kept);
    return { loss };
  }

  async perform<A, R>(task: Task<A, R>, request: () => readonly A[]): Promise<R[]> {
    const results: R[] = [];
    for (const each of request()) results.push(await task.run(new WebAssembly.Memory({ initial: 0 }), each));
    return results;
  }

  /** AdamW's step by the reference, on the present gradients; each group with its own rate and decay. */
  step(step: number, told: (group: number) => { learningRate: number; weightDecay: number }, clip = 1): void {
    const rule = updateRule(toyOptimizer);
    this.layout.slots.forEach(({ offset, length }, group) => {
      const cut = (array: Float64Array) => array.subarray(offset, offset + length);
      const state = {
        weights: cut(this.weights),
        states: rule.states.map((name) => cut(this.states.get(name)!)),
      };
      const mask = group === 0 ? this.mask : undefined;
      rule.reference(state, cut(this.gradients), told(group), step, clip, mask);
    });
  }

  /** An exact copy. */
  clone(): ToyTrainer {
    const copy = new ToyTrainer();
    copy.weights.set(this.weights);
    copy.gradients.set(this.gradients);
    copy.mask.set(this.mask);
    for (const [name, state] of this.states) copy.states.get(name)!.set(state);
    return copy;
  }
}

/** Examples for the toy. */
export function toyBatch(size: number, seed: number): ToyExample[] {
  const random = new RandomStream(randomKey(seed, "toy batch"));
  return Array.from({ length: size }, () => {
    const x = Array.from({ length: inputs }, () => random.normal());
    return { x, y: Math.sin(x[0]) + 0.5 * x[1] * x[2] };
  });
}
