/** Bad input of every kind: one line that says what is wrong, before anything is computed, said or written. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { finetune } from "../../mod.ts";
import { type Changes, refuses, tinyConfigJson, TinyFolder } from "./tiny_run.ts";

Deno.test("finetune refuses numbers that make no sense, and names the flag", async () => {
  await using folder = await TinyFolder.create();
  const cases: [Changes, string][] = [
    [{ sparsity: 1 }, "--sparsity is 1: wanted a number in [0, 1)"],
    [{ sparsity: -0.1 }, "--sparsity is -0.1: wanted a number in [0, 1)"],
    [{ sparsity: NaN }, "--sparsity is NaN: wanted a number in [0, 1)"],
    [{ threads: 0 }, "threads is 0: wanted a whole number from 1 to 1024"],
    [{ threads: NaN }, "threads is NaN: wanted a whole number from 1 to 1024"],
    [{ threads: 1025 }, "threads is 1025: wanted a whole number from 1 to 1024"],
    [{ epochs: 1.5 }, "--epochs is 1.5: wanted a whole number of at least 1"],
    [{ batchSize: 0 }, "--batch-size is 0: wanted a whole number of at least 1"],
    [
      { batchSize: undefined, tokensPerBatch: 0 },
      "--tokens-per-batch is 0: wanted a whole number of at least 1",
    ],
    [
      { batchSize: undefined, tokensPerBatch: 99.5 },
      "--tokens-per-batch is 99.5: wanted a whole number of at least 1",
    ],
    [
      { batchSize: undefined, tokensPerBatch: NaN },
      "--tokens-per-batch is NaN: wanted a whole number of at least 1",
    ],
    [
      { batchSize: 32, tokensPerBatch: 1024 },
      "--batch-size 32 and --tokens-per-batch 1024 exclude each other: wanted one of them",
    ],
    [{ learningRate: 0 }, "--learning-rate is 0: wanted a positive number"],
    [{ learningRate: Infinity }, "--learning-rate is Infinity: wanted a positive number"],
    [{ weightDecay: -1 }, "--weight-decay is -1: wanted a number in [0, 1]"],
    [{ optimizerOptions: { beta2: 1 } }, "beta2 is 1: wanted a number in [0, 1)"],
    [{ optimizerOptions: { epsilon: 0 } }, "epsilon is 0: wanted a number above 0"],
    [
      { optimizer: "sgd", optimizerOptions: { amsgrad: true } },
      "amsgrad is true: sgd has none, it takes momentum, dampening, nesterov",
    ],
    [{ optimizerOptions: { amsgrad: "yes" as never } }, "amsgrad is yes: wanted true or false"],
    [{ accumulation: 0 }, "--gradient-accumulation-steps is 0: wanted a whole number of at least 1"],
    [{ layerDecay: 0 }, "--layer-lr-decay is 0: wanted a number in (0, 1]"],
    [{ labelSmoothing: 1 }, "--label-smoothing-factor is 1: wanted a number in [0, 1)"],
    [{ temperature: 0 }, "--temperature is 0: wanted a positive number"],
    [{ hardness: 2 }, "--hardness is 2: wanted a number in [0, 1]"],
    [{ maximumNorm: -1 }, "--max-grad-norm is -1: wanted a number of at least 0"],
    [{ warmupRatio: 2 }, "--warmup-ratio is 2: wanted a number in [0, 1]"],
    [{ seed: -1 }, "--seed is -1: wanted a whole number of at least 0"],
    [{ saveSteps: 0.5 }, "--save-steps is 0.5: wanted a whole number of at least 0"],
    [{ maximumLength: 2 }, "--max-length is 2: wanted a whole number of at least 3"],
    [
      { maximumLength: 25 },
      "--max-length is 25: wanted at most 24, the positions the model has",
    ],
    [{ maximumTrainSamples: 0 }, "--max-train-samples is 0: wanted a whole number of at least 1"],
    [
      { pruneBegin: 0.8 },
      "--prune-begin is 0.8: wanted no more than --prune-end, which is 0.7",
    ],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

Deno.test("finetune refuses names it does not know, and lists those it knows", async () => {
  await using folder = await TinyFolder.create();
  const { path } = folder;
  const cases: [Changes, string | RegExp][] = [
    [
      { task: "translation" },
      "--task is translation: wanted one of text-classification, regression, masked-lm, forecasting",
    ],
    [{ pattern: "4:2" }, /^Unknown pruning pattern 4:2: wanted unstructured, 4x1, 1x4 /],
    [{ scope: "row" }, "--pruning-scope is row: wanted layer or global"],
    [{ precision: "fp8" }, "--precision is fp8: wanted fp32 or fp16"],
    [{ precision: "fp16" }, /^--precision is fp16: wanted fp32 on the CPU \(as asked\)/],
    [{ device: "tpu" }, "--device is tpu: wanted auto, cpu, webgpu or dawn"],
    [{ device: "webgpu", pruningMethod: "movement" }, /^--device webgpu cannot train this run: movement /],
    [{ isa: "mmx" }, /instruction set mmx: this host has .*wasm/],
    [{ init: "bert-huge" }, /^--init is bert-huge: wanted a config file or one of bert-tiny, /],
    [{ init: join(path, "none.json") }, /^--init is .none.json: wanted a config file or one of bert-tiny, /],
    [{ model: join(path, "none") }, /^There is no folder .none, and it is no hub id /],
    [{ model: join(path, "train.tsv") }, "/train.tsv is a file, wanted a model folder or a hub id"],
    [{ model: path, init: "bert-tiny" }, /^--model .* and --init bert-tiny exclude each other/],
    [{ model: path }, / holds no weights, wanted model.safetensors or /],
    [{ init: undefined }, /^--model or --init is missing/],
    [{ train: undefined }, /^--train is missing: wanted a training file/],
    [{ overwrite: true, resume: true }, "--overwrite and --resume exclude each other: wanted one of them"],
    [{ resume: true }, "Cannot resume /out: it holds no training state"],
    [
      { labelNames: ["bad"] },
      /^--label-names are bad: wanted 2 different names, for the labels negative, posi/,
    ],
    [{ labelNames: ["bad", "bad"] }, /^--label-names are bad, bad: wanted 2 different names/],
    [{ tokenizer: path }, "--tokenizer  holds no tokenizer: wanted tokenizer.json or vocab.txt"],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

Deno.test("finetune refuses data it cannot use, with file, line and columns", async () => {
  await using folder = await TinyFolder.create();
  const file = (name: string, content: string | Uint8Array) => folder.write(name, content);
  const cases: [Changes, string | RegExp][] = [
    [{ train: folder.at("none.tsv") }, "Cannot read /none.tsv: there is no such file"],
    [{ evaluation: folder.at("none.csv") }, "Cannot read /none.csv: there is no such file"],
    [{ train: await file("data.xls", "x") }, /^Cannot tell the format of .data.xls: wanted one of .tsv/],
    [{ train: await file("empty.tsv", "") }, "/empty.tsv is empty"],
    [{ train: await file("header.csv", "text,label\n") }, "/header.csv has a header but no rows"],
    [{ textColumn: "review" }, '/train.tsv has no column "review"; it has sentence, label'],
    [{ labelColumn: "stars" }, '/train.tsv has no column "stars"; it has sentence, label'],
    [{ train: await file("other.tsv", "a\tb\nc\td\n") }, /has no column of a known text name; it has a, b\./],
    [{ train: await file("ragged.csv", "text,label\na,b\nc\n") }, /ragged.csv line 3 has 1 fields, wanted 2/],
    [{ train: await file("one.jsonl", '{"text":"a","label":"x"}\n') }, /^There is one label only \(x\)/],
    [{ train: await file("scores.csv", "text,label\na,0.5\nb,1.5\n") }, /^The labels are scores/],
    [{ train: await file("bare.csv", "text\na\nb\n") }, "Row 1 has no label: labels are wanted for training"],
    [{ train: await file("bad.jsonl", '{"text":"a",\n') }, /^.bad.jsonl line 1 is not JSON: /],
    [
      { train: await file("list.jsonl", "[1]\n") },
      "/list.jsonl line 1 is [1], wanted a JSON object per line",
    ],
    [{ train: await file("latin.tsv", Uint8Array.of(0x61, 0xe9, 0x0a)) }, "/latin.tsv is not UTF-8 text"],
    [{ train: await file("cut.tsv.gz", Uint8Array.of(0x1f, 0x8b, 8, 0, 1)) }, /^Cannot unzip .cut.tsv.gz: /],
    [
      { evaluation: await file("eval2.tsv", "sentence\tlabel\na\tpositive\nb\tneutral\n") },
      '/eval2.tsv line 3 has the unknown label "neutral"; known are negative, positive',
    ],
    [
      { evaluation: await file("eval3.tsv", "sentence\na\n") },
      "/eval3.tsv has no label column; it has sentence",
    ],
    [{ task: "regression" }, '/train.tsv line 2 has the label "negative" in "label", wanted a number'],
    [{ maximumTrainSamples: 1 }, /^There is one label only \(negative\)/],
    [
      {
        train: await file("pairs.csv", "text1,text2,label\na,b,0\nc,d,1\n"),
        evaluation: undefined,
        maximumLength: 3,
      },
      "The maximum of 3 tokens leaves no room beside 3 special tokens",
    ],
  ];
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

Deno.test("finetune refuses configs and models that are damaged or none of its own", async () => {
  await using folder = await TinyFolder.create();
  const config = (name: string, json: Record<string, unknown>) =>
    folder.write(name, JSON.stringify({ ...tinyConfigJson, ...json }));
  const cases: [Changes, string | RegExp][] = [
    [
      { init: await folder.write("broken.json", '{"a": }') },
      /^.broken.json is not valid JSON: line 1, column 7/,
    ],
    [
      { init: await config("gpt.json", { model_type: "gpt2" }) },
      '/gpt.json: model_type is "gpt2", wanted "bert"',
    ],
    [
      { init: await config("odd.json", { hidden_size: 15 }) },
      /hidden_size is 15, wanted a multiple of num_att/,
    ],
    [
      {
        init: await config("huge.json", {
          hidden_size: 8192,
          num_hidden_layers: 100,
          intermediate_size: 32768,
        }),
      },
      /^training needs \d+\.\d GiB for batches of \d+ tokens, and .*: take a smaller model, lower --batch-size/,
    ],
  ];

  const model = await folder.writeModel("model");
  const whole = await Deno.readFile(join(model, "model.safetensors"));
  /** A copy of the model with other files. */
  const variant = async (name: string, files: Record<string, Uint8Array | string>) => {
    await folder.writeModel(name);
    for (const [file, content] of Object.entries(files)) await folder.write(join(name, file), content);
    return folder.at(name);
  };
  const damaged = async (name: string, weights: Uint8Array) => ({
    model: await variant(name, { "model.safetensors": weights }),
  });
  const withHeaderLength = (length: bigint) => {
    const bytes = whole.slice();
    new DataView(bytes.buffer).setBigUint64(0, length, true);
    return bytes;
  };
  const withHeader = (
    change: (header: Record<string, { shape: number[]; data_offsets: number[] }>) => void,
  ) => {
    const length = Number(new DataView(whole.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(whole.subarray(8, 8 + length)));
    change(header);
    const text = new TextEncoder().encode(JSON.stringify(header));
    const bytes = new Uint8Array(8 + text.length + whole.length - 8 - length);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
    bytes.set(text, 8);
    bytes.set(whole.subarray(8 + length), 8 + text.length);
    return bytes;
  };
  const query = "bert.encoder.layer.0.attention.self.query.weight";
  cases.push(
    [await damaged("cut-length", whole.slice(0, 5)), /^.cut-length.model.safetensors/],
    [await damaged("cut-header", whole.slice(0, 100)), /^.cut-header.model.safetensors/],
    [await damaged("cut-data", whole.slice(0, -4)), /^.cut-data.model.safetensors/],
    [await damaged("long-header", withHeaderLength(2n ** 63n)), /^.long-header.model.safetensors/],
    [
      await damaged("short-header", withHeaderLength(10n)),
      /^The header of .short-header.model.safetensors is not valid JSON/,
    ],
    [await damaged("empty", new Uint8Array()), /^.empty.model.safetensors/],
    [
      await damaged("outside", withHeader((header) => header[query].data_offsets[1] += 2 ** 40)),
      /^.outside.model.safetensors/,
    ],
    [
      await damaged("flat", withHeader((header) => header[query].shape = [256])),
      `/flat: tensor ${query} has the shape [256], wanted [16,16]`,
    ],
    [
      await damaged(
        "renamed",
        withHeader((header) => {
          header.other = header[query];
          delete header[query];
        }),
      ),
      `/renamed: tensor ${query} is missing, wanted the shape [16,16]`,
    ],
    [
      { model: await folder.writeModel("small", { vocab_size: 30 }) },
      /^the tokenizer has \d+ tokens: wanted at most 30/,
    ],
    [{ model: await variant("no-json", { "tokenizer.json": "{" }) }, /^tokenizer.json is not JSON: /],
    [
      {
        model: await variant("roberta", {
          "config.json": JSON.stringify({ ...tinyConfigJson, model_type: "roberta" }),
        }),
      },
      '/roberta/config.json: model_type is "roberta", wanted "bert"',
    ],
  );
  for (const [changes, message] of cases) await refuses(folder, changes, message);
});

