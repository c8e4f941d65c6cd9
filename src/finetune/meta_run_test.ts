/** Whole runs with MetaAdamW: each mode learns and resumes, meta-updates happen, and with factors of 1 it is AdamW. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import { openSafetensors } from "../checkpoint/safetensors.ts";
import { metaModes } from "./meta/options.ts";
import type { FinetuneSettings } from "./options.ts";
import type { RunProgress } from "./state.ts";
import { type Changes, refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

const meta = { optimizer: "metaadamw", threads: 1 } as const;

/** What a finished run has saved of MetaAdamW. */
async function metaStateOf(folder: TinyFolder, out: string) {
  const { metadata } = await openSafetensors(folder.at(out, "training", "state.safetensors"));
  return (JSON.parse(metadata.progress) as RunProgress).meta!;
}

Deno.test("finetune learns with MetaAdamW in every mode, and resumes between its updates to the same bytes", async (test) => {
  await using folder = await TinyFolder.create();
  const weights = new Set<string>();
  for (const metaMode of metaModes) {
    await test.step(metaMode, async () => {
      const settings = folder.settings({
        ...meta,
        metaMode,
        // Updates after steps 8, 12, 16 and 20, and a stop in between, also between two refreshes.
        metaOptions: { updateEvery: 4, refreshEvery: 3 },
        evaluation: folder.at("train.tsv"),
        learningRateSchedule: "constant",
        learningRate: 5e-3,
        sparsity: 0.3,
        pruneBegin: 0,
        pruneEnd: 0.2,
        out: folder.at(metaMode),
      });
      const { denseEvaluation, evaluation, examples } = await resumesAt(folder, settings, 10);
      assert.equal(denseEvaluation!.completedSteps, 0);
      assert.ok(evaluation!.loss < 0.99 * Math.log(2), `${denseEvaluation!.loss} to ${evaluation!.loss}`);
      // A twentieth of the 96 examples is held out by those that learn.
      assert.equal(examples, metaMode === "frozen" ? 4 * 96 : 4 * 91);
      const { alpha, beta } = await metaStateOf(folder, metaMode);
      assert.ok(alpha.length > 1 && alpha.length === beta.length);
      for (const factors of [alpha, beta]) {
        assert.ok(factors.every((factor) => factor > 0.5 && factor < 1.5), `${factors}`);
        assert.ok(factors.some((factor) => factor !== 1), "they have moved");
      }
      weights.add(folder.snapshot(settings.out).get("model.safetensors")!);
    });
  }
  assert.equal(weights.size, metaModes.length);
});

Deno.test("finetune with MetaAdamW whose factors are 1 writes the weights of AdamW; other factors are a rate and a decay", async () => {
  await using folder = await TinyFolder.create();
  const run = async (out: string, changes: Partial<FinetuneSettings>) => {
    const settings = folder.settings({
      threads: 1,
      epochs: 2,
      sparsity: 0.5,
      weightDecay: 0.1,
      layerDecay: 0.8,
      out: folder.at(out),
      ...changes,
    });
    await finetune(settings);
    return folder.snapshot(settings.out).get("model.safetensors");
  };
  const adamw = await run("adamw", {});
  const fixed = (alpha: number, beta: number) => ({ ...meta, metaOptions: { fixed: { alpha, beta } } });
  assert.equal(await run("ones", fixed(1, 1)), adamw);
  const half = await run("half", { learningRate: 5e-3, weightDecay: 0.2 });
  assert.notEqual(half, adamw);
  assert.equal(await run("factors", fixed(0.5, 2)), half);
});

Deno.test("finetune with MetaAdamW leaves frozen parameters alone, follows one_cycle and goes on", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const settings = folder.settings({
    ...meta,
    metaMode: "paper",
    metaOptions: { updateEvery: 2, grouping: "original", features: "enhanced" },
    model,
    freeze: ["bert.embeddings"],
    learningRateSchedule: "one_cycle",
    epochs: 2,
    sparsity: 0,
  });
  await resumesAt(folder, settings, 7);
  const [before, after] = await Promise.all(
    [model, settings.out].map((dir) => openSafetensors(`${dir}/model.safetensors`)),
  );
  for (const name of before.names.filter((name) => name.includes("embeddings"))) {
    assert.deepEqual(await after.bytes(name), await before.bytes(name), name);
  }
});

Deno.test("finetune refuses options of MetaAdamW that make no sense, or that are another optimiser's", async () => {
  await using folder = await TinyFolder.create();
  const cases: [Changes, RegExp][] = [
    [{ optimizer: "adamw", metaMode: "paper" }, /optimizer is adamw: wanted metaadamw/],
    [{ optimizer: "sgd", metaOptions: { updateEvery: 2 } }, /optimizer is sgd: wanted metaadamw/],
    [{ metaMode: "sane" }, /mode is "sane": wanted sound, paper or frozen/],
    [{ metaOptions: { updateEvery: 0 } }, /updateEvery is 0: wanted a whole number of at least 1/],
    [{ metaOptions: { alphaRange: 3 } }, /alphaRange is 3: wanted a number from 0 to 2/],
    [{ metaOptions: { speed: 3 } }, /has no option speed, 3: wanted one of grouping, /],
    [
      { optimizerOptions: { amsgrad: true } },
      /^MetaAdamW.s optimizer is adamw with amsgrad: wanted adamw without amsgrad$/,
    ],
    [
      { metaOptions: { validationFraction: 0.999 } },
      /holds 96 of 96 training examples out: wanted some to be/,
    ],
  ];
  for (const [changes, message] of cases) await refuses(folder, { ...meta, ...changes }, message);
});
