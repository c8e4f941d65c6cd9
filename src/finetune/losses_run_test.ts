/** Whole runs with another loss: smoothed labels and weights of classes. */
import assert from "node:assert/strict";
import { finetune, type FinetuneResult } from "../../mod.ts";
import type { FinetuneSettings } from "./options.ts";
import { refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

const short = { sparsity: 0, threads: 1 } as const;

/** The loss of the first step, and of the last ones, as the progress has it. */
async function lossesOf(settings: FinetuneSettings): Promise<readonly number[]> {
  const losses: number[] = [];
  await finetune({ ...settings, overwrite: true }, { listener: { step: ({ loss }) => losses.push(loss) } });
  return losses;
}

Deno.test("finetune with smoothed labels has the entropy of the labels as its least loss", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ ...short, maximumTrainSamples: 16, epochs: 60, evaluation: undefined });
  // A share of 0.4 over two classes: 0.8 for the right one.
  const entropy = -0.8 * Math.log(0.8) - 0.2 * Math.log(0.2);
  const smoothed = await lossesOf({ ...settings, labelSmoothing: 0.4 });
  const plain = await lossesOf(settings);
  assert.ok(
    smoothed.at(-1)! >= entropy && smoothed.at(-1)! < entropy + 0.1,
    `${smoothed.at(-1)}, ${entropy}`,
  );
  assert.ok(plain.at(-1)! < entropy - 0.1, `without it the loss falls on: ${plain.at(-1)}`);
});

Deno.test("finetune with weights of classes learns the class that counts, and resumes to the same bytes", async () => {
  await using folder = await TinyFolder.create();
  const settings = folder.settings({ ...short, epochs: 2 });
  // All answers are the class that counts, so half of them are right. F1 is that of class 1: 2 · 24 / (48 + 24).
  const positive = await resumesAt(folder, { ...settings, classWeights: [0, 1] }, 5);
  assert.deepEqual(namedMetrics(positive), { accuracy: 0.5, matthews: 0, f1: 48 / 72 });
  const negative = await finetune({ ...settings, classWeights: [1, 0], overwrite: true });
  assert.deepEqual(namedMetrics(negative), { accuracy: 0.5, matthews: 0, f1: 0 });
});

function namedMetrics({ evaluation }: FinetuneResult): Record<string, number> {
  const { accuracy, matthews, f1 } = evaluation!.metrics;
  return { accuracy, matthews, f1 };
}

Deno.test("balanced weights of classes are 1 where classes are alike, and those by hand where they are not", async () => {
  await using folder = await TinyFolder.create();
  const rare = [
    "sentence\tlabel",
    ...Array.from(
      { length: 48 },
      (_, i) => i % 4 === 0 ? `the lovely film ${i}\tpositive` : `the awful plot ${i}\tnegative`,
    ),
  ];
  const train = await folder.write("rare.tsv", rare.join("\n"));
  const weightsOf = async (changes: Partial<FinetuneSettings>) => {
    const { out } = await finetune(folder.settings({ ...short, epochs: 1, overwrite: true, ...changes }));
    return folder.snapshot(out).get("model.safetensors");
  };
  const plain = await weightsOf({});
  assert.equal(await weightsOf({ classWeights: "balanced" }), plain);
  // 36 negative and 12 positive: 48 / (2 · 36) and 48 / (2 · 12).
  const balanced = await weightsOf({ train, classWeights: "balanced" });
  assert.equal(balanced, await weightsOf({ train, classWeights: [2 / 3, 2] }));
  assert.notEqual(balanced, await weightsOf({ train }));
});

Deno.test("finetune refuses losses that make no sense with one line", async () => {
  await using folder = await TinyFolder.create();
  const wanted = "wanted balanced, or 2 numbers of at least 0 and one above, for negative, positive";
  const cases: [unknown, string][] = [
    [[1], `--class-weights are 1: ${wanted}`],
    [[1, 2, 3], `--class-weights are 1, 2, 3: ${wanted}`],
    [[1, -1], `--class-weights are 1, -1: ${wanted}`],
    [[1, NaN], `--class-weights are 1, NaN: ${wanted}`],
    [[1, Infinity], `--class-weights are 1, Infinity: ${wanted}`],
    [[0, 0], `--class-weights are 0, 0: ${wanted}`],
  ];
  for (const [classWeights, message] of cases) await refuses(folder, { classWeights }, message);
  await refuses(
    folder,
    { labelSmoothing: NaN },
    "--label-smoothing-factor is NaN: wanted a number in [0, 1)",
  );
});
