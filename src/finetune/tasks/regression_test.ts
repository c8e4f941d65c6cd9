import assert from "node:assert/strict";
import { presetConfig } from "../../../models/presets.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { encodedSetOf } from "../../data/encoded_set.ts";
import { encodedExamples } from "../../data/example_set.ts";
import { checkModelGradients } from "./gradient_check.ts";
import { evaluateRegression, regressor } from "./regression.ts";
import { tinyTrainer, trainSteps } from "../tiny_trainer.ts";

const config = presetConfig("bert-tiny", {
  vocabularySize: 20,
  hiddenSize: 16,
  heads: 2,
  layers: 1,
  intermediateSize: 32,
  maximumPositions: 12,
  initializerRange: 0.2,
  hiddenDropout: 0.1,
  attentionDropout: 0.1,
  labels: ["score"],
});

/** Sequences whose score is the share of words above 12, from 0 to 5. */
function scoredSet(count: number, seed: number) {
  const stream = new RandomStream(randomKey(seed));
  return encodedExamples(encodedSetOf(Array.from({ length: count }, () => {
    const words = Array.from({ length: 3 + stream.below(6) }, () => 5 + stream.below(15));
    const ids = Int32Array.from([2, ...words, 3]);
    const target = 5 * words.filter((word) => word > 12).length / words.length;
    return { ids, typeIds: new Uint8Array(ids.length), label: -1, target };
  })));
}

Deno.test("the regressor's gradients are central differences", () => {
  const { at } = scoredSet(3, 1);
  const loss = checkModelGradients(regressor(config), [0, 1, 2].map(at), { columns: 32, sequences: 8 });
  assert.ok(loss > 0 && loss < 100, `${loss}`);
});

Deno.test("a tiny regressor learns scores, and its evaluation agrees with its loss", async () => {
  const train = scoredSet(96, 1);
  const evaluation = scoredSet(48, 2);
  const limit = { sequences: 32, tokens: Infinity };
  const trainer = await tinyTrainer(regressor(config), { maximumSequences: 32, maximumTokens: 320 });
  const batches = [0, 1, 2].map((batch) => Array.from({ length: 32 }, (_, i) => train.at(32 * batch + i)));
  const losses = await trainSteps(trainer, batches, 90, 5e-3);
  assert.ok(losses.at(-1)! < losses[0] / 4, `${losses[0]} to ${losses.at(-1)}`);
  const { metrics, loss, examples } = await evaluateRegression(trainer, evaluation, limit);
  assert.equal(examples, 48);
  assert.ok(metrics.pearson > 0.8 && metrics.spearman > 0.8, JSON.stringify(metrics));
  const one = Array.from({ length: 32 }, (_, index) => evaluation.at(index));
  const { loss: batchLoss } = await trainer.evaluate(one);
  const same = await evaluateRegression(
    trainer,
    { lengths: evaluation.lengths, at: evaluation.at },
    { sequences: 7, tokens: Infinity },
  );
  assert.ok(Math.abs(same.loss - loss) < 1e-6 * loss, "whatever the batches");
  const first = await evaluateRegression(
    trainer,
    { lengths: Array.from(evaluation.lengths).slice(0, 32), at: evaluation.at },
    limit,
  );
  assert.ok(
    Math.abs(first.loss - batchLoss) < 1e-5 * batchLoss,
    `${first.loss}, the kernel says ${batchLoss}`,
  );
  await trainer.dispose();
});
