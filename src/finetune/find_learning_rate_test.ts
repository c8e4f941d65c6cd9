import assert from "node:assert/strict";
import { presetConfig } from "../../models/presets.ts";
import { InputError } from "../core/errors.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import type { EncodedExample } from "../data/batches.ts";
import { findLearningRate, type FindLearningRateOptions } from "./find_learning_rate.ts";
import type { FinderPoint } from "./learning_rate_suggestions.ts";
import { classifier } from "./tasks/classification.ts";
import { tinyTrainer } from "./tiny_trainer.ts";
import type { Trainer } from "./trainer.ts";

/** With dropout, and a word table that is updated lazily. */
const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 600, maximumPositions: 16, labels: ["a", "b", "c"] }),
  ...{ hiddenSize: 16, heads: 2, intermediateSize: 32, layers: 2, initializerRange: 0.2 },
};

const batches: EncodedExample[][] = Array.from({ length: 7 }, (_, batch) => {
  const random = new RandomStream(randomKey(3, "batch", batch));
  return Array.from({ length: 8 }, () => {
    const ids = Int32Array.from({ length: 2 + random.below(8) }, () => 1 + random.below(30));
    return { ids, typeIds: new Uint8Array(ids.length), label: ids[0] % 3 };
  });
});

const batchesAt = (index: number) => [batches[index % batches.length]];

class Tiny implements AsyncDisposable {
  private constructor(readonly trainer: Trainer<EncodedExample>) {}

  static async create(): Promise<Tiny> {
    return new Tiny(await tinyTrainer(classifier(config), { workers: 1 }));
  }

  /** Steps from `first` on, and everything there is after them. */
  async train(first: number, count: number): Promise<Float32Array[]> {
    const { trainer } = this;
    for (let step = first; step < first + count; step++) {
      await trainer.step([batches[step % 7]], step, { learningRate: 1e-3, weightDecay: 0.01 });
    }
    return await this.everything();
  }

  async everything(): Promise<Float32Array[]> {
    await this.trainer.settle();
    return [this.trainer.weights, ...this.trainer.states.values()].map((array) => array.slice());
  }

  /** Zeroes weights for good, and their states with them. */
  async prune(bits: number): Promise<void> {
    await this.trainer.settle();
    this.trainer.mask.fill(bits);
    this.trainer.applyMask();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.trainer.dispose();
  }
}

Deno.test("findLearningRate takes rates in a geometric progression and smooths without bias", async () => {
  await using tiny = await Tiny.create();
  const heard: FinderPoint[] = [];
  const { points } = await findLearningRate(tiny.trainer, batchesAt, {
    lowest: 1e-6,
    highest: 1e-3,
    steps: 30,
    point: (point, index) => assert.equal(heard.push(point), index + 1),
  });
  assert.equal(points.length, 30);
  assert.deepEqual(heard, points);
  assert.equal(points[0].learningRate, 1e-6);
  assert.ok(Math.abs(points[20].learningRate - 1e-4) < 1e-15);
  assert.ok(points[29].learningRate < 1e-3);
  let sum = 0;
  let weights = 0;
  for (const { loss, smoothed } of points) {
    sum = 0.98 * sum + loss;
    weights = 0.98 * weights + 1;
    assert.ok(Math.abs(smoothed - sum / weights) < 1e-12);
  }
  assert.ok(Math.abs(points[0].smoothed - points[0].loss) < 1e-12);
});

Deno.test("findLearningRate leaves weights and states as they were, and a training goes on to the same bits", async () => {
  await using searched = await Tiny.create();
  await using alone = await Tiny.create();
  for (const tiny of [searched, alone]) {
    await tiny.train(1, 5);
    await tiny.prune(0x0f0f0f0f);
    await tiny.train(6, 5);
  }
  const before = await searched.everything();
  const { points } = await findLearningRate(searched.trainer, batchesAt, { highest: 1, weightDecay: 0.1 });
  assert.ok(points.length >= 20);
  assert.deepEqual(await searched.everything(), before);
  assert.deepEqual(await searched.train(11, 5), await alone.train(11, 5));
});

Deno.test("findLearningRate stops where the loss diverges, and suggests a rate with which the model learns", async () => {
  await using tiny = await Tiny.create();
  const { points, suggestion, suggested, stopped } = await findLearningRate(tiny.trainer, batchesAt, {
    lowest: 1e-5,
    highest: 1e3,
  });
  assert.equal(stopped, "the loss is 4 times its lowest");
  assert.ok(points.length < 100);
  const lowest = Math.min(...points.map(({ smoothed }) => smoothed));
  assert.ok(points.at(-1)!.smoothed > 4 * lowest);
  assert.ok(points.slice(0, -1).every(({ smoothed }) => smoothed <= 4 * lowest));
  for (const rate of [suggestion.valley, suggestion.steep, suggested]) {
    assert.ok(points.some(({ learningRate }) => learningRate === rate));
  }
  const firstLoss = (await tiny.trainer.evaluate(batches[0])).loss;
  for (let step = 1; step <= 40; step++) {
    await tiny.trainer.step([batches[0]], step, { learningRate: suggested, weightDecay: 0 });
  }
  assert.ok((await tiny.trainer.evaluate(batches[0])).loss < 0.5 * firstLoss, `with ${suggested}`);
});

Deno.test("findLearningRate suggests no more than the cap", async () => {
  await using tiny = await Tiny.create();
  const { suggestion, suggested } = await findLearningRate(tiny.trainer, batchesAt, {
    highest: 1,
    cap: 1e-6,
  });
  assert.ok(suggestion.valley > 1e-6);
  assert.equal(suggested, 1e-6);
});

Deno.test("findLearningRate restores everything when it is aborted", async () => {
  await using tiny = await Tiny.create();
  const before = await tiny.everything();
  const controller = new AbortController();
  await assert.rejects(
    findLearningRate(tiny.trainer, batchesAt, {
      lowest: 1e-3,
      signal: controller.signal,
      point: (_, index) => index === 3 && controller.abort(new Error("enough")),
    }),
    { message: "enough" },
  );
  assert.deepEqual(await tiny.everything(), before);
});

Deno.test("findLearningRate refuses bad input with one line", async () => {
  await using tiny = await Tiny.create();
  const refused: readonly [FindLearningRateOptions, RegExp][] = [
    [{ lowest: 0 }, /lowest is 0, wanted a positive number/],
    [{ lowest: 1e-3, highest: 1e-3 }, /highest is 0\.001, wanted more than lowest, which is 0\.001/],
    [{ steps: 19 }, /steps is 19, wanted a whole number of at least 20/],
    [{ cap: NaN }, /cap is NaN/],
    [
      { lowest: 1e3, highest: 1e6 },
      /4 times its lowest after \d+ of 100 steps from 1000, wanted a lower first/,
    ],
  ];
  for (const [options, message] of refused) {
    await assert.rejects(
      findLearningRate(tiny.trainer, batchesAt, options),
      (error) => error instanceof InputError && message.test(error.message),
      JSON.stringify(options),
    );
  }
});
