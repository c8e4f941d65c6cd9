/** `pipeline` as callers meet it: shapes of answers, pairs, options, concurrency, the end. */
import assert from "node:assert/strict";
import { join } from "node:path";
import {
  type ClassScore,
  InputError,
  pipeline,
  type PipelineInput,
  type PipelineOptions,
} from "../../mod.ts";
import { TinyFolder, tinyRows } from "../finetune/tiny_run.ts";

const texts = tinyRows(20, 4).map(({ sentence }) => sentence);
/** Batches of other sizes have other tiles, so sums may be rounded otherwise. */
function assertNear(found: readonly ClassScore[], wanted: readonly ClassScore[]): void {
  assert.equal(found.length, wanted.length);
  found.forEach(({ label, score }, text) => {
    assert.equal(label, wanted[text].label);
    assert.ok(Math.abs(score - wanted[text].score) < 1e-5, `${score}, wanted ${wanted[text].score}`);
  });
}

const labels = { id2label: { 0: "bad", 1: "good", 2: "neither" } };

Deno.test("pipeline gives one class for a text, a list for a list, and top_k classes when asked", async () => {
  await using folder = await TinyFolder.create();
  const classify = await pipeline("text-classification", await folder.writeModel("model", labels), {
    threads: 2,
  });
  try {
    const one = await classify(texts[0]);
    assert.deepEqual(Object.keys(one), ["label", "score"]);
    const many = await classify(texts);
    assert.equal(many.length, texts.length);
    assertNear([many[0]], [one]);
    assert.deepEqual(await classify([]), []);
    assert.deepEqual(await classify([texts[0]]), [one]);
    assert.ok(new Set(many.map(({ score }) => score)).size > 10, "different texts get different scores");

    for (const top_k of [1, 2, 3, 7]) {
      const scored = await classify(texts, { top_k });
      assertNear(await classify(texts[0], { top_k }), scored[0]);
      scored.forEach((scores, text) => {
        assert.equal(scores.length, Math.min(top_k, 3));
        assert.deepEqual(scores[0], many[text]);
        for (let k = 1; k < scores.length; k++) assert.ok(scores[k - 1].score >= scores[k].score);
      });
    }
    for (const scores of await classify(texts, { top_k: 3 })) {
      assert.deepEqual(scores.map(({ label }) => label).sort(), ["bad", "good", "neither"]);
      const sum = scores.reduce((total, { score }) => total + score, 0);
      assert.ok(Math.abs(sum - 1) < 1e-12, `the scores sum up to ${sum}`);
    }
  } finally {
    await classify.dispose();
  }
});

Deno.test("pipeline answers the same for a text alone, in any company, and from concurrent callers", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const classify = await pipeline("sentiment-analysis", model, { threads: 2 });
  try {
    const together = await classify(texts);
    const alone = await Promise.all(texts.map((text) => classify(text)));
    assertNear(alone, together);
    const groups = await Promise.all([
      classify(texts.slice(0, 7)),
      classify(texts.slice(7)),
      classify(texts),
    ]);
    assertNear([...groups[0], ...groups[1]], together);
    assert.deepEqual(groups[2], together);
  } finally {
    await classify.dispose();
  }
});

Deno.test("pipeline takes pairs, which are not the same as one text", async () => {
  await using folder = await TinyFolder.create();
  const classify = await pipeline("text-classification", await folder.writeModel("model"), { threads: 1 });
  try {
    const [first, second] = ["the film was great", "its plot was weak"];
    const pair = await classify({ text: first, pair: second });
    assert.notDeepEqual(pair, await classify({ text: second, pair: first }));
    assert.notDeepEqual(pair, await classify(`${first} ${second}`));
    assert.deepEqual(await classify({ text: first }), await classify(first));
    assertNear(await classify([{ text: first, pair: second }, first]), [pair, await classify(first)]);
  } finally {
    await classify.dispose();
  }
});

Deno.test("pipeline cuts long texts, or refuses them when told to", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const long = Array(100).fill("great").join(" ");
  const cutting = await pipeline("text-classification", model, { threads: 1 });
  const strict = await pipeline("text-classification", model, { threads: 1, truncate: false });
  const short = await pipeline("text-classification", model, { threads: 1, maximumLength: 5 });
  try {
    assert.deepEqual(await cutting(long), await cutting(Array(22).fill("great").join(" ")));
    assert.deepEqual(await short(long), await cutting("great great great"));
    await assert.rejects(
      strict([texts[0], long]),
      new InputError("a text has 102 tokens: wanted at most 24"),
    );
    assert.deepEqual(await strict(texts[0]), await cutting(texts[0]), "a refused text does no harm");
  } finally {
    for (const each of [cutting, strict, short]) await each.dispose();
  }
});

