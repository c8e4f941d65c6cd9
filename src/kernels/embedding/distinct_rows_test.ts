import assert from "node:assert/strict";
import fc from "fast-check";
import { differentiate } from "../../graph/autodiff.ts";
import { Graph, indices, rows, tiled } from "../../graph/graph.ts";
import { interpret } from "../../graph/interpreter.ts";
import type { NumberArray } from "../../graph/operation.ts";
import { matmul } from "../matmul/operation.ts";
import { selectColumns } from "../select_columns/operation.ts";
import { softmaxCrossEntropy } from "../softmax_cross_entropy/operation.ts";
import { DistinctRows, distinctRowsGradient } from "./distinct_rows.ts";
import { embedding } from "./operation.ts";

Deno.test("DistinctRows lists each id once, in order, and every id finds its place", () => {
  const lists = new DistinctRows(20);
  fc.assert(fc.property(fc.array(fc.integer({ min: -1, max: 19 }), { maxLength: 40 }), (values) => {
    const ids = Int32Array.from(values);
    const [listed, slots] = [new Int32Array(21).fill(77), new Int32Array(ids.length)];
    const expected = [...new Set(values)].filter((id) => id >= 0);
    assert.equal(lists.list(ids, listed, slots), expected.length);
    assert.deepEqual([...listed.subarray(0, expected.length)], expected);
    assert.ok(listed.subarray(expected.length).every((row) => row === -1));
    ids.forEach((id, column) => {
      if (id < 0) assert.equal(slots[column], -1);
      else assert.equal(listed[slots[column]], id);
    });
  }));
});

Deno.test("DistinctRows refuses what does not fit, and goes on working", () => {
  const lists = new DistinctRows(5);
  const slots = new Int32Array(3);
  assert.throws(
    () => lists.list(Int32Array.of(4, 5, 0), new Int32Array(3), slots),
    /row 5: wanted a row below 5/,
  );
  assert.throws(() => lists.list(Int32Array.of(4, -2, 0), new Int32Array(3), slots), /row -2/);
  assert.throws(() => lists.list(Int32Array.of(4, 3, 4), new Int32Array(1), slots), /more than 1 rows/);
  assert.equal(lists.list(Int32Array.of(4, 3, 4), new Int32Array(2), slots), 2);
  assert.deepEqual([...slots], [0, 1, 0]);
});

Deno.test("distinctRowsGradient has the rows of the whole gradient", () => {
  const [vocabulary, features, columns] = [9, 4, 8];
  const graph = new Graph();
  const table = (name: string, count: number) => graph.parameter(name, rows(count, features));
  const list = (name: string) => graph.input(name, indices(columns));
  const x = graph.apply(embedding, {}, [
    table("words", vocabulary),
    table("positions", 8),
    table("types", 2),
    list("tokenIds"),
    list("positionIds"),
    list("typeIds"),
  ])[0];
  const first = graph.apply(selectColumns, {}, [x, graph.input("firstTokens", indices(columns))])[0];
  const weight = graph.parameter("classifier", rows(3, features));
  const product = graph.apply(matmul, { transposed: false, activation: "none" }, [
    first,
    weight,
    undefined,
    undefined,
  ]);
  const [loss] = graph.apply(softmaxCrossEntropy, {}, [product[0], graph.input("labels", indices(columns))]);
  const whole = differentiate(graph, loss).get("words")!;
  const some = distinctRowsGradient(graph, whole, list("slots"), 6);
  assert.deepEqual(some.type, rows(6, features));

  const tokenIds = Int32Array.of(7, 2, 7, 0, 2, -1, -1, -1);
  const [listed, slots] = [new Int32Array(6), new Int32Array(columns)];
  const count = new DistinctRows(vocabulary).list(tokenIds, listed, slots);
  const wave = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(3 * i + length));
  const positions = Int32Array.of(0, 1, 2, 3, 4, -1, -1, -1);
  const values = interpret(
    graph,
    new Map<string, NumberArray>(Object.entries({
      words: wave(vocabulary * features),
      positions: wave(8 * features),
      types: wave(2 * features),
      classifier: wave(3 * features),
      tokenIds,
      slots,
      positionIds: positions,
      typeIds: positions.map((position) => Math.min(position, 0)),
      firstTokens: positions,
      labels: positions.map((position) => position < 0 ? -1 : position % 3),
    })),
  );
  const [dense, compact] = [values.get(whole.id)!, values.get(some.id)!];
  assert.ok(dense.some((value) => value !== 0));
  for (let slot = 0; slot < 6; slot++) {
    const row = compact.subarray(slot * features, (slot + 1) * features);
    const begin = listed[slot] * features;
    if (slot < count) assert.deepEqual(row, dense.subarray(begin, begin + features));
    else assert.ok(row.every((value) => value === 0));
  }
  assert.throws(
    () => distinctRowsGradient(graph, graph.input("other", tiled(4, 8)), list("slots"), 6),
    /wanted the gradient of a table/,
  );
});
