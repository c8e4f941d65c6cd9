import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InputError } from "../core/errors.ts";
import { exists } from "../core/files.ts";
import { exampleAt } from "./encoded_set.ts";
import { type DataFiles, TextReader } from "./reader.ts";
import { formatDataReport } from "./report.ts";
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
    assert.ok("contaminatedRows" in report);
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

Deno.test("TextReader reads scores, and reports what they are like", async () => {
  const scored = "sentence1\tsentence2\tscore\na\tb\t0.5\nb\ta\t-2\na\ta\t3e0\n";
  await withFiles({ "train.tsv": scored, "eval.tsv": scored }, async (path) => {
    const reader = new TextReader();
    const source = { kind: "scores", train: path("train.tsv"), evaluation: path("eval.tsv") } as const;
    assert.deepEqual(await reader.read({ files: source }), { labels: ["score"], rows: 6 });
    const tokenizerFiles = wordPieceFiles(reader.vocabulary());
    const { train, evaluation, report, digests } = reader.encode({
      tokenizerFiles,
      labels: ["score"],
      maximumLength: 8,
    });
    assert.deepEqual([...train.targets!], [0.5, -2, 3]);
    assert.deepEqual([...train.labels], [-1, -1, -1]);
    assert.deepEqual([...exampleAt(train, 0).typeIds], [0, 0, 0, 1, 1]);
    assert.equal(exampleAt(evaluation, 1).target, -2);
    assert.match(formatDataReport(report), /^train +3 rows; scores -2 to 3, mean 0\.50\n/);

    const other = new TextReader();
    await Deno.writeTextFile(path("train.tsv"), scored.replace("0.5", "0.75"));
    await other.read({ files: { ...source, labelNames: ["likeness"] } });
    const changed = other.encode({ tokenizerFiles, labels: ["likeness"], maximumLength: 8 });
    assert.notEqual(changed.digests.train, digests.train, "scores count");
  });
});

Deno.test("TextReader joins the lines of plain text and cuts them into sequences", async () => {
  await withFiles(
    { "train.txt": " \n = a = \n\nb c d e f\n", "eval.csv": "id,text\n1,a b\n2,\n" },
    async (path) => {
      const reader = new TextReader();
      const files = { kind: "text", train: path("train.txt"), evaluation: path("eval.csv") } as const;
      assert.deepEqual(await reader.read({ files }), { labels: [], rows: 3 });
      const tokenizerFiles = wordPieceFiles(reader.vocabulary());
      const rows: number[] = [];
      const { train, evaluation, report } = reader.encode(
        { tokenizerFiles, labels: [], maximumLength: 5 },
        (done) => rows.push(done),
      );
      const tokenizer = loadTokenizer(tokenizerFiles);
      const framed = (...words: string[]) =>
        ["[CLS]", ...words, "[SEP]"].map((word) => tokenizer.tokenId(word)!);
      const idsOf = (set: typeof train) => Array.from(set.labels, (_, i) => [...exampleAt(set, i).ids]);
      assert.deepEqual(idsOf(train), [framed("=", "a", "="), framed("b", "c", "d"), framed("e", "f")]);
      assert.deepEqual(idsOf(evaluation), [framed("a", "b")]);
      assert.deepEqual(rows, [1, 2, 3]);
      assert.equal(
        formatDataReport(report),
        "train       2 lines, 8 tokens, in 3 sequences of at most 5\n" +
          "evaluation  1 lines, 2 tokens, in 1 sequences of at most 5",
      );
    },
  );
});

Deno.test("TextReader rejects bad scores and empty texts with one line", async () => {
  const rows = (label: string) => `sentence\tscore\na\t1\nb\t${label}\n`;
  const bad = ["high", "0x10", "nan", "Infinity", "1e99", "1,5"];
  const contents = Object.fromEntries(bad.map((label, index) => [`bad${index}.tsv`, rows(label)]));
  await withFiles({
    ...contents,
    "unlabelled.tsv": "sentence\na\n",
    "empty.txt": "\n \n",
    "blank.tsv": "sentence\n \n",
  }, async (path) => {
    const scores = (name: string) => ({ kind: "scores" as const, train: path(name) });
    const text = (name: string) => ({ kind: "text" as const, train: path(name) });
    const cases: [DataFiles, RegExp][] = [
      ...bad.map((label, index): [DataFiles, RegExp] => [
        scores(`bad${index}.tsv`),
        new RegExp(`bad${index}.tsv line 3 has the label "${label}" in "score", wanted a number$`),
      ]),
      [scores("unlabelled.tsv"), /unlabelled.tsv has no label column; it has sentence$/],
      [{ ...scores("bad0.tsv"), labelNames: ["a", "b"] }, /^--label-names are a, b: wanted one name/],
      [text("empty.txt"), /empty.txt is empty$/],
      [text("blank.tsv"), /blank.tsv holds blank texts only$/],
      [{ ...text("blank.tsv"), labelNames: ["a"] }, /^--label-names are a: text alone has no labels$/],
      [{ ...text("blank.tsv"), labelColumn: "a" }, /^--label-column is a: text alone has no labels$/],
    ];
    for (const [files, message] of cases) {
      await assert.rejects(
        new TextReader().read({ files }),
        (error) => error instanceof InputError && message.test(error.message),
        `${message}`,
      );
    }
  });
});

const shared = fileURLToPath(new URL("../../../shared/data/", import.meta.url));

Deno.test("TextReader reads all of STS-B and WikiText-2", async () => {
  const [stsb, wikitext] = [`${shared}glue/STS-B`, `${shared}wikitext-2`];
  if (!await exists(stsb) || !await exists(wikitext)) {
    return console.log(`skipped: there is no ${stsb} or ${wikitext}`);
  }
  const scores = await new TextReader().read({
    files: { kind: "scores", train: `${stsb}/train.tsv.gz`, evaluation: `${stsb}/dev.tsv.gz` },
  });
  assert.deepEqual(scores, { labels: ["score"], rows: 5749 + 1500 });
  const text = await new TextReader().read({ files: { kind: "text", train: `${wikitext}/valid.txt.gz` } });
  assert.equal(text.rows, 2461);
});
