import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { type ExampleOptions, type ExampleTable, labelIndices, labelsOf, readExamples } from "./table.ts";

/** Reads `content` as a file of that name. */
async function read(
  name: string,
  content: string | Uint8Array,
  options?: ExampleOptions,
): Promise<ExampleTable> {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/${name}`;
    await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    return await readExamples(path, options);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function gzip(text: string): Promise<Uint8Array> {
  const zipped = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(zipped).arrayBuffer());
}

const rejects = (promise: Promise<unknown>, message: RegExp) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof InputError, `${error}`);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });

Deno.test("readExamples takes quotes in TSV literally, and a byte order mark and CRLF in its stride", async () => {
  const table = await read("a.tsv", '\uFEFFsentence\tlabel\r\nan "odd quote\t1\r\n\r\nplain\t0\r\n');
  assert.deepEqual(table.examples, [{ text: 'an "odd quote', label: "1" }, { text: "plain", label: "0" }]);
  assert.equal(table.columns.text, "sentence");
});

Deno.test("readExamples reads quoted CSV fields with commas, quotes and line breaks", async () => {
  const table = await read("a.csv", '\uFEFFtext,label\n"one, ""two""\nthree",good\nfour,bad\n');
  assert.deepEqual(table.examples, [
    { text: 'one, "two"\nthree', label: "good" },
    { text: "four", label: "bad" },
  ]);
});

Deno.test("readExamples reads JSON Lines, with numbers and booleans as labels", async () => {
  const table = await read("a.jsonl", '{"id":7,"text":"a","label":1}\n\n{"label":false,"text":"b"}\n');
  assert.deepEqual(table.examples, [{ text: "a", label: "1" }, { text: "b", label: "false" }]);
});

Deno.test("readExamples reads gzipped files of every format", async () => {
  const expected = [{ text: "a", label: "x" }, { text: "b", label: "y" }];
  for (
    const [name, content] of [
      ["a.tsv.gz", "text\tlabel\na\tx\nb\ty"],
      ["a.CSV.GZ", "text,label\na,x\nb,y"],
      ["a.jsonl.gz", '{"text":"a","label":"x"}\n{"text":"b","label":"y"}'],
    ]
  ) assert.deepEqual((await read(name, await gzip(content))).examples, expected, name);
});

Deno.test("readExamples finds the columns that GLUE and the hub use", async () => {
  const header = async (...names: string[]) =>
    (await read("a.tsv", `${names.join("\t")}\n${names.map((name) => `a ${name}`).join("\t")}\n`)).columns;
  const columns = (text: string, pair?: string, label?: string) => ({ text, pair, label });
  assert.deepEqual(await header("sentence", "label"), columns("sentence", undefined, "label"));
  assert.deepEqual(await header("index", "sentence"), columns("sentence"));
  assert.deepEqual(
    await header("index", "question", "sentence", "label"),
    columns("question", "sentence", "label"),
  );
  assert.deepEqual(
    await header("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    columns("#1 String", "#2 String", "Quality"),
  );
  assert.deepEqual(
    await header("genre", "sentence1", "sentence2", "score"),
    columns("sentence1", "sentence2", "score"),
  );
  assert.deepEqual(
    await header("premise", "hypothesis", "gold_label"),
    columns("premise", "hypothesis", "gold_label"),
  );
});

Deno.test("readExamples lets options override the columns, and then guesses no pair", async () => {
  const content = "sentence1\tsentence2\tlabel\tstars\na\tb\t0\t5\n";
  assert.deepEqual(
    (await read("a.tsv", content, { textColumn: "sentence2", labelColumn: "stars" })).examples,
    [
      { text: "b", label: "5" },
    ],
  );
  assert.deepEqual((await read("a.tsv", content, { pairColumn: "stars" })).examples, [
    { text: "a", pair: "5", label: "0" },
  ]);
});

Deno.test("readExamples takes column numbers to mean that there is no header", async () => {
  const cola = "gj04\t1\t\tOur friends won't buy this.\ngj04\t0\t*\tThe book what inspired them.\n";
  const { examples } = await read("train.tsv", cola, { textColumn: "4", labelColumn: "2" });
  assert.deepEqual(examples, [
    { text: "Our friends won't buy this.", label: "1" },
    { text: "The book what inspired them.", label: "0" },
  ]);
  await rejects(
    read("train.tsv", cola),
    /no column of a known text name; it has gj04, 1, "", Our.*column numbers/,
  );
  await rejects(read("train.tsv", cola, { textColumn: "5" }), /no column 5; it has 4, numbered from 1/);
  await rejects(read("train.tsv", cola, { labelColumn: "2" }), /numbers for all of them/);
  await rejects(
    read("train.tsv", cola, { textColumn: "4", labelColumn: "label" }),
    /numbers for all of them/,
  );
});

Deno.test("readExamples stops at the limit and ignores what comes after it", async () => {
  const tsv = "text\tlabel\na\t0\nb\t1\nbroken\n";
  const csv = "text,label\na,0\nb,1\nbroken\n";
  const json = '{"text":"a","label":0}\n{"text":"b","label":1}\nbroken\n';
  for (const [name, content] of [["a.tsv", tsv], ["a.csv", csv], ["a.jsonl", json]]) {
    assert.equal((await read(name, content, { limit: 2 })).examples.length, 2, name);
    await rejects(read(name, content), name === "a.jsonl" ? /line 3 / : /line 4 /);
  }
  for (const limit of [0, -1, 1.5, NaN]) await rejects(read("a.tsv", tsv, { limit }), /positive integer/);
});

Deno.test("readExamples names the file, line and columns of bad input", async () => {
  const ok = "text\tlabel\na\t0\n";
  await rejects(readExamples("/no/such/file.tsv"), /Cannot read \/no\/such\/file.tsv: there is no such file/);
  await rejects(read("a.parquet", ok), /Cannot tell the format of .*a.parquet: wanted one of .tsv/);
  await rejects(read("noextension", ok), /Cannot tell the format/);
  await rejects(read("a.tsv", ""), /a.tsv is empty/);
  await rejects(read("a.jsonl", "\n \n"), /a.jsonl is empty/);
  await rejects(read("a.tsv", "text\tlabel\n"), /header but no rows/);
  await rejects(read("a.csv", "text,label\n\n"), /header but no rows/);
  await rejects(read("a.tsv", ok, { labelColumn: "stars" }), /no column "stars"; it has text, label/);
  await rejects(read("a.tsv", "name\tstars\na\t0\n"), /known text name; it has name, stars/);
  await rejects(read("a.tsv", `${ok}b\n`), /line 3 has 1 fields, wanted 2 \(text, label\)/);
  await rejects(read("a.csv", "text,label\na,0\nb,1,2\n"), /line 3 has 3 fields, wanted 2/);
  await rejects(read("a.csv", 'text,label\n"a,0\n'), /as CSV: Quote Not Closed/);
  await rejects(read("a.tsv", `${ok}b\t \n`), /line 3 has an empty label in "label"/);
  await rejects(
    read("a.tsv", ok, { labels: ["1", "2"] }),
    /line 2 has the unknown label "0"; known are 1, 2/,
  );
  await rejects(read("a.tsv", "text\na\n", { labels: ["1", "2"] }), /no label column; it has text/);
  await rejects(read("a.jsonl", '{"text":"a"}\n[1]\n'), /line 2 is \[1\], wanted a JSON object/);
  await rejects(read("a.jsonl", '{"text":"a","label":1}\n{"text":"b"}\n'), /line 2 has no "label"/);
  await rejects(read("a.jsonl", '{"text":["a"]}\n'), /line 1 has a list or an object as "text"/);
  await rejects(read("a.tsv", Uint8Array.of(0x74, 0xff, 0xfe)), /a.tsv is not UTF-8/);
  await rejects(read("a.tsv.gz", ok), /Cannot unzip/);
  await rejects(read("a.tsv.gz", (await gzip(ok)).subarray(0, 12)), /Cannot unzip/);
});

Deno.test("readExamples gives back any text written as CSV or JSON Lines", async () => {
  const quote = (text: string) => `"${text.replaceAll('"', '""')}"`;
  const text = fc.string({ unit: "binary", maxLength: 20 }).filter((value) => value.isWellFormed());
  await fc.assert(
    fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 5 }), async (texts) => {
      const csv = await read(
        "a.csv",
        ["text,label", ...texts.map((value) => `${quote(value)},x`)].join("\r\n"),
      );
      assert.deepEqual(csv.examples.map((example) => example.text), texts);
      const json = await read("a.jsonl", texts.map((value) => JSON.stringify({ text: value })).join("\n"));
      assert.deepEqual(json.examples.map((example) => example.text), texts);
    }),
    { numRuns: 30 },
  );
});