Deno.test("finetune refuses output folders it cannot write or in which something would be lost", async () => {
  await using folder = await TinyFolder.create();
  await refuses(
    folder,
    { out: folder.at("train.tsv") },
    "Cannot write to /train.tsv: it is a file, wanted a folder",
  );
  await refuses(
    folder,
    { out: folder.at("train.tsv", "out") },
    /^Cannot make .*: a part of the path is not a folder$/,
  );
  if (Deno.build.os === "linux") {
    await refuses(folder, { out: "/proc/lacuna" }, /^Cannot make \/proc\/lacuna/);
  }

  const model = await folder.writeModel("model");
  await refuses(
    folder,
    { out: model },
    /^.model already holds a model \(config.json\): pass --overwrite or another/,
  );
  await folder.writeModel("deployed/export");
  await refuses(folder, { out: folder.at("deployed") }, /^.deployed.export already holds a model/);

  const controller = new AbortController();
  await assert.rejects(
    finetune(folder.settings(), {
      signal: controller.signal,
      listener: { message: () => controller.abort() },
    }),
    /interrupted at step 0 of 24/,
  );
  await refuses(folder, {}, "/out already holds a run: pass --resume to go on, --overwrite or another --out");
});

Deno.test("finetune does not resume with other settings, and names the one that changed", async () => {
  await using folder = await TinyFolder.create();
  const controller = new AbortController();
  await assert.rejects(
    finetune(folder.settings(), {
      signal: controller.signal,
      listener: { step: ({ completedSteps }) => completedSteps === 3 && controller.abort() },
    }),
    { name: "Interrupted", message: /^interrupted at step 3 of 24: saved in .*, go on with --resume$/ },
  );
  const changed: [Changes, RegExp][] = [
    [{ learningRate: 0.5 }, /^Cannot resume .out: learningRate was 0.01 and is 0.5 now$/],
    [{ sparsity: 0.5 }, /sparsity was 0.9 and is 0.5 now$/],
    [{ epochs: 5 }, /epochs was 4 and is 5 now$/],
    [{ seed: 1 }, /seed was 42 and is 1 now$/],
    [{ pattern: "4x1" }, /pattern was unstructured and is 4x1 now$/],
    [{ evaluation: undefined }, /evaluation data was \w+ and is \w+ now$/],
    [{ maximumTrainSamples: 80 }, /maximumTrainSamples was not set and is 80 now$/],
    [
      { init: await folder.write("wide.json", JSON.stringify({ ...tinyConfigJson, hidden_size: 32 })) },
      /init was /,
    ],
  ];
  for (const [changes, message] of changed) await refuses(folder, { ...changes, resume: true }, message);

  const state = folder.at("out", "training", "state.safetensors");
  await Deno.writeFile(state, (await Deno.readFile(state)).slice(0, 2000));
  await refuses(folder, { resume: true }, /state.safetensors/);
});
