/** Whole runs in every pattern: what the written model has for zeros. */
import assert from "node:assert/strict";
import { finetune } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { blockShape, type Pattern, weightGroup } from "../pruning/pattern.ts";
import { isPrunable } from "../pruning/sparsity.ts";
import { TinyFolder } from "./tiny_run.ts";

const runs: readonly [Pattern, "layer" | "global", number][] = [
  ["2:4", "layer", 0.5],
  ["1:4", "global", 0.75],
  ["1x4", "layer", 0.75],
  ["[8,2]", "global", 0.625],
];

/** How many zeros each block or group of a row-major matrix has. */
function zerosOfUnits(values: Float32Array, columns: number, pattern: Pattern): number[] {
  const block = blockShape(pattern);
  const [height, width] = [block.rows, weightGroup(pattern)?.size ?? block.columns];
  const zeros = new Map<number, number>();
  values.forEach((value, index) => {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const unit = Math.floor(row / height) * columns + Math.floor(column / width);
    zeros.set(unit, (zeros.get(unit) ?? 0) + (value === 0 ? 1 : 0));
  });
  return [...zeros.values()];
}

for (const [pattern, scope, sparsity] of runs) {
  Deno.test(`finetune prunes whole blocks and exact groups: ${pattern}, ${scope}`, async () => {
    await using folder = await TinyFolder.create();
    const { out, sparsity: report } = await finetune(
      folder.settings({ pattern, scope, sparsity, epochs: 3 }),
    );
    assert.equal(report.overall, sparsity);
    const { tensors } = await openModel(out);
    const group = weightGroup(pattern);
    const { rows, columns } = blockShape(pattern);
    for (const name of tensors.names.filter(isPrunable)) {
      const shape = tensors.shape(name)!;
      const values = await tensors.weight(name, shape);
      const counts = zerosOfUnits(values, shape[1], pattern);
      const wanted = group ? [group.size - group.kept] : [0, rows * columns];
      assert.ok(counts.every((count) => wanted.includes(count)), `${name}: ${counts}`);
      if (!group && scope === "layer") {
        const pruned = counts.filter((count) => count > 0).length;
        assert.equal(pruned, Math.round(sparsity * counts.length), name);
      }
    }
  });
}
