import assert from "node:assert/strict";
import { join } from "node:path";
import { type BertConfig, bertConfigJson, bertTensorShapes } from "../../models/config.ts";
import { presetConfig } from "../../models/presets.ts";
import { InputError } from "../core/errors.ts";
import { RandomStream } from "../core/random.ts";
import { writeFileAtomic } from "../core/files.ts";
import {
  type NamedTensor,
  newlyInitialisedMessage,
  openModel,
  type SavedModel,
  saveModel,
} from "./model_folder.ts";
import { bytesOf, openSafetensors, safetensorsContent } from "./safetensors.ts";
import { decodeBitmask } from "./sparse_bitmask.ts";

const config: BertConfig = presetConfig("bert-tiny", {
  vocabularySize: 11,
  hiddenSize: 12,
  layers: 2,
  intermediateSize: 20,
  maximumPositions: 7,
  labels: ["bad", "good"],
});

/** Weights of `config`; encoder matrices have 80 % zeros. */
function randomTensors(): NamedTensor[] {
  const random = new RandomStream({ low: 1, high: 2 });
  return [...bertTensorShapes(config)].map(([name, shape]) => {
    const sparse = shape.length === 2 && name.includes("encoder");
    const length = shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length }, () => sparse && random.uniform() < 0.8 ? 0 : random.normal());
    return { name, shape, data };
  });
}

const saved: SavedModel = {
  configJson: bertConfigJson(config, { problem_type: "single_label_classification" }),
  tensors: randomTensors(),
  tokenizerFiles: new Map([["vocab.txt", new TextEncoder().encode("[PAD]\n")]]),
  format: "dense",
};

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Replaces the weights of a saved folder by tensors under other names, or fewer of them. */
async function rewriteWeights(folder: string, rename: (name: string) => string | undefined): Promise<void> {
  const entries = [...saved.tensors].flatMap(({ name, shape, data }) => {
    const newName = rename(name);
    return newName === undefined
      ? []
      : [{ name: newName, dtype: "F32" as const, shape, data: () => bytesOf(data) }];
  });
  await writeFileAtomic(join(folder, "model.safetensors"), safetensorsContent(entries));
}

for (const format of ["dense", "sparse-bitmask"] as const) {
  Deno.test(`a ${format} model reads back bit for bit`, async () => {
    await withFolder(async (folder) => {
      const dir = join(folder, "new", "model");
      await saveModel(dir, { ...saved, format, sparsity: { structure: "4x1", global: 0.8 } });
      const model = await openModel(dir);
      assert.deepEqual(model.config, config);
      assert.equal(model.configJson.problem_type, "single_label_classification");
      assert.deepEqual([model.missing, model.unused], [[], []]);
      assert.equal(newlyInitialisedMessage(model), undefined);
      assert.deepEqual(model.tokenizerFiles, saved.tokenizerFiles);
      for (const { name, shape, data } of saved.tensors) {
        assert.deepEqual(await model.tensors.weight(name, shape), data);
        const sparse = await model.tensors.sparse(name);
        const isSparse = format === "sparse-bitmask" && shape.length === 2 && name.includes("encoder");
        assert.equal(sparse !== undefined, isSparse, name);
        if (sparse) {
          const values = new Float32Array(sparse.nonZeros);
          await sparse.readValues(values);
          assert.deepEqual(decodeBitmask({ ...sparse, values }), data);
        }
        const location = await model.tensors.location(name);
        assert.equal(location === undefined, isSparse, name);
        if (location) {
          const file = await Deno.readFile(location.path);
          const bytes = file.subarray(location.offsetBytes, location.offsetBytes + location.byteLength);
          assert.deepEqual(bytes, new Uint8Array(bytesOf(data)));
        }
        const target = new Float32Array(new SharedArrayBuffer(data.byteLength));
        target.fill(NaN);
        await model.tensors.readWeight(name, shape, target);
        assert.deepEqual(Float32Array.from(target), data);
      }
      await assert.rejects(
        saveModel(dir, saved),
        new InputError(`${dir} already holds a model (config.json): pass --overwrite or another --out`),
      );
    });
  });
}

