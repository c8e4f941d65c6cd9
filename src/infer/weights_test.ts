/** Weights in the arena equal those of the checkpoint, however they got there. */
import assert from "node:assert/strict";
import { bertConfigJson, bertTensorShapes } from "../../models/config.ts";
import { presetConfig } from "../../models/presets.ts";
import { openModel, saveModel } from "../checkpoint/model_folder.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { unpackSparse } from "../kernels/sparse_matmul/pack.ts";
import { canMapFiles } from "../machines/file_mapping.ts";
import { Arena, ArenaSize } from "../plan/arena.ts";
import { chooseByRule, type KernelChooser } from "./choice.ts";
import { task as packMatrix } from "./pack_task.ts";
import { surveyWeights } from "./weights.ts";

/** Word embeddings of more than a mebibyte, so that they are mapped where that is possible. */
const config = {
  ...presetConfig("bert-tiny", { vocabularySize: 8200, maximumPositions: 20 }),
  hiddenSize: 36,
  intermediateSize: 100,
  heads: 3,
};
const words = "bert.embeddings.word_embeddings.weight";

function randomTensors() {
  return Array.from(bertTensorShapes(config), ([name, shape]) => {
    const stream = new RandomStream(randomKey(5, name));
    const length = shape.reduce((a, b) => a * b);
    // Layer 0 in blocks of four rows, layer 1 in single weights; query, key and value are full.
    const isZero = (i: number) => {
      if (!name.includes("encoder.layer") || !name.endsWith("dense.weight")) return false;
      const block = name.includes("layer.0") ? Math.floor(i / shape[1] / 4) * shape[1] + i % shape[1] : i;
      return new RandomStream(randomKey(6, name, String(block))).uniform() < 0.8;
    };
    const data = Float32Array.from({ length }, (_, i) => isZero(i) ? 0 : stream.normal());
    return { name, shape, data };
  });
}

async function checkLoading(format: "dense" | "sparse-bitmask", dense: boolean, mapped: boolean) {
  const folder = await Deno.makeTempDir();
  try {
    const tensors = randomTensors();
    await saveModel(folder, {
      configJson: bertConfigJson(config),
      tensors,
      tokenizerFiles: new Map(),
      format,
    });
    const target = { lanes: 16, tile: 64, workers: 2, levelOneBytes: 48 << 10 };
    const choose: KernelChooser = (matrices) =>
      Promise.resolve(matrices.map(({ profile }) => chooseByRule(profile, target)));
    const weights = await surveyWeights(await openModel(folder), { choose: dense ? undefined : choose });
    const size = new ArenaSize();
    weights.place(size);
    const arena = new Arena(size.byteLength);
    new Uint32Array(arena.memory.buffer).fill(0x7fc0dead);
    const addresses = weights.place(arena);
    for (const request of await weights.read(arena, addresses)) await packMatrix.run(arena.memory, request);

    const kernels = new Set(weights.layers.map(({ kernel }) => kernel));
    assert.deepEqual(kernels, new Set(dense ? ["dense"] : ["dense", "4x1", "unstructured"]));
    for (const { name, data } of tensors) {
      const structure = weights.structures.get(name);
      const bytes = arena.bytes(addresses.get(name)!, weights.byteLengths.get(name)!).slice();
      const found = structure ? unpackSparse(bytes, structure) : new Float32Array(bytes.buffer);
      assert.deepEqual(found, data, name);
    }
    // Before a mapped tensor lie its neighbours in the file, elsewhere what the arena was filled with.
    const isMapped = arena.int32(addresses.get(words)! - 4, 1)[0] !== 0x7fc0dead;
    assert.equal(isMapped, mapped);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const format of ["dense", "sparse-bitmask"] as const) {
  for (const dense of [false, true]) {
    const what = `a ${format} file into ${dense ? "dense" : "sparse"} layers`;
    Deno.test(`weights of ${what} are those of the checkpoint`, () =>
      checkLoading(format, dense, canMapFiles()));
    Deno.test({
      name: `weights of ${what} are those of the checkpoint where files cannot be mapped`,
      permissions: { read: true, write: true, env: true, ffi: false },
      fn: () => checkLoading(format, dense, false),
    });
  }
}
