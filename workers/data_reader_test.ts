/** The reader's thread: the same data as without it, errors of their kind, an end whenever it is asked for. */
import assert from "node:assert/strict";
import { errorMessage, InputError, UnsupportedError } from "../src/core/errors.ts";
import { type LabelledTexts, TextReader } from "../src/data/reader.ts";
import { wordPieceFiles } from "../src/data/wordpiece.ts";
import { makeReviews, reviewTokenizerFiles } from "../src/reviews/reviews.ts";
import { WorkerDataReader } from "./data_reader.ts";

const labels = ["negative", "positive"];
const tokenizerFiles = reviewTokenizerFiles();
const reviews = (train: number): LabelledTexts => ({
  ...makeReviews({ seed: 5, train, evaluation: 20 }),
  labels,
});

Deno.test("WorkerDataReader gives what TextReader gives", async () => {
  const texts = reviews(300);
  const here = new TextReader();
  const there = new WorkerDataReader();
  try {
    assert.deepEqual(await there.read({ texts }), await here.read({ texts }));
    assert.deepEqual(await there.vocabulary(), here.vocabulary());
    const request = { tokenizerFiles, labels, maximumLength: 32 };
    assert.deepEqual(await there.encode(request), here.encode(request));
  } finally {
    there.dispose();
  }
});

Deno.test("WorkerDataReader leaves the event loop free, and tells how far it is", async () => {
  const reader = new WorkerDataReader();
  try {
    const { rows } = await reader.read({ texts: reviews(20_000) });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    const told: number[] = [];
    await reader.encode({ tokenizerFiles, labels, maximumLength: 32 }, (done) => told.push(done));
    clearInterval(timer);
    assert.ok(ticks > 10, `only ${ticks} timers fired while 20,020 texts were tokenised`);
    assert.ok(told.length > 0);
    assert.deepEqual(told, told.toSorted((a, b) => a - b));
    assert.ok(told.every((done) => done >= 0 && done <= rows));
  } finally {
    reader.dispose();
  }
});

Deno.test("WorkerDataReader passes errors on as what they are, and goes on after them", async () => {
  const reader = new WorkerDataReader();
  try {
    await assert.rejects(
      reader.read({ files: { train: "none.tsv" } }),
      (error) =>
        error instanceof InputError && error.message === "Cannot read none.tsv: there is no such file",
    );
    await reader.read({ texts: reviews(4) });
    await assert.rejects(
      reader.encode({ tokenizerFiles, labels, maximumLength: 2 }),
      (error) => error instanceof InputError && /leaves no room beside 2 special tokens$/.test(error.message),
    );
    const wordLevel = new Map([[
      "tokenizer.json",
      new TextEncoder().encode('{"model":{"type":"WordLevel"}}'),
    ]]);
    await assert.rejects(
      reader.encode({ tokenizerFiles: wordLevel, labels, maximumLength: 8 }),
      (error) => error instanceof UnsupportedError && /WordLevel model/.test(error.message),
    );
    const vocabulary = wordPieceFiles(await reader.vocabulary());
    const data = await reader.encode({ tokenizerFiles: vocabulary, labels, maximumLength: 8 });
    assert.equal(data.train.labels.length, 4);
  } finally {
    reader.dispose();
  }
});

Deno.test("WorkerDataReader that is disposed rejects the call under way and later ones; again does nothing", async () => {
  const reader = new WorkerDataReader();
  await reader.read({ texts: reviews(20_000) });
  const pending = assert.rejects(
    reader.encode({ tokenizerFiles, labels, maximumLength: 32 }),
    /^Error: Cannot read the data: the reader is disposed$/,
  );
  reader.dispose();
  await pending;
  await assert.rejects(reader.vocabulary(), /the reader is disposed$/);
  reader.dispose();
});

Deno.test("WorkerDataReader whose thread dies says so and does not hang", async () => {
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(_: string | URL, options?: WorkerOptions) {
      super(`data:text/javascript,${encodeURIComponent('throw new Error("no memory left")')}`, options);
    }
  };
  const reader = new WorkerDataReader();
  globalThis.Worker = Worker;
  try {
    const message = (error: unknown) =>
      /^Cannot read the data: the thread died: .*no memory left/.test(errorMessage(error));
    await assert.rejects(reader.read({ texts: reviews(4) }), message);
    await assert.rejects(reader.vocabulary(), message);
  } finally {
    reader.dispose();
  }
});