Deno.test("a sparse model has the config and the keys of compressed-tensors, and goes back to dense", async () => {
  await withFolder(async (folder) => {
    await saveModel(folder, {
      ...saved,
      format: "sparse-bitmask",
      sparsity: { structure: "2:4", global: 0.5 },
    });
    const { quantization_config: compression } = (await openModel(folder)).configJson as {
      quantization_config: Record<string, unknown>;
    };
    assert.equal(compression.quant_method, "compressed-tensors");
    const { targets, ...rest } = compression.sparsity_config as Record<string, unknown>;
    assert.deepEqual(rest, {
      format: "sparse-bitmask",
      ignore: [],
      global_sparsity: 0.5,
      sparsity_structure: "2:4",
    });
    assert.equal((targets as string[]).length, 6 * config.layers);
    const { names } = await openSafetensors(join(folder, "model.safetensors"));
    const module = "bert.encoder.layer.1.output.dense";
    assert.deepEqual(
      names.filter((name) => name.startsWith(`${module}.`)).sort(),
      ["bias", "bitmask", "compressed", "row_offsets", "shape"].map((part) => `${module}.${part}`),
    );

    const model = await openModel(folder);
    await saveModel(folder, { ...saved, configJson: model.configJson, overwrite: true });
    assert.equal((await openModel(folder)).configJson.quantization_config, undefined);
  });
});

