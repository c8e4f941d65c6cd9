/** The recipes that come with the project. */
import assert from "node:assert/strict";
import { pruningPhases } from "./pruning_phases.ts";
import { parseRecipe } from "./parse.ts";
import { writeRecipe } from "./write.ts";

const folder = new URL("../../models/recipes/", import.meta.url);
const files = Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();

const read = (name: string, recipeArgs?: string) =>
  parseRecipe(Deno.readTextFileSync(new URL(name, folder)), { source: name, recipeArgs });

Deno.test("models/recipes holds the recipes that the documentation names", () => {
  assert.deepEqual(files, [
    "distill-90.yaml",
    "gmp-4x1-90.yaml",
    "gmp-90.yaml",
    "gmp-global.yaml",
    "movement-90.yaml",
    "obert-90.yaml",
    "one-cycle.yaml",
    "sparse-transfer.yaml",
  ]);
});

for (const file of files) {
  Deno.test(`${file} fits runs of any number of epochs and names its source`, () => {
    assert.match(Deno.readTextFileSync(new URL(file, folder)), /^# Source: /m);
    for (const epochs of [1, 3, 30]) {
      const { modifiers } = read(file, `{"num_epochs": ${epochs}}`);
      const [length] = modifiers.flatMap((each) =>
        each.modifier === "EpochRangeModifier" ? [each.end_epoch] : []
      );
      assert.equal(length, epochs);
      const epochBegins = Array.from({ length: epochs + 1 }, (_, epoch) => 60 * epoch);
      const name = "bert.encoder.layer.0.output.dense.weight";
      const phases = pruningPhases(modifiers, {
        epochBegins,
        prunable: [{ name, weights: 4, zeros: 0, sparsity: 0 }],
      });
      const wanted = file === "one-cycle.yaml" ? [] : file === "sparse-transfer.yaml" ? [0] : [0.9];
      assert.deepEqual(phases.map(({ schedule }) => schedule.sparsity(60 * epochs)), wanted);
      assert.deepEqual(
        parseRecipe(writeRecipe(modifiers), { source: "printed" }).modifiers.map((each) => ({
          ...each,
          place: "",
        })),
        modifiers.map((each) => ({ ...each, place: "" })),
      );
    }
  });
}

Deno.test("obert-90.yaml has the places of the published recipe, told to begin as it does", () => {
  const { modifiers } = read("obert-90.yaml", '{"prune_begin": 2}');
  const epochBegins = Array.from({ length: 31 }, (_, epoch) => 100 * epoch);
  const [{ schedule }] = pruningPhases(modifiers, {
    epochBegins,
    prunable: [{ name: "encoder.layer.0.output.dense.weight", weights: 4, zeros: 0, sparsity: 0 }],
  });
  const steps = Array.from({ length: 3000 }, (_, step) => step).filter((step) => schedule.refreshes(step));
  assert.deepEqual(steps, [200, 600, 1000, 1400, 1800, 2200, 2600]);
});
