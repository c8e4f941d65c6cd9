import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError, UnsupportedError } from "../core/errors.ts";
import golden from "./golden/bert_base_uncased.json" with { type: "json" };
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import { wordPieceFiles, wordPieceSpecialTokens } from "./wordpiece.ts";

const vocabulary = [...wordPieceSpecialTokens, "the", "film", "##s", "was", "good", ".", "a", "##b"];
const [cls, sep, unknown] = [2, 3, 1];
const bytes = (value: unknown) =>
  new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
const small = () => loadTokenizer(wordPieceFiles(vocabulary));

const shared = new URL("../../../shared/data/", import.meta.url);

/** The named files of a shared data folder, or undefined with the reason printed. */
async function sharedFiles(folder: string, ...names: string[]): Promise<Map<string, Uint8Array> | undefined> {
  const files = new Map<string, Uint8Array>();
  for (const name of names) {
    const file = new URL(`${folder}/${name}`, shared);
    const content = await Deno.readFile(file).catch(() => undefined);
    if (!content) return void console.log(`skipped: ${folder}/${name} is not beside the repository`);
    files.set(name, content);
  }
  return files;
}

function assertGolden(tokenizer: Tokenizer): void {
  for (const { text, pair, maximumTokens, ids, typeIds, fullLength } of golden.cases) {
    const truncated = fullLength > ids.length;
    const title = JSON.stringify([text, pair, maximumTokens]);
    assert.deepEqual(
      tokenizer.encode(text, pair, maximumTokens),
      { ids, typeIds, fullLength, truncated },
      title,
    );
  }
}

Deno.test("encode gives the ids of Hugging Face's tokenizers for tricky texts and truncated pairs", async () => {
  const files = await sharedFiles("bert-base-uncased", "tokenizer.json");
  if (files) assertGolden(loadTokenizer(files));
});

Deno.test("loadTokenizer makes the same tokenizer of vocab.txt alone", async () => {
  const files = await sharedFiles("bert-base-uncased", "vocab.txt");
  if (!files) return;
  const tokenizer = loadTokenizer(files);
  assertGolden(tokenizer);
  assert.equal(tokenizer.vocabularySize, 30522);
  assert.deepEqual([...tokenizer.files.keys()].sort(), [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
  ]);
  assertGolden(loadTokenizer(tokenizer.files));
});

Deno.test("encode ignores the padding and truncation stored in tokenizer.json", async () => {
  const files = await sharedFiles("minilm-tokenizer", "tokenizer.json");
  if (!files) return;
  const stored = JSON.parse(new TextDecoder().decode(files.get("tokenizer.json")));
  assert.ok(stored.padding && stored.truncation);
  assertGolden(loadTokenizer(files));
  assert.equal(loadTokenizer(files).encode("word ".repeat(400), undefined, 512).ids.length, 402);
});

Deno.test("encode puts special tokens and segments where BERT wants them", () => {
  const { ids, typeIds, truncated, fullLength } = small().encode("The films", "was GOOD.", 16);
  assert.deepEqual(ids, [cls, 5, 6, 7, sep, 8, 9, 10, sep]);
  assert.deepEqual(typeIds, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
  assert.deepEqual([truncated, fullLength], [false, 9]);
  assert.deepEqual(small().encode("", undefined, 3).ids, [cls, sep]);
  assert.deepEqual(small().encode("film", "", 8).ids, [cls, 6, sep, sep]); // an empty pair is still a pair
  assert.deepEqual(small().encode("the film \ud800 ?", undefined, 8).ids, [cls, 5, 6, unknown, sep]);
});

Deno.test("encode never exceeds the maximum, and cuts a pair longest first", () => {
  const tokenizer = small();
  const words = (count: number) => "good ".repeat(count);
  const count = fc.nat(20);
  fc.assert(fc.property(count, count, fc.integer({ min: 4, max: 30 }), (first, second, maximum) => {
    const { ids, typeIds, fullLength } = tokenizer.encode(words(first), words(second), maximum);
    assert.equal(fullLength, first + second + 3);
    assert.equal(ids.length, Math.min(maximum, fullLength));
    assert.equal(typeIds.length, ids.length);
    // The kept lengths are what taking tokens off the longer one by one would leave.
    const kept = [
      typeIds.filter((type) => type === 0).length - 2,
      typeIds.filter((type) => type === 1).length - 1,
    ];
    assert.ok(kept[0] === first || kept[0] >= kept[1] - 1, `${kept}`);
    assert.ok(kept[1] === second || kept[1] >= kept[0] - 1, `${kept}`);
  }));
  assert.throws(
    () => tokenizer.encode("good", undefined, 2),
    /maximum of 2 tokens leaves no room beside 2 special/,
  );
  assert.throws(() => tokenizer.encode("good", "film", 3), InputError);
  assert.throws(() => tokenizer.encode("good", undefined, NaN), InputError);
});

Deno.test("encode finishes on a word of 100,000 letters and on endless marks", () => {
  const tokenizer = small();
  assert.deepEqual(tokenizer.encode("x".repeat(100_000), undefined, 64).ids, [cls, unknown, sep]);
  assert.equal(tokenizer.encode(".".repeat(100_000), undefined, 64).fullLength, 100_002);
  assert.equal(tokenizer.encode("中".repeat(100_000), undefined, 64).fullLength, 100_002);
  assert.equal(tokenizer.encode(`good${"\u0301".repeat(100_000)}`, undefined, 64).fullLength, 3);
});

Deno.test("encode accepts any string", () => {
  const tokenizer = small();
  fc.assert(fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "grapheme" }), (text, pair) => {
    const { ids } = tokenizer.encode(text, pair, 32);
    assert.ok(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.vocabularySize));
  }));
});

