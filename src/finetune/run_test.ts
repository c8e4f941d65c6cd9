/** Whole runs: masks that hold, counts that are exact, the best model in the folder, the same bits on any threads. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { finetune, type FinetuneResult, pipeline } from "../../mod.ts";
import { parseBertConfig } from "../../models/config.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { openSafetensors } from "../checkpoint/safetensors.ts";
import { exists } from "../core/files.ts";
import { blockGrid, type Pattern } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import type { EvaluationRecord } from "./state.ts";
import { TinyFolder, tinyRows } from "./tiny_run.ts";
import { parameterLayoutOf } from "./parameters.ts";
import { classifier } from "./tasks/classification.ts";

/** The matrices of a folder that pruning is about, as dense numbers, from any format. */
async function prunableMatrices(dir: string) {
  const { tensors } = await openModel(dir);
  return await Promise.all(
    tensors.names.filter(isPrunable).map(async (name) => {
      const [rows, columns] = tensors.shape(name)!;
      return { name, rows, columns, values: await tensors.weight(name, [rows, columns]) };
    }),
  );
}

type Matrix = Awaited<ReturnType<typeof prunableMatrices>>[number];

/** Blocks of a matrix that are zero throughout. */
function zeroBlocks({ rows, columns, values }: Matrix, pattern: Pattern): { zero: number; blocks: number } {
  const grid = blockGrid(pattern, { rows, columns });
  const height = pattern === "4x1" ? 4 : 1;
  let zero = 0;
  for (let block = 0; block < grid.rows * grid.columns; block++) {
    const row = Math.floor(block / grid.columns) * height;
    const column = block % grid.columns;
    const members = Array.from(
      { length: Math.min(height, rows - row) },
      (_, i) => values[(row + i) * columns + column],
    );
    if (members.every((value) => value === 0)) zero++;
  }
  return { zero, blocks: grid.rows * grid.columns };
}

async function accuracyOf(
  dir: string,
  rows: readonly { sentence: string; label: string }[],
): Promise<number> {
  const classify = await pipeline("text-classification", dir, { threads: 1 });
  try {
    const answers = await classify(rows.map(({ sentence }) => sentence));
    return answers.filter(({ label }, index) => label === rows[index].label).length / rows.length;
  } finally {
    await classify.dispose();
  }
}

for (const pattern of ["unstructured", "4x1"] as const) {
  for (const scope of ["layer", "global"] as const) {
    Deno.test(`finetune prunes exactly the share asked for: ${pattern}, ${scope}`, async () => {
      await using folder = await TinyFolder.create();
      for (const sparsity of [0.37, 0.9]) {
        const { out, sparsity: report, exported } = await finetune(
          folder.settings({ pattern, scope, sparsity, overwrite: true, epochs: 3 }),
        );
        const matrices = await prunableMatrices(out);
        assert.equal(matrices.length, 12);
        const counts = matrices.map((matrix) => zeroBlocks(matrix, pattern));
        const groups = scope === "layer" ? counts : [counts.reduce((sum, { zero, blocks }) => ({
          zero: sum.zero + zero,
          blocks: sum.blocks + blocks,
        }))];
        for (const { zero, blocks } of groups) assert.equal(zero, Math.round(sparsity * blocks));
        assert.equal(
          matrices.reduce((sum, { values }) => sum + values.filter((value) => value === 0).length, 0),
          report.layers.reduce((sum, { zeros }) => sum + zeros, 0),
          "the report counts the zeros in the file",
        );
        assert.deepEqual(
          await prunableMatrices(exported!.dir),
          matrices,
          "the sparse folder decodes to the same weights",
        );
      }
    });
  }
}

