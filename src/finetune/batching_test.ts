/** Batches by tokens and by length, in whole runs: counted right, resumed right, the same on any threads. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { finetune, Interrupted, type StepProgress } from "../../mod.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import type { FinetuneSettings } from "./options.ts";
import { TinyFolder } from "./tiny_run.ts";

const byTokens = { batchSize: undefined, tokensPerBatch: 70 } as const;

/** The ways to make batches besides the usual one. */
const ways: readonly Partial<FinetuneSettings>[] = [
  byTokens,
  { ...byTokens, groupByLength: true },
  { groupByLength: true },
];

const weightsOf = (folder: TinyFolder, out: string) => folder.snapshot(out).get("model.safetensors");

Deno.test("finetune by tokens takes as many steps as batches fit, and tells epochs by them", async () => {
  await using folder = await TinyFolder.create();
  const steps: StepProgress[] = [];
  const epochs: number[] = [];
  const { steps: count, dataWait } = await finetune(folder.settings(byTokens), {
    listener: {
      step: (progress) => steps.push(progress),
      evaluation: ({ sparsity }, epoch) => sparsity > 0 && epochs.push(epoch),
    },
  });
  assert.equal(steps.length, count);
  assert.ok(steps.every(({ totalSteps }) => totalSteps === count));
  assert.deepEqual(steps.map(({ completedSteps }) => completedSteps), Array.from(steps, (_, i) => i + 1));
  // 96 sentences of 4 to 9 tokens, 70 in a batch: 10 to 17 of them.
  assert.ok(count >= 4 * 6 && count <= 4 * 10, `${count}`);
  assert.notEqual(count, 24, "not what the usual batches come to");
  assert.deepEqual(epochs, [2, 3, 4]);
  assert.equal(steps.at(-1)!.epoch, 4);
  assert.ok(dataWait >= 0 && dataWait < 1, `${dataWait}`);
});

Deno.test("finetune trains on single sequences where no two fit into the tokens of a batch", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({
    batchSize: undefined,
    tokensPerBatch: 1,
    epochs: 1,
    learningRate: 1e-4,
  });
  assert.equal((await finetune(settings)).steps, 96);
});

Deno.test("finetune takes all data in one step where they fit", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ batchSize: undefined, tokensPerBatch: 2 ** 53 - 1 });
  assert.equal((await finetune(settings)).steps, 4);
});

Deno.test("finetune by tokens or by length gives the same bits for 1 and 3 threads, and others than by default", async () => {
  await using folder = await TinyFolder.create();
  const weights = new Set<string | undefined>();
  const usual = await finetune(folder.settings({ out: folder.at("usual") }));
  weights.add(weightsOf(folder, usual.out));
  for (const [index, way] of ways.entries()) {
    const outs: (string | undefined)[] = [];
    for (const threads of [1, 3]) {
      const out = folder.at(`out${index}.${threads}`);
      await finetune(folder.settings({ ...way, threads, out }));
      outs.push(weightsOf(folder, out));
    }
    assert.equal(outs[0], outs[1]);
    weights.add(outs[0]);
  }
  assert.equal(weights.size, 1 + ways.length, "each way trains another model");
});

Deno.test("finetune by tokens or by length, interrupted anywhere and resumed, writes the same bytes", async () => {
  await using folder = await TinyFolder.create();
  for (const [index, way] of ways.entries()) {
    const { out, steps } = await finetune(folder.settings({ ...way, out: folder.at(`whole${index}`) }));
    const expected = weightsOf(folder, out);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: steps - 1 }), async (step) => {
        const settings = folder.settings({ ...way, out: folder.at("stopped"), overwrite: true });
        const controller = new AbortController();
        await assert.rejects(
          finetune(settings, {
            signal: controller.signal,
            listener: { step: ({ completedSteps }) => completedSteps === step && controller.abort() },
          }),
          (error) => error instanceof Interrupted && error.message.includes(`at step ${step} of ${steps}`),
        );
        await finetune({ ...settings, overwrite: false, resume: true });
        assert.equal(weightsOf(folder, settings.out), expected);
        await Deno.remove(settings.out, { recursive: true });
      }),
      { numRuns: 2 },
    );
  }
});

Deno.test("finetune does not resume with other batches, and takes the default for what it is", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ batchSize: undefined, maximumTrainSamples: 64, epochs: 1 });
  const { steps } = await finetune(settings);
  assert.equal(steps, 2);
  const cases: [Partial<FinetuneSettings>, RegExp][] = [
    [{ batchSize: 16 }, /batchSize was 32 and is 16 now$/],
    [{ tokensPerBatch: 70 }, /(batchSize was 32 and is not set|tokensPerBatch was not set and is 70) now$/],
    [{ groupByLength: true }, /groupByLength was not set and is true now$/],
  ];
  for (const [changes, message] of cases) {
    await assert.rejects(finetune({ ...settings, ...changes, resume: true }), message);
  }
  await finetune({ ...settings, batchSize: 32, resume: true });
});

Deno.test("finetune interrupted before or while texts are read ends at once and writes nothing", async () => {
  await using folder = await TinyFolder.create();
  const stream = new RandomStream(randomKey(1, "words"));
  const row = (index: number) =>
    `${Array.from({ length: 20 }, () => `word${stream.below(99)}`).join(" ")}\t${index % 2}`;
  const rows = Array.from({ length: 20_000 }, (_, index) => row(index));
  const train = await folder.write("large.tsv", ["sentence\tlabel", ...rows].join("\n"));
  const before = folder.snapshot();
  const expected = { name: "Interrupted", message: "interrupted before the first step: nothing was written" };

  await assert.rejects(finetune(folder.settings(), { signal: AbortSignal.abort() }), expected);

  const controller = new AbortController();
  const told: number[] = [];
  const said: string[] = [];
  const run = finetune(folder.settings({ train, evaluation: undefined }), {
    signal: controller.signal,
    listener: {
      data: ({ rows, totalRows }) => {
        assert.equal(totalRows, 20_000);
        told.push(rows);
        if (rows > 0) controller.abort();
      },
      message: (text) => said.push(text),
    },
  });
  await assert.rejects(run, expected);
  assert.ok(told.at(-1)! > 0 && told.at(-1)! < 20_000, `stopped at ${told.at(-1)}`);
  assert.deepEqual(said, []);
  assert.deepEqual(folder.snapshot(), before);
});