Deno.test("pipeline says so when a model's weights are damaged, instead of answering NaN", async () => {
  await using folder = await TinyFolder.create();
  const dir = await folder.writeModel("model", labels);
  const path = join(dir, "model.safetensors");
  const bytes = await Deno.readFile(path);
  const view = new DataView(bytes.buffer);
  const headerBytes = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
  view.setFloat32(8 + headerBytes + header["classifier.bias"].data_offsets[0], NaN, true);
  await Deno.writeFile(path, bytes);
  const classify = await pipeline("text-classification", dir);
  try {
    await assert.rejects(classify(texts[0]), { name: "InputError", message: /weights are damaged/ });
  } finally {
    await classify.dispose();
  }
});

Deno.test("pipeline refuses models and options it cannot use, in one line", async () => {
  await using folder = await TinyFolder.create();
  const model = await folder.writeModel("model");
  const cases: [string, PipelineOptions | Record<string, unknown>, string | RegExp][] = [
    [model, { threads: 0 }, "threads is 0: wanted a whole number from 1 to 1024"],
    [model, { threads: 1.5 }, "threads is 1.5: wanted a whole number from 1 to 1024"],
    [model, { device: "webgpu" }, "device is webgpu: wanted cpu"],
    [model, { dtype: "q4" }, "dtype is q4: wanted fp32"],
    [model, { isa: "mmx" }, /instruction set mmx: this host has /],
    [model, { maximumLength: 25 }, "maximumLength is 25: wanted a whole number from 3 to 24"],
    [model, { maximumLength: 2 }, "maximumLength is 2: wanted a whole number from 3 to 24"],
    [folder.at("none"), {}, /^There is no folder .none, and it is no hub id /],
    [folder.at("train.tsv"), {}, "/train.tsv is a file, wanted a model folder or a hub id"],
    [
      await folder.writeModel("small", { vocab_size: 30 }),
      {},
      /^the tokenizer has \d+ tokens: wanted at most 30/,
    ],
  ];
  const untokenised = await folder.writeModel("untokenised");
  for (const name of ["tokenizer.json", "vocab.txt"]) await Deno.remove(join(untokenised, name));
  cases.push([untokenised, {}, "There is no tokenizer: wanted tokenizer.json or vocab.txt"]);
  for (const [name, options, message] of cases) {
    await assert.rejects(pipeline("text-classification", name, options as PipelineOptions), (error) => {
      assert.ok(error instanceof InputError, `${error}`);
      const text = error.message.replaceAll(folder.path, "");
      if (typeof message === "string") assert.equal(text, message);
      else assert.match(text, message);
      assert.doesNotMatch(text, /\n/);
      return true;
    });
  }
  await assert.rejects(
    pipeline("fill-mask" as "text-classification", model),
    new InputError("the task is fill-mask: wanted one of text-classification, sentiment-analysis"),
  );
});

Deno.test("pipeline refuses calls that make no sense, and goes on", async () => {
  await using folder = await TinyFolder.create();
  const classify = await pipeline("text-classification", await folder.writeModel("model"), { threads: 1 });
  try {
    const before = await classify(texts);
    for (
      const [input, message] of [
        [5, "a text is undefined: wanted a string"],
        [null, "a text is undefined: wanted a string"],
        [[texts[0], undefined], "a text is undefined: wanted a string"],
        [{ text: 5 }, "a text is number: wanted a string"],
        [{ text: "a", pair: 5 }, "a pair is number: wanted a string"],
      ] as const
    ) {
      await assert.rejects(classify(input as unknown as PipelineInput), new InputError(message));
    }
    for (const top_k of [0, -1, 1.5, NaN]) {
      await assert.rejects(
        classify(texts, { top_k }),
        new InputError(`top_k is ${top_k}: wanted a whole number of at least 1`),
      );
    }
    assert.deepEqual(await classify(texts), before);
  } finally {
    await classify.dispose();
  }
});

Deno.test("pipeline answers what was asked before dispose, refuses what comes after, and may be disposed twice", async () => {
  await using folder = await TinyFolder.create();
  const classify = await pipeline("text-classification", await folder.writeModel("model"), { threads: 2 });
  const expected = await classify(texts);
  const pending = [classify(texts), classify(texts)];
  await Promise.all([classify.dispose(), classify.dispose()]);
  assert.deepEqual(await Promise.all(pending), [expected, expected]);
  await assert.rejects(classify(texts), /disposed/);
  await classify.dispose();
});
