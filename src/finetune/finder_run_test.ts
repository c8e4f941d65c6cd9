/** The learning-rate finder on a run's own settings: it suggests a rate that learns, and leaves no trace. */
import assert from "node:assert/strict";
import { type FinderPoint, findLearningRate, finetune, InputError, Interrupted } from "../../mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { TinyFolder } from "./tiny_run.ts";

Deno.test("findLearningRate suggests a rate with which the run learns, twice the same, and writes nothing", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ threads: 1, sparsity: 0, learningRateSchedule: "constant" });
  const before = folder.snapshot();
  const heard: FinderPoint[] = [];
  const found = await findLearningRate(settings, {
    point: (point, index) => assert.equal(heard.push(point), index + 1),
  });
  assert.deepEqual(heard, found.points);
  assert.deepEqual(await findLearningRate(settings), found);
  assert.deepEqual(folder.snapshot(), before);
  assert.ok(found.points.some(({ learningRate }) => learningRate === found.suggested), `${found.suggested}`);
  const lossAt = async (learningRate: number) => {
    const { evaluation } = await finetune({ ...settings, learningRate, overwrite: true });
    return evaluation!.loss;
  };
  const [low, suggested] = [await lossAt(1e-7), await lossAt(found.suggested)];
  assert.ok(suggested < low - 0.03, `${low} with 1e-7, ${suggested} with ${found.suggested}`);
});

Deno.test("findLearningRate takes any optimiser and task, and stays below the limit of a pretrained encoder", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const variants: Partial<FinetuneSettings>[] = [
    { optimizer: "sgd", optimizerOptions: { momentum: 0.9 }, accumulation: 2 },
    { optimizer: "metaadamw", freeze: ["bert.embeddings"] },
    { pruningMethod: "movement", teacher: "dense", learningRateSchedule: "one_cycle" },
    { task: "masked-lm" },
  ];
  for (const changes of variants) {
    const { points, suggested } = await findLearningRate(folder.settings({ threads: 1, ...changes }));
    assert.ok(suggested >= 1e-7 && suggested < 10);
    assert.ok(points.slice(0, 20).every(({ loss }) => Number.isFinite(loss)), JSON.stringify(changes));
  }
  const { points, suggested } = await findLearningRate(folder.settings({ threads: 1, model }));
  assert.ok(points.at(-1)!.learningRate < 1e-2);
  assert.ok(suggested <= 1e-4, `${suggested}`);
});

Deno.test("findLearningRate searches where a run is already, and leaves it as it is", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ threads: 1, epochs: 1, evaluation: undefined });
  await finetune(settings);
  const before = folder.snapshot();
  await findLearningRate(settings);
  await findLearningRate({ ...settings, resume: true });
  assert.deepEqual(folder.snapshot(), before);
});

Deno.test("findLearningRate ends when it is told to, and refuses what the run could not have", async () => {
  await using folder = await TinyFolder.create();
  const before = folder.snapshot();
  const controller = new AbortController();
  await assert.rejects(
    findLearningRate(folder.settings({ threads: 1 }), {
      signal: controller.signal,
      point: (_, index) => index === 2 && controller.abort(),
    }),
    new Interrupted("interrupted while it searched: nothing was written"),
  );
  const cases: [Partial<FinetuneSettings>, string][] = [
    [
      { optimizer: "lion" as never },
      "--optimizer is lion: wanted one of adamw, adam, sgd, rmsprop, metaadamw",
    ],
    [{ textColumn: "review" }, '/train.tsv has no column "review"; it has sentence, label'],
    [{ weightDecay: 2 }, "--weight-decay is 2: wanted a number in [0, 1]"],
    [{ train: undefined }, "--train is missing: wanted a training file (.tsv, .csv or .jsonl, also .gz)"],
  ];
  for (const [changes, message] of cases) {
    await assert.rejects(findLearningRate(folder.settings({ threads: 1, ...changes })), (error) => {
      assert.ok(error instanceof InputError, `${error}`);
      assert.equal(error.message.replaceAll(folder.path, ""), message);
      return true;
    });
  }
  assert.deepEqual(folder.snapshot(), before);
});
