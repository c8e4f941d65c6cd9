/** The masked language model's head against its formula, in float64. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../src/core/random.ts";
import { elementCount, Graph } from "../src/graph/graph.ts";
import { interpret } from "../src/graph/interpreter.ts";
import type { NumberArray } from "../src/graph/operation.ts";
import { gelu } from "../src/kernels/gelu/reference.ts";
import { bertInputs } from "./bert.ts";
import { buildMaskedLm, maskedLmInputs } from "./bert_masked_lm.ts";
import { maskedLmTensorShapes } from "./masked_lm_config.ts";
import { presetConfig } from "./presets.ts";

Deno.test("buildMaskedLm: words · LayerNorm(gelu(dense(hidden))) + bias at the masked tokens, and the mean loss there", () => {
  const config = presetConfig("bert-tiny", {
    vocabularySize: 11,
    hiddenSize: 4,
    heads: 2,
    layers: 1,
    intermediateSize: 8,
    maximumPositions: 8,
  });
  const [columns, sequences, guesses] = [16, 16, 8];
  const graph = new Graph();
  const { hidden, logits, loss } = buildMaskedLm(graph, config, {
    columns,
    sequences,
    guesses,
    mode: "evaluate",
  });
  assert.deepEqual(
    Array.from(graph.parameters.keys()).sort(),
    [...maskedLmTensorShapes(config).keys()].sort(),
  );

  const list = (length: number, values: readonly number[]) => {
    const array = new Int32Array(length).fill(-1);
    array.set(values);
    return array;
  };
  const masked = [[2, 7], [5, 3], [6, 10]] as const;
  const feeds = new Map<string, NumberArray>([
    [bertInputs.tokenIds, list(columns, [2, 9, 4, 3, 2, 4, 8, 3])],
    [bertInputs.positionIds, list(columns, [0, 1, 2, 3, 0, 1, 2, 3])],
    [bertInputs.typeIds, list(columns, [0, 0, 0, 0, 0, 0, 0, 0])],
    [bertInputs.offsets, new Int32Array(sequences + 1).fill(8).fill(0, 0, 1).fill(4, 1, 2)],
    [maskedLmInputs.maskedColumns, list(guesses, masked.map(([column]) => column))],
    [maskedLmInputs.maskedTokens, list(guesses, masked.map(([, token]) => token))],
  ]);
  const stream = new RandomStream(randomKey(1));
  for (const [name, { type }] of graph.parameters) {
    feeds.set(name, Float64Array.from({ length: elementCount(type) }, () => stream.normal()));
  }
  const values = interpret(graph, feeds);
  const last = values.get(hidden.at(-1)!.id)!;
  const found = values.get(logits.id)!;

  const { hiddenSize: size, vocabularySize } = config;
  const parameter = (name: string) => feeds.get(`cls.predictions.${name}`)!;
  const words = feeds.get("bert.embeddings.word_embeddings.weight")!;
  const units = Array.from({ length: size }, (_, unit) => unit);
  const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-10, `${a}, wanted ${b}`);
  let lossSum = 0;
  masked.forEach(([column, token], guess) => {
    const activated = units.map((row) =>
      gelu(
        parameter("transform.dense.bias")[row] +
          units.reduce(
            (sum, unit) =>
              sum + parameter("transform.dense.weight")[row * size + unit] * last[unit * columns + column],
            0,
          ),
      )
    );
    const mean = activated.reduce((sum, value) => sum + value) / size;
    const variance = activated.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size;
    const normalised = units.map((unit) =>
      parameter("transform.LayerNorm.weight")[unit] * (activated[unit] - mean) /
        Math.sqrt(variance + config.layerNormEpsilon) + parameter("transform.LayerNorm.bias")[unit]
    );
    const expected = Array.from({ length: vocabularySize }, (_, word) =>
      parameter("bias")[word] +
      units.reduce((sum, unit) => sum + words[word * size + unit] * normalised[unit], 0));
    expected.forEach((value, word) => close(found[word * guesses + guess], value));
    lossSum += Math.log(expected.reduce((sum, value) => sum + Math.exp(value), 0)) - expected[token];
  });
  close(values.get(loss!.id)![0], lossSum / masked.length);
});
