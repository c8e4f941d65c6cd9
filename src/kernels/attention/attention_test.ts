import assert from "node:assert/strict";
import fc from "fast-check";
import { randomKey, RandomStream } from "../../core/random.ts";
import { indices, rows, tiled } from "../../graph/graph.ts";
import type { NumberArray } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import {
  centralDifferences,
  conform,
  type ConformanceCase,
  normals,
  padColumns,
  runOperation,
} from "../conformance.ts";
import { attentionGradient } from "./gradient.ts";
import { attention, type AttentionAttributes } from "./operation.ts";
import { attentionReference } from "./reference.ts";

/** The list of offsets of sequences of these lengths, padded with its last entry. */
function offsetsOf(lengths: readonly number[], sequences: number): Int32Array {
  const offsets = new Int32Array(sequences + 1);
  for (let i = 0; i < sequences; i++) offsets[i + 1] = offsets[i] + (lengths[i] ?? 0);
  return offsets;
}

interface Batch {
  readonly name: string;
  readonly heads: number;
  readonly headSize: number;
  readonly dropout?: number;
  readonly training?: boolean;
  /** Padding columns besides those up to a whole tile, in tiles. */
  readonly spareTiles?: number;
  readonly lengths: (tile: number) => readonly number[];
}

const batches: readonly Batch[] = [
  { name: "one token", heads: 1, headSize: 1, lengths: () => [1] },
  { name: "no sequence at all", heads: 2, headSize: 3, lengths: () => [] },
  { name: "one whole tile", heads: 2, headSize: 8, lengths: (tile) => [tile] },
  {
    name: "lengths around a vector, empty ones between",
    heads: 3,
    headSize: 5,
    lengths: () => [3, 0, 4, 5, 0, 0, 1, 7, 8, 9, 2],
  },
  {
    name: "lengths around a wide vector",
    heads: 1,
    headSize: 7,
    lengths: () => [15, 1, 16, 17, 31, 33],
  },
  {
    name: "borders of tiles crossed at every offset",
    heads: 2,
    headSize: 3,
    spareTiles: 2,
    lengths: (tile) => [tile - 1, 2, tile, tile + 1, 2 * tile + 3, 1, 3 * tile - 1],
  },
  { name: "four heads of 32", heads: 4, headSize: 32, lengths: () => [13, 21, 9, 40] },
  { name: "heads of 64", heads: 2, headSize: 64, lengths: () => [50, 3, 77], training: false },
  { name: "a long sequence", heads: 1, headSize: 4, lengths: () => [5, 300] },
  {
    name: "probabilities dropped",
    heads: 3,
    headSize: 6,
    dropout: 0.3,
    lengths: (tile) => [5, tile, 1, 2 * tile + 1, 0, 3],
  },
  { name: "most probabilities dropped", heads: 1, headSize: 2, dropout: 0.9, lengths: () => [19, 30] },
];

function makeOperands({ heads, headSize, dropout = 0, training = true, spareTiles = 0, lengths }: Batch, {
  tile,
  random,
}: { tile: number; random: RandomStream }) {
  const list = lengths(tile);
  const sequences = padColumns(list.length + 1, tile);
  const used = list.reduce((a, b) => a + b, 0);
  const matrix = tiled(heads * headSize, padColumns(Math.max(used, 1), tile) + spareTiles * tile);
  const attributes: AttentionAttributes = { heads, dropout, stream: 3, training };
  const offsets = offsetsOf(list, sequences);
  const seed = Int32Array.of(random.below(2 ** 32) | 0, random.below(2 ** 32) | 0);
  return {
    attributes,
    matrix,
    used,
    offsets,
    seed: dropout > 0 ? seed : undefined,
    listTypes: [indices(sequences + 1), dropout > 0 ? indices(2) : undefined],
    q: normals(random, matrix),
    k: normals(random, matrix),
    v: normals(random, matrix),
  };
}

function forwardCase(batch: Batch): ConformanceCase<AttentionAttributes> {
  return {
    name: batch.name,
    seed: 11,
    // Scores of magnitude √headSize · 3 carry their rounding through exp; sums have up to 300 terms.
    tolerance: { relative: 4e-6, absolute: 2e-6 },
    build(request) {
      const { attributes, matrix, listTypes, q, k, v, offsets, seed } = makeOperands(batch, request);
      return {
        attributes,
        inputTypes: [matrix, matrix, matrix, ...listTypes],
        inputs: [q, k, v, offsets, seed],
      };
    },
  };
}