Deno.test("loadTokenizer passes the tokenizer's files through unchanged and leaves others out", () => {
  const files = wordPieceFiles(vocabulary).set("special_tokens_map.json", bytes({})).set(
    "config.json",
    bytes({}),
  );
  const tokenizer = loadTokenizer(files);
  assert.deepEqual([...tokenizer.files.keys()].sort(), [
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
  ]);
  for (const [name, content] of tokenizer.files) assert.equal(content, files.get(name));
});

Deno.test("loadTokenizer reads vocab.txt with either line end, and heeds do_lower_case beside it", () => {
  const cased = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "Good", "good"].join("\r\n");
  const files = new Map([["vocab.txt", bytes(cased)], [
    "tokenizer_config.json",
    bytes({ do_lower_case: false }),
  ]]);
  const tokenizer = loadTokenizer(files);
  assert.deepEqual(tokenizer.encode("Good good", undefined, 8).ids, [1, 5, 6, 2]);
  assert.equal(tokenizer.padId, 3);
  assert.equal(tokenizer.tokenId("[MASK]"), 4);
  assert.equal(tokenizer.tokenId("absent"), undefined);
  assert.equal(tokenizer.vocabularySize, 7);
});

Deno.test("loadTokenizer says what is wrong with files it cannot use", () => {
  const rejects = (files: Record<string, unknown>, message: RegExp) =>
    assert.throws(
      () => loadTokenizer(new Map(Object.entries(files).map(([name, value]) => [name, bytes(value)]))),
      (error) => error instanceof InputError && message.test(error.message),
      `${message}`,
    );
  const good = JSON.parse(new TextDecoder().decode(wordPieceFiles(vocabulary).get("tokenizer.json")));
  rejects({}, /no tokenizer: wanted tokenizer.json or vocab.txt/);
  rejects({ "tokenizer.json": "{" }, /tokenizer.json is not JSON/);
  rejects({ "tokenizer.json": "[]" }, /tokenizer.json is not a JSON object/);
  rejects({ "tokenizer.json": {} }, /Cannot use tokenizer.json/);
  rejects({ "tokenizer.json": { ...good, model: null } }, /Cannot use tokenizer.json/);
  const wordLevel = new Map([[
    "tokenizer.json",
    bytes({ ...good, model: { type: "WordLevel", vocab: {} } }),
  ]]);
  assert.throws(() => loadTokenizer(wordLevel), UnsupportedError);
  rejects({ "tokenizer.json": good, "tokenizer_config.json": "x" }, /tokenizer_config.json is not JSON/);
  rejects(
    { "tokenizer.json": good, "tokenizer_config.json": { pad_token: "<nil>" } },
    /no padding token \(<nil>\)/,
  );
  rejects(
    { "vocab.txt": "the\nfilm\n" },
    /vocabulary of 2 tokens has no \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]/,
  );
});

Deno.test("tokenIds are those that encode puts the frame around; the mask token is found or absent", () => {
  const tokenizer = small();
  const long = "The films was GOOD. ".repeat(50);
  const { before, after } = tokenizer.frame;
  assert.deepEqual([before, after], [[cls], [sep]]);
  assert.deepEqual(
    [...before, ...tokenizer.tokenIds(long), ...after],
    tokenizer.encode(long, undefined, 1000).ids,
  );
  assert.deepEqual(tokenizer.tokenIds(""), []);
  assert.equal(tokenizer.maskId, tokenizer.tokenId("[MASK]"));
  const files = wordPieceFiles(vocabulary);
  const json = JSON.parse(new TextDecoder().decode(files.get("tokenizer.json")));
  const withMask = (mask_token: unknown) =>
    loadTokenizer(
      new Map([["tokenizer.json", bytes(json)], ["tokenizer_config.json", bytes({ mask_token })]]),
    ).maskId;
  assert.equal(withMask("film"), 6);
  assert.equal(withMask({ content: "film" }), 6);
  assert.equal(withMask("<mask>"), undefined);
});

Deno.test("RoBERTa's pairs have one segment", () => {
  const json = JSON.parse(new TextDecoder().decode(wordPieceFiles(vocabulary).get("tokenizer.json")));
  json.post_processor = { type: "RobertaProcessing", sep: ["[SEP]", sep], cls: ["[CLS]", cls] };
  const { ids, typeIds } = loadTokenizer(new Map([["tokenizer.json", bytes(json)]])).encode("the", "film", 8);
  assert.deepEqual(ids, [cls, 5, sep, sep, 6, sep]);
  assert.deepEqual(typeIds, [0, 0, 0, 0, 0, 0]);
});
