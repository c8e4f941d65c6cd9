import assert from "node:assert/strict";
import { presetConfig } from "../../../models/presets.ts";
import { maskedLmInputs } from "../../../models/bert_masked_lm.ts";
import { bertInputs } from "../../../models/bert.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { encodedSetOf } from "../../data/encoded_set.ts";
import { encodedExamples } from "../../data/example_set.ts";
import { checkModelGradients } from "./gradient_check.ts";
import { evaluateMaskedLm, maskedLanguageModel } from "./masked_lm.ts";
import { tinyTrainer, trainSteps } from "../tiny_trainer.ts";

const vocabularySize = 19;
const rule = { maskId: 4, vocabularySize, before: 1, after: 1 };
const config = presetConfig("bert-tiny", {
  vocabularySize,
  hiddenSize: 16,
  heads: 2,
  layers: 1,
  intermediateSize: 32,
  maximumPositions: 16,
  initializerRange: 0.2,
  hiddenDropout: 0.1,
  attentionDropout: 0.1,
});

/** Sequences of one word each, which context gives away: [CLS] w w w … [SEP]. */
function repetitiveSet(count: number, seed: number) {
  const stream = new RandomStream(randomKey(seed));
  return encodedExamples(encodedSetOf(Array.from({ length: count }, () => {
    const word = 5 + stream.below(vocabularySize - 5);
    const ids = Int32Array.from([2, ...new Array(6 + stream.below(7)).fill(word), 3]);
    return { ids, typeIds: new Uint8Array(ids.length), label: -1 };
  })));
}

Deno.test("the masked language model's gradients are central differences, the tied word table's among them", () => {
  const { at } = repetitiveSet(2, 1);
  const model = maskedLanguageModel(config, rule);
  const loss = checkModelGradients(model, [at(0), at(1)], { columns: 32, sequences: 4 });
  assert.ok(loss > 1 && loss < 20, `${loss}`);
});

Deno.test("masks follow from step and example: new ones in each step, the same in every evaluation", () => {
  const model = maskedLanguageModel(config, rule);
  const set = repetitiveSet(3, 1);
  const size = { columns: 64, sequences: 32 };
  const fill = (numbers: readonly number[], key?: ReturnType<typeof randomKey>) => {
    const views = new Map(
      Object.entries(model.inputs(size)).map(([name, { length }]) => [name, new Int32Array(length)]),
    );
    model.fill(numbers.map(set.at), views, key, "train");
    return views;
  };
  assert.deepEqual(fill([0, 1, 2], randomKey(5)), fill([0, 1, 2], randomKey(5)));
  assert.notDeepEqual(fill([0, 1, 2], randomKey(5)), fill([0, 1, 2], randomKey(6)));
  assert.deepEqual(fill([0, 1, 2]), fill([0, 1, 2]));
  const length = set.at(0).ids.length;
  const idsOf = (views: ReadonlyMap<string, Int32Array>) => views.get(bertInputs.tokenIds)!;
  const behind = idsOf(fill([1, 0])).subarray(set.at(1).ids.length, set.at(1).ids.length + length);
  assert.deepEqual(behind, idsOf(fill([0])).subarray(0, length), "wherever it is in a batch");

  const views = fill([0, 1, 2]);
  const columns = views.get(maskedLmInputs.maskedColumns)!.filter((column) => column >= 0);
  const tokens = views.get(maskedLmInputs.maskedTokens)!;
  const original = [0, 1, 2].flatMap((number) => [...set.at(number).ids]);
  assert.ok(columns.length >= 3);
  columns.forEach((column, guess) => assert.equal(tokens[guess], original[column]));
  assert.ok(tokens.subarray(columns.length).every((token) => token === -1));
});

Deno.test("a tiny masked language model learns words that their context gives away, alike for any workers", async () => {
  const train = repetitiveSet(48, 1);
  const evaluation = repetitiveSet(24, 2);
  const batches = [0, 1, 2].map((batch) => Array.from({ length: 16 }, (_, i) => train.at(16 * batch + i)));
  const limit = { sequences: 16, tokens: Infinity };
  const weights: Float32Array[] = [];
  for (const workers of [2, 3]) {
    const model = maskedLanguageModel(config, rule);
    const trainer = await tinyTrainer(model, { maximumSequences: 16, maximumTokens: 240, workers });
    const before = await evaluateMaskedLm(trainer, evaluation, limit, rule);
    const losses = await trainSteps(trainer, batches, 60, 1e-2);
    const after = await evaluateMaskedLm(trainer, evaluation, limit, rule);
    assert.equal(after.examples, 24);
    assert.ok(losses[0] > 2 && losses.at(-1)! < losses[0] / 2, `${losses[0]} to ${losses.at(-1)}`);
    assert.ok(after.loss < before.loss / 2, `${before.loss} to ${after.loss}`);
    assert.ok(after.metrics.accuracy > 0.7, `accuracy ${after.metrics.accuracy}`);
    assert.deepEqual(await evaluateMaskedLm(trainer, evaluation, limit, rule), after);
    await trainer.settle();
    weights.push(trainer.weights.slice());
    await trainer.dispose();
  }
  assert.deepEqual(weights[0], weights[1]);
});
