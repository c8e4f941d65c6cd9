/** Whole runs of recipes: what is printed is run again to the same bytes, and so is what flags say. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { finetune, type FinetuneSettings } from "../../mod.ts";
import { writeRecipe } from "../recipes/write.ts";
import { modifiersOf } from "./run_modifiers.ts";
import { interruptAt, refuses, resumesAt, TinyFolder } from "./tiny_run.ts";

const recipes = new URL("../../models/recipes/", import.meta.url);

/** What `--print-recipe` prints. */
const printed = async (settings: FinetuneSettings) => writeRecipe(await modifiersOf(settings));

/** A model folder without its report, training state and times. */
const resultOf = async (folder: TinyFolder, settings: FinetuneSettings) =>
  folder.resultOf((await finetune(settings)).out);

/** Settings, and the recipe of the same meaning. */
const equals: Readonly<Record<string, [settings: Partial<FinetuneSettings>, recipe: string]>> = {
  "magnitude pruning, and all that training is": [
    {
      epochs: 2,
      optimizer: "sgd",
      optimizerOptions: { momentum: 0.8, nesterov: true },
      learningRate: 0.05,
      learningRateSchedule: "cosine",
      warmupSteps: 2,
      weightDecay: 0.2,
      pattern: "4x1",
      scope: "global",
      sparsity: 0.75,
      pruningSchedule: "linear",
      pruneBegin: 0.25,
      pruneEnd: 0.75,
      pruneRefreshes: 3,
    },
    `
      steps: 12
      level: eval(1 - 1 / 4)
      training_modifiers:
        - !EpochRangeModifier {end_epoch: eval(steps // 6)}
        - !OptimizerModifier {optimizer: sgd, momentum: 0.8, nesterov: true}
        - !LearningRateScheduleModifier {schedule: cosine, learning_rate: 5e-2, warmup_steps: 2}
        - !SetWeightDecayModifier {weight_decay: 0.2}
      pruning_modifiers:
        - !GlobalMagnitudePruningModifier
          init_sparsity: 0
          final_sparsity: eval(level)
          start_step: eval(steps / 4)
          end_step: eval(steps * level)
          update_steps: 2
          inter_func: linear
          mask_type: [4, 1]
    `,
  ],
  "oBERT of some layers at once": [
    {
      epochs: 1,
      pruningMethod: "obert",
      pruningOptions: { gradients: 3, blockSize: 16, dampening: 1e-5, recomputations: 2, jointly: true },
      pruningTargets: ["bert.encoder.layer.1.output.dense", "re:.*query"],
      pruningSchedule: "one-shot",
      sparsity: 0.5,
      pruneBegin: 0.5,
      teacher: "dense",
      hardness: 0.25,
      temperature: 3,
    },
    `
      modifiers:
        - !EpochRangeModifier {end_epoch: 1}
        - !OBSPruningModifier
          params: [bert.encoder.layer.1.output.dense, "re:.*query"]
          init_sparsity: 0
          final_sparsity: 0.5
          start_epoch: 0.5
          inter_func: one-shot
          global_sparsity: false
          num_grads: 3
          fisher_block_size: 16
          damp: 1e-5
          num_recomputations: 2
          jointly: true
        - !DistillationModifier {teacher: dense, hardness: 0.25, temperature: 3}
    `,
  ],
  "MetaAdamW and soft movement": [
    {
      epochs: 2,
      optimizer: "metaadamw",
      metaMode: "paper",
      metaOptions: { updateEvery: 3, warmupEpochs: 0, learningRate: 0.1, priorities: [1, 2, 1] },
      pruningMethod: "soft-movement",
      pruningOptions: { scoreLearningRate: 0.2, penalty: 20, threshold: 0.45 },
      pruneRefreshes: 2,
    },
    `
      every: 3
      modifiers:
        - !EpochRangeModifier {end_epoch: 2}
        - !OptimizerModifier
          optimizer: metaadamw
          meta_mode: paper
          meta_options: {updateEvery: eval(every), warmupEpochs: 0, learningRate: 0.1, priorities: [1, 2, 1]}
        - !MovementPruningModifier
          soft: true
          score_learning_rate: 0.2
          penalty: 20
          threshold: 0.45
          init_sparsity: 0
          final_sparsity: 0.9
          start_fraction: 0.3
          end_fraction: 0.7
          updates: 2
    `,
  ],
};

