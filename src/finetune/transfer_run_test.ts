/** Sparse transfer and pruning of some layers: which weights a run leaves zero, and which alone. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { finetune, type FinetuneSettings } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

const short = { evaluation: undefined, epochs: 2, threads: 1 } satisfies Partial<FinetuneSettings>;

/** Where the prunable matrices of a folder are zero, by name: a text of 0 and 1. */
async function zerosOf(dir: string): Promise<ReadonlyMap<string, string>> {
  const { tensors } = await openModel(dir);
  const masks = tensors.names.filter(isPrunable).map(async (name) => {
    const values = await tensors.weight(name, tensors.shape(name)!);
    return [name, Array.from(values, (value) => value === 0 ? 0 : 1).join("")] as const;
  });
  return new Map(await Promise.all(masks));
}

/** A checkpoint pruned in that pattern. */
async function prunedModel(folder: TinyFolder, changes: Partial<FinetuneSettings>): Promise<string> {
  const { out } = await finetune(folder.settings({ ...short, ...changes, out: folder.at("pruned") }));
  return out;
}

const share = (mask: string) => mask.split("0").length - 1;

for (const [pattern, sparsity] of [["unstructured", 0.75], ["2:4", 0.5]] as const) {
  Deno.test(`sparse transfer keeps every zero of a checkpoint (${pattern}) and makes none, also after a stop`, async () => {
    await using folder = await TinyFolder.create();
    const model = await prunedModel(folder, { pattern, sparsity, scope: "global" });
    const before = await zerosOf(model);
    const run = { ...short, init: undefined, model, pruningMethod: "constant" } as const;
    const { out, sparsity: report, exported } = await resumesAt(folder, folder.settings(run), 5);
    assert.equal(report.overall, sparsity);
    for (const dir of [out, exported!.dir]) assert.deepEqual(await zerosOf(dir), before);
    const weights = (dir: string) => folder.snapshot(dir).get("model.safetensors");
    assert.notEqual(weights(out), weights(model), "what is left has learned");
  });
}

Deno.test("models/recipes/sparse-transfer.yaml keeps zeros while a dense model teaches", async () => {
  await using folder = await TinyFolder.create();
  const model = await prunedModel(folder, { sparsity: 0.7 });
  const teacher = await folder.writeModel("teacher", { id2label: { 0: "negative", 1: "positive" } });
  const recipe = fileURLToPath(new URL("../../models/recipes/sparse-transfer.yaml", import.meta.url));
  const settings = { ...short, init: undefined, model, recipe, recipeArguments: '{"num_epochs": 2}' };
  await refuses(
    folder,
    settings,
    /: DistillationModifier: it has no teacher: wanted teacher: dense, a model folder, or /,
  );
  const { out, steps } = await finetune(folder.settings({ ...settings, teacher }));
  assert.equal(steps, 12);
  assert.deepEqual(await zerosOf(out), await zerosOf(model));
});

Deno.test("a pruned checkpoint that is pruned on keeps its zeros", async () => {
  await using folder = await TinyFolder.create();
  const model = await prunedModel(folder, { sparsity: 0.5 });
  const before = await zerosOf(model);
  const run = { ...short, init: undefined, model, sparsity: 0.75 };
  const recipe = await folder.write(
    "r.yaml",
    `modifiers:
  - !ConstantPruningModifier {end_step: 4}
  - !GMPruningModifier {init_sparsity: __FROM_PARAM__, final_sparsity: 0.75, start_step: 4, end_step: 8}
`,
  );
  const { out, sparsity } = await resumesAt(folder, folder.settings({ ...run, recipe }), 5);
  assert.equal(sparsity.overall, 0.75);
  for (const [name, mask] of await zerosOf(out)) {
    const kept = before.get(name)!;
    for (let index = 0; index < mask.length; index++) {
      assert.ok(mask[index] <= kept[index], `${name} ${index}`);
    }
  }
});

Deno.test("pruning takes the layers that are named, and leaves the others dense", async () => {
  await using folder = await TinyFolder.create();
  for (const [scope, pruningSchedule] of [["layer", "linear"], ["global", "one-shot"]] as const) {
    const pruningTargets = ["bert.encoder.layer.1.output.dense", "re:.*layer\\.0\\..*(query|key)"];
    const settings = { ...short, pruningTargets, pruningSchedule, scope, sparsity: 0.75, overwrite: true };
    const { out } = await finetune(folder.settings(settings));
    let [zeros, weights] = [0, 0];
    for (const [name, mask] of await zerosOf(out)) {
      const isTarget = /layer.1.output.dense|layer.0.attention.self.(query|key)/.test(name);
      if (!isTarget) assert.equal(share(mask), 0, name);
      else if (scope === "layer") assert.equal(share(mask), 0.75 * mask.length, name);
      zeros += share(mask);
      if (isTarget) weights += mask.length;
    }
    assert.equal(weights, 2 * 256 + 512);
    assert.equal(zeros, 0.75 * weights, scope);
  }
});

Deno.test("a map of sparsities and two phases prune each layer as they are told", async () => {
  await using folder = await TinyFolder.create();
  const recipe = await folder.write(
    "r.yaml",
    `modifiers:
  - !GMPruningModifier
    init_sparsity: 0
    final_sparsity: {0.25: ["re:.*query"], 0.5: ["re:.*key", "re:.*value"]}
    end_step: 6
    mask_type: block4
  - !MovementPruningModifier
    init_sparsity: 0
    final_sparsity: 0.75
    score_learning_rate: 0.1
    params: ["re:.*intermediate"]
    start_step: 2
    end_step: 8
  - !GMPruningModifier {init_sparsity: 0.25, final_sparsity: 0.625, params: ["re:.*query"], start_step: 8, end_step: 9}
`,
  );
  const { out } = await resumesAt(folder, folder.settings({ ...short, recipe }), 5);
  for (const [name, mask] of await zerosOf(out)) {
    const wanted = { query: 0.625, key: 0.5, value: 0.5, intermediate: 0.75 };
    const [, level = 0] = Object.entries(wanted).find(([part]) => name.includes(part)) ?? [];
    assert.equal(share(mask) / mask.length, level, name);
  }
});

/** Sparsity after each refresh, as the progress has it. */
async function sparsitiesOf(folder: TinyFolder, changes: Partial<FinetuneSettings>): Promise<number[]> {
  const seen = new Set<number>();
  await finetune(folder.settings({ ...short, overwrite: true, ...changes }), {
    listener: { step: ({ sparsity }) => seen.add(sparsity) },
  });
  return [...seen].map((sparsity) => Number(sparsity.toFixed(3)));
}

Deno.test("sparsity rises as the schedule has it", async () => {
  await using folder = await TinyFolder.create();
  const ramp = { sparsity: 0.5, pruneBegin: 0, pruneEnd: 0.75, pruneRefreshes: 3 };
  const refreshes: Record<string, number[]> = {
    linear: [0, 0.167, 0.333, 0.5],
    cubic: [0, 0.352, 0.481, 0.5],
    inverse_cubic: [0, 0.063, 0.153, 0.5],
    "one-shot": [0.5],
  };
  for (const [pruningSchedule, wanted] of Object.entries(refreshes)) {
    const found = await sparsitiesOf(folder, { ...ramp, pruningSchedule });
    assert.equal(found.length, wanted.length, `${pruningSchedule}: ${found}`);
    found.forEach((each, index) =>
      assert.ok(Math.abs(each - wanted[index]) < 0.002, `${pruningSchedule}: ${found}`)
    );
  }
});
