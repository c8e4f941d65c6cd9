/** Exported folders: the same answers in every format, from this library and from others. */
import assert from "node:assert/strict";
import { basename, dirname, join } from "node:path";
import * as ort from "onnxruntime-node";
import { exportModel, type ExportOptions, finetune, InputError, openSession, pipeline } from "../../mod.ts";
import { openModel } from "../checkpoint/model_folder.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { TinyFolder, tinyRows } from "../finetune/tiny_run.ts";

const texts = tinyRows(12, 9).map(({ sentence }) => sentence);

/** A model fine-tuned for one epoch: the folder with its zeros, and the one exported at the end of the run. */
async function trained(folder: TinyFolder, sparsity: number): Promise<{ model: string; exported: string }> {
  const { out, exported } = await finetune(folder.settings({ epochs: 2, sparsity }));
  return { model: out, exported: exported!.dir };
}

async function logitsOf(dir: string, dense = false): Promise<number[][]> {
  const tokenizer = loadTokenizer((await openModel(dir)).tokenizerFiles);
  const session = await openSession(dir, { threads: 1, dense });
  try {
    const inputs = texts.map((text) => {
      const { ids, typeIds } = tokenizer.encode(text, undefined, 24);
      return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds) };
    });
    return (await session.logits(inputs)).map((logits) => [...logits]);
  } finally {
    await session.dispose();
  }
}

function assertClose(found: readonly number[][], wanted: readonly number[][], tolerance: number): void {
  found.forEach((row, text) =>
    row.forEach((value, k) => {
      const difference = Math.abs(value - wanted[text][k]);
      assert.ok(difference <= tolerance, `text ${text}, class ${k}: ${value}, wanted ${wanted[text][k]}`);
    })
  );
}

Deno.test("exportModel: every format gives the logits of the model exported, at any sparsity", async () => {
  for (const sparsity of [0, 0.5, 0.9]) {
    await using folder = await TinyFolder.create();
    const { model, exported } = await trained(folder, sparsity);
    const expected = await logitsOf(model);
    assertClose(await logitsOf(model, true), expected, 1e-5);
    assert.deepEqual(await logitsOf(exported), expected);
    for (const format of ["sparse", "safetensors", "onnx"] as const) {
      const result = await exportModel({ model, out: folder.at(format), format });
      assert.deepEqual(await logitsOf(result.dir), expected, format);
      // A sparse folder is a model like any other: exporting it again changes nothing.
      const again = await exportModel({ model: exported, out: folder.at(`${format} again`), format });
      assert.deepEqual(
        folder.snapshot(again.dir).get("model.safetensors"),
        folder.snapshot(result.dir).get("model.safetensors"),
      );
    }
  }
});

Deno.test("exportModel lists what it wrote; a sparse file is smaller", async () => {
  await using folder = await TinyFolder.create();
  const { model } = await trained(folder, 0.9);
  const names = { sparse: true, safetensors: false, onnx: true };
  const sizes: Record<string, number> = {};
  for (const [format, hasOnnx] of Object.entries(names)) {
    const { dir, files, sparsity } = await exportModel({
      model,
      out: folder.at(format),
      format: format as ExportOptions["format"],
      pattern: "4x1",
    });
    assert.equal(dir, folder.at(format));
    assert.ok(Math.abs(sparsity - 0.9) < 0.002);
    assert.deepEqual(
      files.map(({ name }) => name),
      hasOnnx ? ["model.safetensors", "onnx/model.onnx"] : ["model.safetensors"],
    );
    for (const { name, byteLength } of files) {
      assert.equal((await Deno.stat(join(dir, name))).size, byteLength);
    }
    sizes[format] = files[0].byteLength;
    const json = JSON.parse(await Deno.readTextFile(join(dir, "config.json")));
    assert.equal(
      json.quantization_config?.sparsity_config.sparsity_structure,
      format === "sparse" ? "4x1" : undefined,
    );
    for (const name of ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]) {
      assert.deepEqual(await Deno.readFile(join(dir, name)), await Deno.readFile(join(model, name)));
    }
  }
  assert.ok(sizes.sparse < 0.75 * sizes.safetensors, JSON.stringify(sizes));
});