Deno.test("finetune keeps pruned weights and their moments at zero after every step", async () => {
  await using folder = await TinyFolder.create();
  const statePath = folder.at("out", "training", "state.safetensors");
  const config = parseBertConfig(
    JSON.parse(await Deno.readTextFile(folder.at("config.json"))),
    "config.json",
  );
  const layout = parameterLayoutOf(classifier(config));
  const saves: Promise<Uint8Array>[] = [];
  await finetune(folder.settings({ saveSteps: 1 }), {
    // At this moment the file holds the step before.
    listener: { step: () => saves.push(Deno.readFile(statePath)) },
  });
  saves.push(Deno.readFile(statePath));

  let before: Uint8Array | undefined;
  const prunedCounts: number[] = [];
  for (const [step, save] of saves.entries()) {
    const state = await openSafetensors(await folder.write("state.safetensors", await save));
    const mask = await state.bytes("mask");
    const ranges = await Promise.all(
      ["weights", "firstMoment", "secondMoment"].map((name) => state.float32(name)),
    );
    let pruned = 0;
    for (let index = 0; index < layout.prunableLength; index++) {
      if (mask[index >> 3] & (1 << (index & 7))) continue;
      pruned++;
      for (const values of ranges) assert.equal(values[index], 0, `weight ${index} after step ${step}`);
    }
    before?.forEach((byte, index) =>
      assert.equal(mask[index] & ~byte, 0, `mask byte ${index} after step ${step}`)
    );
    before = mask;
    prunedCounts.push(pruned);
  }
  assert.equal(saves.length, 25);
  assert.deepEqual(prunedCounts.slice(0, 8), Array(8).fill(0), "dense until pruneBegin");
  assert.ok(prunedCounts[10] > 0 && prunedCounts[10] < prunedCounts[14], "a ramp");
  assert.equal(new Set(prunedCounts.slice(18)).size, 1, "constant from pruneEnd on");
});

Deno.test("finetune at sparsity 0 leaves no zeros and has no dense evaluation", async () => {
  await using folder = await TinyFolder.create();
  const result = await finetune(folder.settings({ sparsity: 0, epochs: 1 }));
  assert.equal(result.sparsity.overall, 0);
  assert.equal(result.denseEvaluation, undefined);
  for (const { name, values } of await prunableMatrices(result.out)) assert.ok(!values.includes(0), name);
});

Deno.test("finetune learns, keeps the best model after pruning, reports it, and exports it", async () => {
  await using folder = await TinyFolder.create();
  const rows = tinyRows(48, 2);
  // Judged by the opposite labels a model gets worse the more it learns: the best one is not the last.
  const opposite = rows.map(({ sentence, label }) => ({
    sentence,
    label: label === "positive" ? "negative" : "positive",
  }));
  const misleading = ["sentence\tlabel", ...opposite.map(({ sentence, label }) => `${sentence}\t${label}`)];
  await folder.write("opposite.tsv", misleading.join("\n"));
  for (const [name, judged] of [["eval.tsv", rows], ["opposite.tsv", opposite]] as const) {
    const records: EvaluationRecord[] = [];
    const settings = folder.settings({
      evaluation: folder.at(name),
      epochs: 10,
      sparsity: 0.5,
      learningRate: 2e-2,
      pruneBegin: 0.05,
      pruneEnd: 0.1,
      overwrite: true,
    });
    const result = await finetune(settings, { listener: { evaluation: (record) => records.push(record) } });

    assert.equal(result.steps, 60);
    const dense = result.denseEvaluation!;
    assert.deepEqual([dense.completedSteps, dense.sparsity], [3, 0]);
    const eligible = records.filter(({ completedSteps }) => completedSteps > 6);
    assert.equal(eligible.length, 9);
    assert.ok(eligible.every(({ sparsity }) => Math.abs(sparsity - 0.5) < 1e-9));
    const best = eligible.reduce((a, b) =>
      b.primary.value > a.primary.value || (b.primary.value === a.primary.value && b.loss < a.loss) ? b : a
    );
    assert.deepEqual(result.evaluation, best);
    if (judged === rows) assert.ok(best.primary.value > 0.8, `learned something: ${best.primary.value}`);
    else assert.ok(best.primary.value > records.at(-1)!.primary.value, JSON.stringify(eligible));
    assert.equal(await accuracyOf(result.out, judged), best.primary.value);
    assert.equal(await accuracyOf(result.exported!.dir, judged), best.primary.value);
  }
});

Deno.test("finetune gives the same bits for 1, 2 and 3 threads", async () => {
  await using folder = await TinyFolder.create();
  const results: [FinetuneResult, Uint8Array][] = [];
  for (const threads of [1, 2, 3]) {
    const result = await finetune(folder.settings({ threads, out: folder.at(`out${threads}`) }));
    results.push([result, await Deno.readFile(join(result.out, "model.safetensors"))]);
  }
  const [[first, bytes], ...others] = results;
  for (const [result, otherBytes] of others) {
    assert.deepEqual(otherBytes, bytes);
    assert.deepEqual(result.evaluation, first.evaluation);
    assert.deepEqual(result.denseEvaluation, first.denseEvaluation);
  }
});

