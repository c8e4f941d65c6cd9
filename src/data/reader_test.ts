import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../core/errors.ts";
import { exampleAt } from "./encoded_set.ts";
import { TextReader } from "./reader.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { wordPieceFiles } from "./wordpiece.ts";

/** A folder with these files, for as long as the test runs. */
async function withFiles(
  files: Readonly<Record<string, string>>,
  test: (path: (name: string) => string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "lacuna-" });
  try {
    for (const [name, content] of Object.entries(files)) {
      await Deno.writeTextFile(join(folder, name), content);
    }
    await test((name) => join(folder, name));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const files = {
  "train.tsv": "sentence\tlabel\nThe film was good\t1\nthe film\t0\nbad\t0\n",
  "eval.tsv": "sentence\tlabel\ngood\t1\n",
};

Deno.test("TextReader reads, makes a vocabulary, tokenises, and reports", async () => {
  await withFiles(files, async (path) => {
    const reader = new TextReader();
    const summary = await reader.read({
      files: { train: path("train.tsv"), evaluation: path("eval.tsv"), labelNames: ["no", "yes"] },
    });
    assert.deepEqual(summary, { labels: ["no", "yes"], rows: 4 });
    const vocabulary = reader.vocabulary();
    for (const word of ["the", "film", "was", "good", "bad"]) assert.ok(vocabulary.includes(word), word);

    const tokenizerFiles = wordPieceFiles(vocabulary);
    const rows: number[] = [];
    const request = { tokenizerFiles, labels: ["yes", "no"], maximumLength: 4 };
    const { train, evaluation, report, digests } = reader.encode(request, (done) => rows.push(done));
    assert.deepEqual(rows, [1, 2, 3, 4]);
    const tokenizer = loadTokenizer(tokenizerFiles);
    const expected = (text: string, label: number) => {
      const { ids, typeIds } = tokenizer.encode(text, undefined, 4);
      return { ids: Int32Array.from(ids), typeIds: Uint8Array.from(typeIds), label };
    };
    assert.deepEqual([0, 1, 2].map((index) => exampleAt(train, index)), [
      expected("The film was good", 0),
      expected("the film", 1),
      expected("bad", 1),
    ]);
    assert.deepEqual(exampleAt(evaluation, 0), expected("good", 0));
    assert.deepEqual([train.labels.length, evaluation.labels.length], [3, 1]);
    assert.equal(report.train.truncatedRows, 1);
    assert.deepEqual(report.train.labels, [{ label: "no", rows: 2 }, { label: "yes", rows: 1 }]);
    assert.equal(report.evaluation?.rows, 1);
    assert.match(digests.train, /^[0-9a-f]{12}$/);
    assert.notEqual(digests.train, digests.evaluation);

    const swapped = reader.encode({ ...request, labels: ["no", "yes"] });
    assert.deepEqual(swapped.train.ids, train.ids);
    assert.notEqual(swapped.digests.train, digests.train, "labels count");
  });
});

Deno.test("TextReader takes texts at hand like those of a file", async () => {
  await withFiles(files, async (path) => {
    const fromFile = new TextReader();
    const { labels } = await fromFile.read({ files: { train: path("train.tsv") } });
    const atHand = new TextReader();
    const train = [
      { text: "The film was good", label: "1" },
      { text: "the film", label: "0" },
      { text: "bad", label: "0" },
    ];
    assert.deepEqual(await atHand.read({ texts: { train, evaluation: [], labels } }), { labels, rows: 3 });
    const request = { tokenizerFiles: wordPieceFiles(atHand.vocabulary()), labels, maximumLength: 8 };
    const data = atHand.encode(request);
    assert.deepEqual(data, fromFile.encode(request));
    assert.equal(data.report.evaluation, undefined);
    assert.equal(data.evaluation.labels.length, 0);
  });
});

Deno.test("TextReader rejects bad data with one line", async () => {
  await withFiles({ ...files, "odd.tsv": "sentence\tlabel\na\t2\n" }, async (path) => {
    const train = path("train.tsv");
    const cases = [
      [{ train: path("none.tsv") }, /^Cannot read .*none.tsv: there is no such file$/],
      [{ train, evaluation: path("odd.tsv") }, /odd.tsv line 2 has the unknown label "2"; known are 0, 1$/],
      [{ train, labelNames: ["a"] }, /^--label-names are a: wanted 2 different names, for the labels 0, 1$/],
      [{ train, maximumTrainSamples: 1 }, /^There is one label only \(1\)/],
    ] as const;
    for (const [source, message] of cases) {
      await assert.rejects(
        new TextReader().read({ files: source }),
        (error) => error instanceof InputError && message.test(error.message),
        `${message}`,
      );
    }
  });
});