Deno.test("onnx/model.onnx gives the same logits in ONNX Runtime, padded batch and all", async () => {
  await using folder = await TinyFolder.create();
  const { exported } = await trained(folder, 0.9);
  const expected = await logitsOf(exported);
  const tokenizer = loadTokenizer((await openModel(exported)).tokenizerFiles);
  const rows = texts.map((text) => tokenizer.encode(text, undefined, 24).ids);
  const width = Math.max(...rows.map(({ length }) => length));
  const tensor = (value: (row: number[], column: number) => number) =>
    new ort.Tensor(
      "int64",
      BigInt64Array.from(
        rows.flatMap((row) => Array.from({ length: width }, (_, column) => BigInt(value(row, column)))),
      ),
      [rows.length, width],
    );
  const session = await ort.InferenceSession.create(join(exported, "onnx/model.onnx"));
  const { logits } = await session.run({
    input_ids: tensor((row, column) => row[column] ?? tokenizer.padId),
    attention_mask: tensor((row, column) => column < row.length ? 1 : 0),
    token_type_ids: tensor(() => 0),
  });
  await session.release();
  const data = [...logits.data as Float32Array];
  assertClose(texts.map((_, text) => data.slice(2 * text, 2 * text + 2)), expected, 1e-4);
});

Deno.test("transformers.js opens the exported folder offline and gives the same classes and scores", async () => {
  await using folder = await TinyFolder.create();
  const { exported } = await trained(folder, 0.9);
  const library = await import("@xenova/transformers");
  library.env.allowRemoteModels = false;
  library.env.localModelPath = dirname(exported);
  const theirs = await library.pipeline("text-classification", basename(exported), {
    dtype: "fp32",
    device: "cpu",
    local_files_only: true,
  });
  const ours = await pipeline("text-classification", exported, { threads: 1 });
  try {
    const wanted = await ours(texts);
    const found = await theirs(texts) as { label: string; score: number }[];
    found.forEach(({ label, score }, text) => {
      assert.equal(label, wanted[text].label, texts[text]);
      assert.ok(Math.abs(score - wanted[text].score) < 1e-4, `${score}, wanted ${wanted[text].score}`);
    });
  } finally {
    await ours.dispose();
    await theirs.dispose();
  }
});

Deno.test("exportModel refuses bad input, writes nothing then, and replaces a model only when told to", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const bare = await folder.writeModel("bare");
  await folder.writeModel("taken");
  const weights = await openModel(model);
  assert.deepEqual(weights.missing, []);
  await folder.write("bare/model.safetensors", await withoutHead(bare));
  const cases: [Partial<ExportOptions>, string | RegExp][] = [
    [
      { format: "gguf" as ExportOptions["format"] },
      "--format is gguf: wanted one of sparse, safetensors, onnx",
    ],
    [{ model: folder.at("none") }, /^There is no folder .none, and it is no hub id /],
    [{ model: bare }, "/bare lacks classifier.weight, classifier.bias: fine-tune it before exporting it"],
    [{ out: folder.at("train.tsv") }, "Cannot write to /train.tsv: it is a file, wanted a folder"],
    [
      { out: folder.at("train.tsv", "out") },
      /^Cannot make .train.tsv[^\n]*$/,
    ],
    [
      { out: folder.at("taken") },
      /^.taken already holds a model \(config.json\): pass --overwrite or another --out$/,
    ],
  ];
  const before = folder.snapshot();
  for (const [changes, message] of cases) {
    await assert.rejects(exportModel({ model, out: folder.at("out"), ...changes }), (error) => {
      assert.ok(error instanceof InputError, `${error}`);
      const text = error.message.replaceAll(folder.path, "");
      if (typeof message === "string") assert.equal(text, message);
      else assert.match(text, message);
      return true;
    });
    assert.deepEqual(folder.snapshot(), before);
  }
});

/** The weights file of a folder, its classifier under another name. */
async function withoutHead(dir: string): Promise<Uint8Array> {
  const bytes = await Deno.readFile(join(dir, "model.safetensors"));
  const text = new TextDecoder("latin1").decode(bytes).replaceAll('"classifier.', '"claxxifier.');
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

Deno.test("exportModel in place, or in another format over an old one, leaves nothing of the old model", async () => {
  await using folder = await TinyFolder.create();
  const { model } = await trained(folder, 0.9);
  const out = folder.at("deployed");
  const fresh = async (format: ExportOptions["format"]) => {
    const { dir } = await exportModel({ model, out: await Deno.makeTempDir({ dir: folder.path }), format });
    return folder.snapshot(dir);
  };
  await exportModel({ model, out, format: "sparse" });
  await exportModel({ model, out, format: "safetensors", overwrite: true });
  assert.deepEqual([...folder.snapshot(out)].filter(([name]) => name !== "onnx"), [
    ...await fresh("safetensors"),
  ]);
  await exportModel({ model: out, out, format: "sparse", overwrite: true });
  assert.deepEqual(folder.snapshot(out), await fresh("sparse"));
});