Deno.test("finetune without an evaluation file keeps the last model", async () => {
  await using folder = await TinyFolder.create();
  const result = await finetune(folder.settings({ evaluation: undefined, sparsity: 0.5 }));
  assert.equal(result.evaluation, undefined);
  assert.equal(result.denseEvaluation, undefined);
  assert.ok(Math.abs(result.sparsity.overall - 0.5) < 1e-9);
});

Deno.test("finetune starts from a model and gives it the labels of the data, whatever its own were", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model", { id2label: { 0: "no", 1: "maybe", 2: "yes" } });
  const json = JSON.parse(await Deno.readTextFile(join(model, "config.json")));
  await folder.write(
    "model/config.json",
    JSON.stringify({ ...json, architectures: ["BertForMaskedLM"], problem_type: "regression", note: "kept" }),
  );
  const said: string[] = [];
  const { out, exported } = await finetune(folder.settings({ model, epochs: 1 }), {
    listener: { message: (text) => said.push(text) },
  });
  assert.match(said.join("\n"), /newly initialized: \['classifier.bias', 'classifier.weight'\]/);
  for (const dir of [out, exported!.dir]) {
    const written = JSON.parse(await Deno.readTextFile(join(dir, "config.json")));
    assert.deepEqual(written.architectures, ["BertForSequenceClassification"]);
    assert.deepEqual(written.id2label, { 0: "negative", 1: "positive" });
    assert.deepEqual(written.label2id, { negative: 0, positive: 1 });
    assert.equal(written.problem_type, undefined);
    assert.equal(written.note, "kept");
  }
});

Deno.test("finetune keeps the class order of a model that has the same labels, so that its head stays right", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model", { id2label: { 0: "positive", 1: "negative" } });
  const { out } = await finetune(folder.settings({ model, epochs: 1 }));
  const written = JSON.parse(await Deno.readTextFile(join(out, "config.json")));
  assert.deepEqual(written.id2label, { 0: "positive", 1: "negative" });
});

Deno.test("finetune reads every table format, pairs and label names", async () => {
  await using folder = await TinyFolder.create();
  const rows = tinyRows(32, 3);
  const gzip = async (text: string) =>
    new Uint8Array(
      await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer(),
    );
  const files = {
    "rows.csv": `"text","label"\r\n${
      rows.map(({ sentence, label }) => `"${sentence}",${label}`).join("\r\n")
    }`,
    "pairs.jsonl": rows.map(({ sentence, label }) =>
      JSON.stringify({ text1: "the film", text2: sentence, label: label === "positive" })
    ).join("\n"),
    "bare.tsv": rows.map(({ sentence, label }) => `x\t${label === "positive" ? 1 : 0}\t*\t${sentence}`).join(
      "\n",
    ),
  };
  const options = {
    "rows.csv": { labels: ["negative", "positive"] },
    "pairs.jsonl": { labels: ["false", "true"] },
    "bare.tsv": { textColumn: "4", labelColumn: "2", labelNames: ["bad", "good"], labels: ["bad", "good"] },
  };
  for (const [name, text] of Object.entries(files)) {
    const { labels, ...columns } = options[name as keyof typeof options];
    const weights: Uint8Array[] = [];
    for (
      const train of [await folder.write(name, text), await folder.write(`${name}.gz`, await gzip(text))]
    ) {
      const settings = folder.settings({ train, evaluation: train, epochs: 1, overwrite: true, ...columns });
      const { out } = await finetune(settings);
      assert.deepEqual((await openModel(out)).config.labels, labels);
      weights.push(await Deno.readFile(join(out, "model.safetensors")));
    }
    assert.deepEqual(weights[0], weights[1], `${name} and ${name}.gz`);
  }
});

Deno.test("finetune gives up on a run that diverges, with an advice, and what it wrote stays whole", async () => {
  await using folder = await TinyFolder.create();
  await assert.rejects(
    finetune(folder.settings({ learningRate: 1e30, epochs: 8, sparsity: 0, saveSteps: 1 })),
    /gradients are not finite at step \d+ and the 10 before: lower --learning-rate, which is 1e\+30/,
  );
  const state = await openSafetensors(folder.at("out", "training", "state.safetensors"));
  assert.ok((await state.float32("weights")).every(Number.isFinite));
  assert.ok(!await exists(folder.at("out", "config.json")), "no model is written");
});
