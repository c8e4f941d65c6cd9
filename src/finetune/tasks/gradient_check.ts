/**
 * Checks the gradients of a whole model with its loss against central differences, in float64: for tests of tasks.
 * @module
 */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { differentiate } from "../../graph/autodiff.ts";
import { elementCount, Graph, type Value } from "../../graph/graph.ts";
import { interpret } from "../../graph/interpreter.ts";
import type { NumberArray } from "../../graph/operation.ts";
import type { BatchCapacity } from "../memory.ts";
import type { TrainingModel } from "../training_model.ts";

/**
 * The gradient of every parameter, at its largest entry and at one drawn, dropout included. Tiled inputs must be of one
 * tile. Gives the loss.
 */
export function checkModelGradients<Example>(
  model: TrainingModel<Example>,
  batch: readonly Example[],
  size: BatchCapacity,
): number {
  const request = { ...size, mode: "train", dropout: true } as const;
  const graph = new Graph();
  const gradients = differentiate(graph, model.build(graph, request).loss);
  const forward = new Graph();
  const { loss } = model.build(forward, request);

  const views = new Map(
    Object.entries(model.inputs(size)).map(([name, { dtype, length }]) =>
      [name, dtype === "i32" ? new Int32Array(length) : new Float32Array(length)] as const
    ),
  );
  model.fill(batch, views, randomKey(3), "train");
  const feeds = new Map<string, NumberArray>(
    Array.from(views, ([name, view]) => [name, view instanceof Int32Array ? view : Float64Array.from(view)]),
  );
  feeds.set("seed", Int32Array.of(12345, -6789));
  const stream = new RandomStream(randomKey(7));
  for (const [name, { type }] of graph.parameters) {
    const offset = name.endsWith("LayerNorm.weight") ? 1 : 0;
    feeds.set(name, Float64Array.from({ length: elementCount(type) }, () => offset + 0.3 * stream.normal()));
  }
  const values = interpret(graph, feeds);
  const lossAt = () => interpret(forward, feeds).get(loss.id)![0];

  assert.deepEqual([...gradients.keys()].sort(), [...graph.parameters.keys()].sort(), "all have a gradient");
  checkDifferences({ gradients, values, feeds, lossAt, stream });
  return lossAt();
}

/** The gradients of a graph as they were computed, and how to compute its loss anew. */
export interface DifferenceRequest {
  /** By name of the parameter. */
  readonly gradients: ReadonlyMap<string, Value>;
  /** What the graph came to, by the ids of its values. */
  readonly values: ReadonlyMap<number, NumberArray>;
  /** Parameters by name among what the graph is fed; changed and put back. */
  readonly feeds: ReadonlyMap<string, NumberArray>;
  /** The loss of what the feeds hold now. */
  readonly lossAt: () => number;
  /** Draws the second entry. */
  readonly stream: RandomStream;
}

/**
 * Holds the gradient of every parameter against central differences, at two entries: the largest, so that an embedding row that is
 * not used cannot stand for all, and one that is drawn.
 */
export function checkDifferences({ gradients, values, feeds, lossAt, stream }: DifferenceRequest): void {
  const step = 1e-5;
  for (const [name, gradient] of gradients) {
    const parameter = feeds.get(name)!;
    const analytic = values.get(gradient.id)!;
    let largest = 0;
    analytic.forEach((value, i) => Math.abs(value) > Math.abs(analytic[largest]) && (largest = i));
    for (const index of [largest, stream.below(parameter.length)]) {
      const kept = parameter[index];
      parameter[index] = kept + step;
      const above = lossAt();
      parameter[index] = kept - step;
      const below = lossAt();
      parameter[index] = kept;
      const numeric = (above - below) / (2 * step);
      assert.ok(
        Math.abs(numeric - analytic[index]) <= 1e-8 + 1e-5 * Math.abs(numeric),
        `${name}[${index}]: autodiff ${analytic[index]}, central difference ${numeric}`,
      );
    }
  }
}
