/** Made-up models of patterns, as `bench --synthetic --pattern` writes them, and the kernels that sessions run them with. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openModel } from "../src/checkpoint/model_folder.ts";
import { InputError } from "../src/core/errors.ts";
import { exportModel } from "../src/export/mod.ts";
import { poisoned } from "../src/infer/random_model.ts";
import { Session } from "../src/infer/session.ts";
import { selectMachine } from "../src/machines/mod.ts";
import { hasBit } from "../src/pruning/bitset.ts";
import { magnitude } from "../src/pruning/magnitude.ts";
import { pruneMasks } from "../src/pruning/method.ts";
import type { Pattern } from "../src/pruning/pattern.ts";
import { isPrunable } from "../src/pruning/sparsity.ts";
import { writeSyntheticModel } from "./model.ts";

const kernels: readonly [Pattern, number, string][] = [
  ["1x4", 0.8, "unstructured"],
  ["1:4", 0.75, "unstructured"],
  ["2:4", 0.5, "dense"],
  ["[8,2]", 0.8, "4x1"],
];

Deno.test("models of any pattern are written, exported, read back whole, and run with the kernels of their zeros", async () => {
  const folder = await Deno.makeTempDir();
  const input = { ids: Int32Array.of(1, 5, 9, 2), typeIds: new Uint8Array(4) };
  const machine = selectMachine();
  try {
    for (const [pattern, sparsity, kernel] of kernels) {
      const [dir, out] = [join(folder, `${pattern} model`), join(folder, `${pattern} export`)];
      await writeSyntheticModel({ preset: "bert-tiny", sparsity, pattern, folder: dir });
      const exported = await exportModel({ model: dir, out, pattern });
      assert.ok(Math.abs(exported.sparsity - sparsity) < 1e-3, `${pattern}: ${exported.sparsity}`);
      const config = JSON.parse(await Deno.readTextFile(join(out, "config.json")));
      assert.equal(config.quantization_config.sparsity_config.sparsity_structure, pattern);

      const [model, again] = [await openModel(dir), await openModel(out)];
      for (const name of model.tensors.names.filter(isPrunable)) {
        const [rows, columns] = model.tensors.shape(name)!;
        const values = await again.tensors.weight(name, [rows, columns]);
        assert.deepEqual(values, await model.tensors.weight(name, [rows, columns]));
        // Whole blocks and full groups are zero: pruning once more to the same sparsity finds the same zeros.
        const request = { method: magnitude, pattern, scope: "layer", sparsity } as const;
        const mask = pruneMasks([{ name, rows, columns, values }], request).get(name)!;
        assert.ok(
          values.every((value, index) => (value !== 0) === hasBit(mask, index)),
          `${pattern}, ${name}`,
        );
      }
      const logits: Float32Array[] = [];
      for (const dense of [false, true]) {
        const session = await Session.open(again, { machine, threads: 1, createExecutor: poisoned, dense });
        if (!dense) assert.deepEqual(new Set(session.layers.map((layer) => layer.kernel)), new Set([kernel]));
        logits.push(...await session.logits([input]));
        await session.dispose();
      }
      logits[0].forEach((value, index) => assert.ok(Math.abs(value - logits[1][index]) < 1e-5, pattern));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a made-up model refuses a pattern that does not divide it, and a sparsity that N:M does not have", async () => {
  const folder = "unwritten";
  await assert.rejects(
    writeSyntheticModel({ preset: "bert-tiny", sparsity: 0.9, pattern: "[48,1]", folder }),
    (error: Error) =>
      error instanceof InputError &&
      /in the pattern \[48,1\]: wanted outputs in multiples of 48$/.test(error.message),
  );
  await assert.rejects(
    writeSyntheticModel({ preset: "bert-tiny", sparsity: 0.9, pattern: "2:4", folder }),
    new InputError("Cannot prune to sparsity 0.9 in the pattern 2:4: wanted at most 0.5"),
  );
});