for (const [name, [changes, text]] of Object.entries(equals)) {
  Deno.test(`a recipe, its flags and what is printed of either come to the same bytes: ${name}`, async () => {
    await using folder = await TinyFolder.create();
    const flags = folder.settings({ threads: 1, evaluation: undefined, ...changes });
    const expected = await resultOf(folder, { ...flags, out: folder.at("flags") });
    // Settings that mean something else give way to the recipe, and its silence to them.
    const beside = {
      threads: 1,
      evaluation: undefined,
      epochs: 1,
      sparsity: 0.1,
      learningRate: flags.learningRate,
    };
    const run = async (name: string, text: string) => {
      const recipe = await folder.write(`${name}.yaml`, text);
      const settings = folder.settings({ ...beside, recipe, out: folder.at(name) });
      assert.deepEqual(await resultOf(folder, settings), expected, name);
      return settings;
    };
    const recipe = await run("recipe", text.replaceAll("\n      ", "\n"));
    const copy = await folder.write("copy.yaml", await printed(recipe));
    assert.equal(await printed({ ...recipe, recipe: copy }), await printed(recipe));
    const fromFlags = await run("printed-flags", await printed(flags));
    assert.equal(await printed(fromFlags), await printed(flags));
  });
}

Deno.test("a run takes the values of --recipe-args, and what the recipe computes of them", async () => {
  await using folder = await TinyFolder.create();
  const recipe = await folder.write(
    "recipe.md",
    `# Half of it, late
---
num_epochs: 30
level: 0.9
modifiers:
  - !EpochRangeModifier
    end_epoch: eval(num_epochs)
  - !GMPruningModifier
    init_sparsity: 0
    final_sparsity: eval(max(level, 1 / num_epochs))
    start_epoch: eval(num_epochs - 1)
    end_epoch: eval(num_epochs - 2 ** -1)
    updates: 1
---
`,
  );
  const sparsities = new Map<number, number>();
  const settings = folder.settings({ recipe, recipeArguments: '{"num_epochs": 2, "level": 0.5}' });
  const { steps, sparsity } = await finetune(settings, {
    listener: { step: ({ completedSteps, sparsity }) => sparsities.set(completedSteps, sparsity) },
  });
  assert.deepEqual([steps, sparsity.overall], [12, 0.5]);
  assert.deepEqual([9, 10].map((step) => sparsities.get(step)), [0, 0.5]);
});

Deno.test("a run goes on with its recipe from another file, and with no other recipe", async () => {
  await using folder = await TinyFolder.create();
  const write = (name: string, every: number) =>
    folder.write(
      name,
      `modifiers:\n  - !OptimizerModifier {optimizer: metaadamw, meta_options: {updateEvery: ${every}}}\n`,
    );
  const settings = folder.settings({ recipe: await write("r.yaml", 2), evaluation: undefined, epochs: 2 });
  const expected = await resultOf(folder, { ...settings, out: folder.at("whole") });
  await interruptAt(settings, 4);
  const changed = { ...settings, resume: true, recipe: await write("changed.yaml", 3) };
  await refuses(folder, changed, /^Cannot resume \/out: recipe was [0-9a-f]{12} and is [0-9a-f]{12} now$/);
  const moved = { ...settings, resume: true, recipe: await write("moved.yaml", 2) };
  assert.deepEqual(await resultOf(folder, moved), expected);
});

/** Shipped recipes, with how many epochs they are to take. */
const shipped = { "movement-90.yaml": 4, "distill-90.yaml": 3 };

for (const [name, epochs] of Object.entries(shipped)) {
  Deno.test(`models/recipes/${name} runs, and goes on after a stop`, async () => {
    await using folder = await TinyFolder.create();
    const { sparsity, steps } = await resumesAt(
      folder,
      folder.settings({
        recipe: fileURLToPath(new URL(name, recipes)),
        recipeArguments: JSON.stringify({ num_epochs: epochs, learning_rate: 1e-2 }),
        evaluation: undefined,
        threads: 1,
      }),
      4 * epochs,
    );
    assert.equal(steps, 6 * epochs);
    assert.ok(Math.abs(sparsity.overall - 0.9) < 0.01, `${sparsity.overall}`);
  });
}

for (const { name } of Deno.readDirSync(recipes)) {
  Deno.test(`models/recipes/${name} is printed and read again as it is`, async () => {
    await using folder = await TinyFolder.create();
    const settings = folder.settings({ recipe: fileURLToPath(new URL(name, recipes)) });
    const text = await printed(settings);
    const copy = await folder.write("copy.yaml", text);
    assert.equal(await printed({ ...settings, recipe: copy }), text);
  });
}

Deno.test("masks are renewed forty times unless told otherwise, those of movement at every step", async () => {
  await using folder = await TinyFolder.create();
  const updatesOf = async (changes: Partial<FinetuneSettings>) => {
    const modifiers = await modifiersOf(folder.settings({ sparsity: 0.5, ...changes }));
    return modifiers.flatMap((each) => "updates" in each || "final_sparsity" in each ? [each.updates] : []);
  };
  assert.deepEqual(await updatesOf({ pruningMethod: "magnitude" }), [40]);
  assert.deepEqual(await updatesOf({ pruningMethod: "obert" }), [40]);
  assert.deepEqual(await updatesOf({ pruningMethod: "movement" }), [undefined]);
  assert.deepEqual(await updatesOf({ pruningMethod: "soft-movement" }), [undefined]);
  assert.deepEqual(await updatesOf({ pruningMethod: "movement", pruneRefreshes: 3 }), [3]);
});
