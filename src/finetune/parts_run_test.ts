/** Whole runs that train some parameters less than others, or not at all. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import { openSafetensors } from "../checkpoint/safetensors.ts";
import { type Changes, refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

/** By how much the weights of a folder differ from those of another, at most, by tensor. */
async function movesOf(from: string, to: string): Promise<ReadonlyMap<string, number>> {
  const [before, after] = await Promise.all(
    [from, to].map((dir) => openSafetensors(`${dir}/model.safetensors`)),
  );
  assert.deepEqual(after.names, before.names);
  return new Map(
    await Promise.all(before.names.map(async (name) => {
      const [old, now] = [await before.float32(name), await after.float32(name)];
      return [name, old.reduce((most, value, i) => Math.max(most, Math.abs(value - now[i])), 0)] as const;
    })),
  );
}

Deno.test("finetune does not touch a bit of what is frozen, trains and prunes the rest, and resumes", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const settings = folder.settings({
    model,
    freeze: ["bert.embeddings", "re:.*\\.layer\\.0\\.", "bert.pooler.dense.bias"],
    pruningTargets: ["re:.*layer\\.1\\..*weight"],
    sparsity: 0.5,
    threads: 1,
  });
  const { out } = await resumesAt(folder, settings, 15);
  let frozen = 0;
  for (const [name, move] of await movesOf(model, out)) {
    // The new head is drawn anew.
    if (name.startsWith("classifier")) continue;
    const isFrozen = /embeddings|layer\.0\.|pooler\.dense\.bias/.test(name);
    if (isFrozen) frozen++;
    assert.equal(move === 0, isFrozen, `${name} moved by ${move}`);
  }
  assert.equal(frozen, 5 + 16 + 1);
});

Deno.test("finetune with decayed rates moves each layer by its factor less than the one above", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const learningRate = 1e-3;
  const { out, steps } = await finetune(folder.settings({
    model,
    learningRate,
    layerDecay: 0.5,
    maximumTrainSamples: 16,
    epochs: 1,
    weightDecay: 0,
    warmupSteps: 0,
    sparsity: 0,
    threads: 1,
  }));
  assert.equal(steps, 1);
  const moves = await movesOf(model, out);
  // The first step of AdamW is the rate, up or down.
  const factors = {
    "bert.pooler.dense.weight": 1,
    "layer.1.": 0.5,
    "layer.0.": 0.25,
    "word_embeddings": 0.125,
  };
  for (const [part, factor] of Object.entries(factors)) {
    const most = Math.max(...[...moves].filter(([name]) => name.includes(part)).map(([, move]) => move));
    assert.ok(Math.abs(most / (learningRate * factor) - 1) < 1e-2, `${part} moved by ${most}`);
  }
});

Deno.test("finetune refuses to freeze what there is none of, or everything", async () => {
  await using folder = await TinyFolder.create();
  const cases: [Changes, string | RegExp][] = [
    [
      { freeze: ["bert.embedings"] },
      /^--freeze bert.embedings matches no parameter: wanted names such as bert\./,
    ],
    [{ freeze: ["re:("] }, /^--freeze re:\( is no regular expression: /],
    [
      { freeze: ["bert", "classifier"] },
      "--freeze leaves nothing to train: wanted some parameters that it does not match",
    ],
    [{ layerDecay: 1.1 }, "--layer-lr-decay is 1.1: wanted a number in (0, 1]"],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});