Deno.test("saveModel writes other files with it, and removes those of the model it replaces", async () => {
  await withFolder(async (folder) => {
    await saveModel(folder, saved);
    await Deno.writeTextFile(join(folder, "notes.txt"), "mine");
    await saveModel(folder, {
      ...saved,
      tokenizerFiles: new Map([["tokenizer.json", new TextEncoder().encode("{}")]]),
      otherFiles: new Map([["onnx/model.onnx", "graph"]]),
      overwrite: true,
    });
    const names = [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
    assert.deepEqual(names, ["config.json", "model.safetensors", "notes.txt", "onnx", "tokenizer.json"]);
    assert.equal(await Deno.readTextFile(join(folder, "onnx", "model.onnx")), "graph");
  });
});

Deno.test("openModel gives a bare encoder with old names the names of the classifier", async () => {
  await withFolder(async (folder) => {
    await saveModel(folder, saved);
    await rewriteWeights(folder, (name) =>
      /^classifier|pooler/.test(name) ? undefined : name
        .replace(/^bert\./, "")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"));
    const model = await openModel(folder);
    const heads = [
      "bert.pooler.dense.weight",
      "bert.pooler.dense.bias",
      "classifier.weight",
      "classifier.bias",
    ];
    assert.deepEqual(model.missing, heads);
    assert.deepEqual(model.unused, []);
    for (const { name, shape, data } of saved.tensors) {
      if (!heads.includes(name)) assert.deepEqual(await model.tensors.weight(name, shape), data);
    }
    assert.equal(
      newlyInitialisedMessage(model),
      "Some weights of BertForSequenceClassification were not initialized from the model checkpoint at " +
        `${folder} and are newly initialized: ['bert.pooler.dense.bias', 'bert.pooler.dense.weight', ` +
        "'classifier.bias', 'classifier.weight']. You should train this model before using it.",
    );
    await assert.rejects(
      model.tensors.weight("classifier.weight", [2, 12]),
      /tensor classifier\.weight is missing, wanted the shape \[2,12\]$/,
    );
  });
});

Deno.test("openModel reports tensors of other heads as unused", async () => {
  await withFolder(async (folder) => {
    await saveModel(folder, saved);
    await rewriteWeights(folder, (name) => name.replace("classifier.", "cls.seq_relationship."));
    const model = await openModel(folder);
    assert.deepEqual(model.unused, ["cls.seq_relationship.bias", "cls.seq_relationship.weight"]);
    assert.deepEqual(model.missing, ["classifier.weight", "classifier.bias"]);
  });
});

Deno.test("openModel keeps a classifier of the size of the new labels and drops any other", async () => {
  await withFolder(async (folder) => {
    await saveModel(folder, saved);
    const same = await openModel(folder, { labels: ["no", "yes"] });
    assert.deepEqual([same.config.labels, same.missing], [["no", "yes"], []]);
    const other = await openModel(folder, { labels: ["a", "b", "c"] });
    assert.deepEqual(other.missing, ["classifier.weight", "classifier.bias"]);
  });
});

Deno.test("openModel says in one line what is wrong with a folder", async () => {
  await withFolder(async (folder) => {
    const configPath = join(folder, "config.json");
    await assert.rejects(
      openModel(folder),
      new InputError(`${folder} holds no model: config.json is missing`),
    );
    await saveModel(folder, saved);
    await assert.rejects(
      openModel(configPath),
      new InputError(`${configPath} is a file, wanted a model folder or a hub id`),
    );
    await assert.rejects(
      openModel("./no/such/folder"),
      new InputError(
        "There is no folder ./no/such/folder, and it is no hub id such as google-bert/bert-base-uncased",
      ),
    );

    const lost = "bert.encoder.layer.1.intermediate.dense.bias";
    await rewriteWeights(folder, (name) => name === lost ? undefined : name);
    await assert.rejects(
      openModel(folder),
      new InputError(`${folder}: tensor ${lost} is missing, wanted the shape [20]`),
    );
    await rewriteWeights(folder, (name) => name);
    const changes: [Record<string, unknown>, string][] = [
      [
        { vocab_size: 12 },
        "tensor bert.embeddings.word_embeddings.weight has the shape [11,12], wanted [12,12]",
      ],
      [
        { id2label: { 0: "a", 1: "b", 2: "c" } },
        "tensor classifier.weight has the shape [2,12], wanted [3,12]",
      ],
    ];
    for (const [change, problem] of changes) {
      await Deno.writeTextFile(configPath, JSON.stringify({ ...saved.configJson, ...change }));
      await assert.rejects(openModel(folder), new InputError(`${folder}: ${problem}`));
    }
    const compressions: [Record<string, unknown>, string][] = [
      [
        { quantization_config: { quant_method: "gptq" } },
        'quant_method is "gptq", wanted "compressed-tensors"',
      ],
      [{ quantization_config: { format: "int-quantized" } }, 'quantization_config.format is "int-quantized"'],
      [{ sparsity_config: { format: "os.system" } }, 'sparsity_config.format is "os.system", wanted "dense"'],
    ];
    for (const [change, problem] of compressions) {
      await Deno.writeTextFile(configPath, JSON.stringify({ ...saved.configJson, ...change }));
      const error = await openModel(folder).then(() => undefined, (error) => error);
      assert.ok(
        error instanceof InputError && error.message.startsWith(`${configPath}: ${problem}`),
        String(error),
      );
    }
    await rewriteWeights(folder, (name) => name);
    await Deno.writeTextFile(configPath, '{"model_type": "bert",}');
    await assert.rejects(
      openModel(folder),
      new InputError(
        `${configPath} is not valid JSON: line 1, column 23: found "}", wanted a key in double quotes`,
      ),
    );
  });
});

Deno.test("openModel refuses a tensor under its old and its new name", async () => {
  await withFolder(async (folder) => {
    await saveModel(folder, saved);
    const name = "bert.embeddings.LayerNorm.gamma";
    await rewriteWeights(folder, (old) => old === "bert.pooler.dense.bias" ? name : old);
    await assert.rejects(
      openModel(folder),
      /holds bert\.embeddings\.LayerNorm\.weight twice, under an old and a new name$/,
    );
  });
});