Deno.test("labelsOf sorts integers by value and names by code point", () => {
  const labels = (...values: string[]) => labelsOf(values.map((label) => ({ text: "", label })));
  assert.deepEqual(labels("10", "9", "-1", "9"), ["-1", "9", "10"]);
  assert.deepEqual(labels("positive", "Neutral", "negative"), ["Neutral", "negative", "positive"]);
  assert.throws(() => labels("1", "1"), /one label only \(1\)/);
  assert.throws(() => labels("5.000", "3.8"), /labels are scores \(5.000, 3.8\)/);
  assert.throws(() => labelsOf([{ text: "", label: "a" }, { text: "" }]), /Row 2 has no label/);
});

Deno.test("labelIndices numbers the labels and lists the known ones when one is not", () => {
  const rows = (...values: (string | undefined)[]) => values.map((label) => ({ text: "", label }));
  assert.deepEqual(labelIndices(rows("b", "a", "b"), ["a", "b"]), Int32Array.of(1, 0, 1));
  assert.throws(
    () => labelIndices(rows("a", "c"), ["a", "b"]),
    /Row 2 has the unknown label "c"; known are a, b/,
  );
  assert.throws(() => labelIndices(rows(undefined), ["a", "b"]), /Row 1 has no label; known are a, b/);
});

const glue = new URL("../../../shared/data/glue/", import.meta.url);
const glueRows: readonly [file: string, rows: number, labels: readonly string[], options?: ExampleOptions][] =
  [
    ["SST-2/dev", 872, ["0", "1"]],
    ["MRPC/dev", 408, ["0", "1"]],
    ["RTE/dev", 277, ["entailment", "not_entailment"]],
    ["QNLI/dev", 5463, ["entailment", "not_entailment"]],
    ["CoLA/train", 8551, ["0", "1"], { textColumn: "4", labelColumn: "2" }],
  ];

Deno.test("readExamples reads GLUE's own files", async () => {
  if (!await Deno.stat(glue).then(() => true, () => false)) {
    return console.log("skipped: GLUE's files are not beside the repository");
  }
  for (const [file, rows, labels, options] of glueRows) {
    const { examples } = await readExamples(new URL(`${file}.tsv.gz`, glue).pathname, options);
    assert.equal(examples.length, rows, file);
    assert.deepEqual(labelsOf(examples), labels, file);
  }
});