function backwardCase(batch: Batch): ConformanceCase<AttentionAttributes> {
  return {
    name: batch.name,
    seed: 12,
    // Sums over queries of differences that cancel: errors scale with the summands, not with the result.
    tolerance: { relative: 1e-5, absolute: 2e-5 },
    build(request) {
      const { attributes, matrix, used, listTypes, q, k, v, offsets, seed } = makeOperands(batch, request);
      const [features, columns] = matrix.shape;
      const sizes = { ...attributes, headSize: features / attributes.heads, columns };
      const { context, logSumExp } = attentionReference(q, k, v, offsets, seed, sizes);
      const gradContext = normals(request.random, matrix).map((value, i) => i % columns < used ? value : 0);
      return {
        attributes,
        inputTypes: [matrix, matrix, matrix, matrix, matrix, rows(attributes.heads, columns), ...listTypes],
        inputs: [gradContext, q, k, v, context, logSumExp, offsets, seed],
      };
    },
  };
}

Deno.test("attention conforms", (t) => conform(t, attention, batches.map(forwardCase)));

Deno.test("attentionGradient conforms", (t) => conform(t, attentionGradient, batches.map(backwardCase)));

Deno.test("attention and its gradient agree with the reference on random batches", () => {
  const machines = availableMachines();
  fc.assert(
    fc.property(
      fc.array(fc.nat(23), { maxLength: 12 }),
      fc.constantFrom([1, 2], [2, 5], [3, 4]),
      fc.constantFrom(0, 0.2),
      fc.constantFrom(16, 48),
      fc.integer({ min: 1, max: 5 }),
      fc.nat(),
      (list, [heads, headSize], dropout, tile, workers, seed) => {
        const machine = machines[seed % machines.length];
        const request = { tile, random: new RandomStream(randomKey(seed)) };
        const batch: Batch = { name: "random", heads, headSize, dropout, lengths: () => list };
        for (
          const [operation, oneCase] of [
            [attention, forwardCase(batch)],
            [attentionGradient, backwardCase(batch)],
          ] as const
        ) {
          const { attributes, inputs, inputTypes } = oneCase.build(request);
          const outputTypes = operation.infer(inputTypes, attributes);
          const expected = operation.reference(inputs, { attributes, inputTypes, outputTypes });
          const found = runOperation(operation, attributes, inputs, inputTypes, { machine, tile, workers });
          const { relative, absolute } = oneCase.tolerance;
          found.forEach((result, output) =>
            result.forEach((value, i) => {
              const wanted = expected[output][i];
              const close = Math.abs(value - wanted) <= absolute + relative * Math.abs(wanted);
              assert(close, `${operation.name} output ${output}, element ${i} is ${value}, wanted ${wanted}`);
            })
          );
        }
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("attention has the gradient of its reference", () => {
  for (const dropout of [0, 0.4]) {
    for (const [heads, headSize] of [[1, 3], [2, 2]]) {
      const matrix = tiled(heads * headSize, 12);
      const wave = (phase: number) =>
        Float64Array.from({ length: heads * headSize * 12 }, (_, i) => Math.sin(phase + 1.7 * i * i));
      const offsets = offsetsOf([1, 4, 0, 5], 6);
      centralDifferences(attention, {
        seed: 5,
        attributes: { heads, dropout, stream: 9, training: true },
        inputTypes: [matrix, matrix, matrix, indices(7), indices(2)],
        inputs: [wave(0), wave(1), wave(2), offsets, Int32Array.of(-5, 77)],
        upstream: [wave(3), undefined],
      });
    }
  }
});

/** Whether any element of the column is NaN, for each column. */
function columnsWithNaN(matrix: NumberArray, columns: number): boolean[] {
  return Array.from(
    { length: columns },
    (_, column) => matrix.some((value, i) => i % columns === column && Number.isNaN(value)),
  );
}

Deno.test("attention: NaN and ∞ in a sequence or in the padding stay there, forward and backward", () => {
  const batch: Batch = { name: "", heads: 2, headSize: 5, lengths: () => [3, 6, 1, 9, 5] };
  const offsets = offsetsOf(batch.lengths(0), 16);
  const matrix = tiled(10, 32);
  const columns = 32;
  const used = 24;
  const wave = (phase: number) =>
    Float32Array.from({ length: 320 }, (_, i) => i % columns < used ? Math.sin(phase + 1.7 * i * i) : 0);
  const attributes: AttentionAttributes = { heads: 2, dropout: 0, stream: 0, training: true };
  for (const machine of availableMachines()) {
    for (const bad of [NaN, Infinity, -Infinity]) {
      // Sequence 1 is the columns 3 to 8. One of its values is bad, and so is all padding.
      for (const operand of [0, 1, 2]) {
        const [q, k, v] = [wave(0), wave(1), wave(2)];
        [q, k, v][operand][4 * columns + 6] = bad;
        for (const array of [q, k, v]) array.forEach((_, i) => i % columns >= used && (array[i] = bad));
        const options = { machine, tile: 16, workers: 2 };
        const types = [matrix, matrix, matrix, indices(17), undefined];
        const [context, logSumExp] = runOperation(
          attention,
          attributes,
          [q, k, v, offsets, undefined],
          types,
          options,
        );
        const clean = runOperation(
          attention,
          attributes,
          [wave(0), wave(1), wave(2), offsets, undefined],
          types,
          options,
        );
        const gradients = runOperation(
          attentionGradient,
          attributes,
          [wave(3), q, k, v, context, logSumExp, offsets, undefined],
          [matrix, matrix, matrix, matrix, matrix, rows(2, columns), indices(17), undefined],
          options,
        );
        const results = [context, logSumExp, ...gradients];
        for (const result of results) {
          result.forEach((value, i) => {
            const column = i % columns;
            if (column >= used) assert.equal(value, 0, `padding column ${column} with ${bad} in ${operand}`);
            else if (column < 3 || column > 8) assert(Number.isFinite(value), `column ${column} is ${value}`);
          });
        }
        context.forEach((value, i) => {
          if (i % columns < 3 || i % columns > 8) assert.equal(value, clean[0][i]);
        });
        if (Number.isNaN(bad)) {
          const affected = columnsWithNaN(context, columns);
          // A bad query spoils its own column; a bad key or value is seen by all queries of its sequence.
          for (let column = 3; column < 9; column++) {
            assert.equal(affected[column], operand > 0 || column === 6);
          }
          for (const gradient of gradients.slice(0, 2)) {
            assert(
              columnsWithNaN(gradient, columns).some(Boolean),
              "NaN must reach the gradients of q and k",
            );
          }
        }
      }
    }
  }
});

Deno.test("attention: the log-sum-exp of large scores does not overflow", () => {
  const machine = availableMachines()[0];
  const matrix = tiled(1, 16);
  const q = new Float32Array(16).fill(100);
  const k = Float32Array.from({ length: 16 }, (_, i) => i);
  const attributes: AttentionAttributes = { heads: 1, dropout: 0, stream: 0, training: true };
  const [context, logSumExp] = runOperation(
    attention,
    attributes,
    [q, k, k, Int32Array.of(0, 16, 16), undefined],
    [matrix, matrix, matrix, indices(3), undefined],
    { machine, tile: 16, workers: 1 },
  );
  assert.deepEqual(Array.from(context), new Array(16).fill(15));
  assert.deepEqual(Array.from(logSumExp), new Array(16).fill(1500));
});

Deno.test("attention rejects bad attributes and shapes, and has no gradient unless training", () => {
  const matrix = tiled(6, 8);
  const good: AttentionAttributes = { heads: 2, dropout: 0, stream: 0, training: true };
  const types = [matrix, matrix, matrix, indices(9), undefined];
  assert.equal(attention.infer(types, good).length, 2);
  assert.throws(
    () => attention.infer(types, { ...good, heads: 4 }),
    /Cannot apply attention: wanted .*4 heads/,
  );
  assert.throws(
    () => attention.infer(types, { ...good, dropout: 0.1 }),
    /i32 rows \[2\] if there is dropout/,
  );
  assert.throws(
    () => attention.infer(types, { ...good, dropout: 1 }),
    /dropout is 1, wanted 0 ≤ dropout < 1/,
  );
  assert.throws(
    () => attention.infer([matrix, tiled(6, 16), matrix, indices(9), undefined], good),
    /Cannot apply attention/,
  );
  assert.throws(
    () =>
      attentionGradient.infer(
        [matrix, matrix, matrix, matrix, matrix, rows(2, 7), indices(9), undefined],
        good,
      ),
    /logSumExp is \[2,7\], wanted \[2, 8\]/,
  );
  const check = {
    seed: 1,
    attributes: { ...good, training: false },
    inputTypes: types,
    inputs: [...[1, 2, 3].map(() => new Float64Array(48)), offsetsOf([8], 8), undefined],
  };
  assert.throws(() => centralDifferences(attention, check), /without training: true/);
});
