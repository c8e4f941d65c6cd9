/** Whole runs by each pruning method: the written model obeys its pattern, and a stop in the middle changes no byte. */
import assert from "node:assert/strict";
import { finetune, type FinetuneSettings } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { blockShape, type Pattern, weightGroup } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { resumesAt, TinyFolder } from "./tiny_run.ts";

const fisher = { gradients: 4, blockSize: 16 };
const movement = { pruningMethod: "movement", pruningOptions: { scoreLearningRate: 0.1 } } as const;
const obert = { pruningMethod: "obert", pruningOptions: fisher } as const;
const softMovement = {
  pruningMethod: "soft-movement",
  pruningOptions: { scoreLearningRate: 0.2, penalty: 20, threshold: 0.48 },
} as const;

/** What a run of 12 steps is told, refreshing before steps 3, 5, 7 and 8; nothing is evaluated. */
const short = {
  evaluation: undefined,
  epochs: 2,
  threads: 1,
  pruneRefreshes: 3,
} satisfies Partial<FinetuneSettings>;

/** Zeros of each block or group of the prunable matrices, by matrix. */
async function zerosOfUnits(dir: string, pattern: Pattern): Promise<ReadonlyMap<string, readonly number[]>> {
  const { tensors } = await openModel(dir);
  const block = blockShape(pattern);
  const [height, width] = [block.rows, weightGroup(pattern)?.size ?? block.columns];
  const counts = tensors.names.filter(isPrunable).map(async (name) => {
    const [rows, columns] = tensors.shape(name)!;
    const zeros = new Array<number>(rows * columns / (height * width)).fill(0);
    (await tensors.weight(name, [rows, columns])).forEach((value, index) => {
      const row = Math.floor(index / columns / height);
      const column = Math.floor(index % columns / width);
      if (value === 0) zeros[row * (columns / width) + column]++;
    });
    return [name, zeros] as const;
  });
  return new Map(await Promise.all(counts));
}

/** Checks that blocks are zero as a whole or not at all, and of N:M so many of each group. */
async function checkUnits(dir: string, pattern: Pattern, layerSparsity?: number): Promise<void> {
  const { rows, columns } = blockShape(pattern);
  const group = weightGroup(pattern);
  const wanted = group ? [group.size - group.kept] : [0, rows * columns];
  const units = await zerosOfUnits(dir, pattern);
  assert.equal(units.size, 12);
  for (const [name, counts] of units) {
    assert.ok(counts.every((count) => wanted.includes(count)), `${name}: ${counts}`);
    if (group || layerSparsity === undefined) continue;
    assert.equal(counts.filter((count) => count > 0).length, layerSparsity * counts.length, name);
  }
}

const runs: readonly [Pattern, "layer" | "global", number][] = [
  ["unstructured", "layer", 0.75],
  ["4x1", "global", 0.75],
  ["1x4", "layer", 0.75],
  ["[8,2]", "global", 0.5],
  ["2:4", "layer", 0.5],
];

for (const settings of [movement, obert]) {
  const { pruningMethod } = settings;
  for (const [pattern, scope, sparsity] of runs) {
    Deno.test(`finetune prunes by ${pruningMethod} in the pattern ${pattern}, ${scope}`, async () => {
      await using folder = await TinyFolder.create();
      const asked = { ...short, ...settings, pattern, scope, sparsity };
      const { out, exported, sparsity: report } = await finetune(folder.settings(asked));
      assert.equal(report.overall, sparsity);
      for (const dir of [out, exported!.dir]) {
        await checkUnits(dir, pattern, scope === "layer" ? sparsity : undefined);
      }
    });
  }
}

Deno.test("finetune prunes whole blocks by soft movement, to a sparsity that is an outcome", async () => {
  await using folder = await TinyFolder.create();
  for (const pattern of ["4x1", "[8,2]"] as const) {
    const settings = folder.settings({ ...short, ...softMovement, pattern, overwrite: true });
    const { out, sparsity } = await finetune(settings);
    const { overall } = sparsity;
    assert.ok(overall > 0.02 && overall < 0.98, `${pattern}: ${overall} of the weights are zero`);
    await checkUnits(out, pattern);
  }
});

/** By each method with a stop before, between and after its refreshes; magnitude alone is in `resume_test.ts`. */
const stopped: readonly [string, Partial<FinetuneSettings>, number][] = [
  ["movement, while it prunes", { ...movement, pattern: "4x1" }, 6],
  ["movement, after its end", { ...movement, scope: "global" }, 10],
  ["soft movement, while it prunes", softMovement, 6],
  [
    "oBERT, while it prunes",
    { ...obert, pruningOptions: { ...fisher, recomputations: 2 }, scope: "global" },
    6,
  ],
  ["magnitude of groups, while it prunes", { pattern: "2:4", sparsity: 0.5 }, 6],
];

for (const [name, settings, step] of stopped) {
  Deno.test(`finetune stopped in pruning by ${name}, goes on to the same bytes`, async () => {
    await using folder = await TinyFolder.create();
    await resumesAt(folder, folder.settings({ ...short, ...settings }), step);
  });
}

const constants = [
  [obert, { jointly: true }, { gradients: 5 }, { dampening: 1e-3 }, { blockSize: 8 }, { recomputations: 2 }],
  [softMovement, { scoreLearningRate: 0.1 }, { penalty: 0 }, { threshold: 0.3 }],
] as const;

for (const [settings, ...changes] of constants) {
  Deno.test(`every constant of ${settings.pruningMethod} changes what comes out`, async () => {
    await using folder = await TinyFolder.create();
    // The penalty of soft movement is there from the second refresh on.
    const pruneRefreshes = settings === obert ? 1 : 2;
    const shortest = { ...short, ...settings, epochs: 1, pruneBegin: 0, pruneRefreshes, overwrite: true };
    const seen = new Set<string | undefined>();
    for (const change of [{}, ...changes]) {
      const pruningOptions = { ...settings.pruningOptions, ...change };
      const { out } = await finetune(folder.settings({ ...shortest, pruningOptions }));
      const weights = folder.snapshot(out).get("model.safetensors");
      assert.ok(!seen.has(weights), JSON.stringify(change));
      seen.add(weights);
    }
  });
}
