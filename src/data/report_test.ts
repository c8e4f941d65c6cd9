import assert from "node:assert/strict";
import { dataReport, formatDataReport, type ReportInput } from "./report.ts";
import type { Example } from "./table.ts";

const rows = (...examples: Example[]): ReportInput => ({
  examples,
  lengths: examples.map(({ text }) => text.trim().split(/\s+/).length + 2),
});

const train = rows(
  { text: "a good film", label: "1" },
  { text: "A  good\tfilm ", label: "1" }, // repeats the first
  { text: "a good film", label: "0" }, // contradicts both
  { text: "  ", label: "0" },
  { text: "one two three four five six", label: "1" },
);
const evaluation = rows({ text: "A GOOD FILM", label: "0" }, { text: "unseen", label: "1" });

Deno.test("dataReport counts what is wrong with the rows", () => {
  assert.deepEqual(dataReport(train, evaluation, 6), {
    maximumTokens: 6,
    train: {
      rows: 5,
      labels: [{ label: "1", rows: 3 }, { label: "0", rows: 2 }],
      tokens: { p5: 3, p50: 5, p95: 8, maximum: 8 },
      truncatedRows: 1,
      emptyRows: 1,
      duplicateRows: 1,
      conflictingRows: 3,
    },
    evaluation: {
      rows: 2,
      labels: [{ label: "0", rows: 1 }, { label: "1", rows: 1 }],
      tokens: { p5: 3, p50: 3, p95: 5, maximum: 5 },
      truncatedRows: 0,
      emptyRows: 0,
      duplicateRows: 0,
      conflictingRows: 0,
    },
    contaminatedRows: 1,
  });
});

Deno.test("dataReport tells pairs apart by both texts, and takes a blank pair for empty", () => {
  const { train } = dataReport(
    rows(
      { text: "a", pair: "b", label: "0" },
      { text: "a", pair: "c", label: "1" },
      { text: "a", label: "1" },
      { text: "a", pair: "", label: "1" },
    ),
    undefined,
    8,
  );
  assert.deepEqual([train.duplicateRows, train.conflictingRows, train.emptyRows], [0, 0, 1]);
});

Deno.test("dataReport gives nearest-rank percentiles of the lengths before truncation", () => {
  const examples = Array.from({ length: 100 }, (_, index) => ({ text: `${index}` }));
  const lengths = Int32Array.from({ length: 100 }, (_, index) => 100 - index);
  const { tokens, truncatedRows, labels } = dataReport({ examples, lengths }, undefined, 90).train;
  assert.deepEqual(tokens, { p5: 5, p50: 50, p95: 95, maximum: 100 });
  assert.equal(truncatedRows, 10);
  assert.deepEqual(labels, []);
});

Deno.test("formatDataReport is short and names every figure", () => {
  assert.equal(
    formatDataReport(dataReport(train, evaluation, 6)),
    `train       5 rows; 1: 3 (60.0 %), 0: 2 (40.0 %)
            tokens p5 3, p50 5, p95 8, max 8; 1 (20.0 %) cut at 6
            1 empty, 1 repeated, 3 with contradicting labels
evaluation  2 rows; 0: 1 (50.0 %), 1: 1 (50.0 %)
            tokens p5 3, p50 3, p95 5, max 5; 0 (0.0 %) cut at 6
            0 empty, 0 repeated, 0 with contradicting labels
both        1 (50.0 %) evaluation rows are in train too`,
  );
});

Deno.test("formatDataReport sums up many labels and does without labels or evaluation rows", () => {
  const many = rows(
    ...Array.from({ length: 1200 }, (_, index) => ({ text: `t${index}`, label: `${index % 40}` })),
  );
  const text = formatDataReport(dataReport(many, undefined, 128));
  assert.match(text, /^train {7}1,200 rows; 0: 30 \(2.5 %\), .*, 34 more\n/);
  assert.equal(text.split("\n").length, 3);
  assert.match(
    formatDataReport(dataReport(rows({ text: "a" }), rows(), 8)),
    /1 rows; no labels[^]*0 \(0.0 %\) evaluation/,
  );
});
