import assert from "node:assert/strict";
import { Graph, rows } from "./graph.ts";
import { interpret } from "./interpreter.ts";
import type { Operation } from "./operation.ts";

/** [a + b, a · b], b optional and 1 when left out. */
const addAndMultiply: Operation<Record<never, never>> = {
  name: "addAndMultiply",
  infer: ([a]) => [a!, a!],
  reference: (
    [a, b],
  ) => [a!.map((value, i) => value + (b?.[i] ?? 1)), a!.map((value, i) => value * (b?.[i] ?? 1))],
  lower: () => [],
};

function example() {
  const graph = new Graph();
  const weight = graph.parameter("weight", rows(2));
  const x = graph.input("x", rows(2));
  const [sum, product] = graph.apply(addAndMultiply, {}, [weight, x]);
  const [last] = graph.apply(addAndMultiply, {}, [sum, undefined]);
  return { graph, weight, x, sum, product, last };
}

Deno.test("interpret evaluates every node in order, in the precision of the feeds", () => {
  const { graph, weight, sum, product, last } = example();
  const feeds = new Map([["weight", Float64Array.of(0.1, 2)], ["x", Float64Array.of(0.2, 5)]]);
  const arrays = interpret(graph, feeds);
  assert.deepEqual(arrays.get(weight.id), Float64Array.of(0.1, 2));
  assert.deepEqual(arrays.get(sum.id), Float64Array.of(0.1 + 0.2, 7));
  assert.deepEqual(arrays.get(product.id), Float64Array.of(0.1 * 0.2, 10));
  assert.deepEqual(arrays.get(last.id), Float64Array.of(0.1 + 0.2 + 1, 8));
});

Deno.test("interpret names the value whose feed is missing or too short", () => {
  const { graph } = example();
  const weight = Float32Array.of(1, 2);
  assert.throws(
    () => interpret(graph, new Map([["weight", weight]])),
    /interpret x: found no array, wanted f32 rows \[2\]/,
  );
  assert.throws(
    () => interpret(graph, new Map([["weight", weight], ["x", Float32Array.of(1)]])),
    /interpret x: found 1 elements/,
  );
});
