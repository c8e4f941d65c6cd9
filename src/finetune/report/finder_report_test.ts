import assert from "node:assert/strict";
import type { FoundLearningRate } from "../find_learning_rate.ts";
import { finderReport, formatFinder } from "./finder_report.ts";

const points = Array.from({ length: 100 }, (_, index) => {
  const smoothed = 0.7 - 0.4 / (1 + Math.exp(-(index / 100 - 0.55) * 25));
  return { learningRate: 1e-7 * 1e5 ** (index / 100), loss: smoothed + 0.05 * (index % 2), smoothed };
});

const found: FoundLearningRate = {
  points,
  suggestion: { valley: 3.2e-4, steep: 1.5e-4, minimum: 8e-4, slide: 1e-3 },
  suggested: 3.2e-4,
};

Deno.test("formatFinder shows the curve thinned, every rule and the suggestion", () => {
  const text = formatFinder(found);
  const lines = text.split("\n");
  assert.equal(lines.filter((line) => /^ +\d\.\d\de-\d +0\.\d{4} +0\.\d{4}$/.test(line)).length, 20);
  for (const line of ["valley         3.20e-4", "steep          1.50e-4", "minimum        8.00e-4"]) {
    assert.ok(lines.includes(line), `${line}\n${text}`);
  }
  assert.equal(lines.at(-1), "Suggested learning rate: 3.20e-4.");
});

Deno.test("formatFinder says where a limit or a divergence decided, and leaves out a rule that said nothing", () => {
  const { slide: _, ...suggestion } = found.suggestion;
  const text = formatFinder({ ...found, suggestion, suggested: 1e-4, stopped: "the loss is NaN" });
  assert.match(
    text,
    /^Suggested learning rate: 1\.00e-4, the limit; the valley is at 3\.20e-4; stopped at 8\.91e-3: the loss is NaN\.$/m,
  );
  assert.doesNotMatch(text, /slide/);
});

Deno.test("finderReport is a page with the curve, the suggestion marked, and every point, that needs nothing else", async () => {
  const html = await finderReport(found, "bert-base on SST-2 & <co>");
  assert.equal(html.match(/<svg /g)?.length, 1);
  assert.match(html, /SST-2 &amp; &lt;co&gt;/);
  assert.equal(html.match(/<tr>/g)?.length, 2 + 4 + points.length);
  assert.equal(html.match(/>3\.20e-4<\/text>/g)?.length, 1);
  assert.doesNotMatch(
    html,
    /<(script|link|img|iframe|object|embed)\b|@import|url\((?!#)|\bsrc=|(fill|stroke)="#|NaN/,
  );
});

Deno.test("finderReport draws a curve that ends in no number", async () => {
  const broken = [...points, { learningRate: 1, loss: NaN, smoothed: NaN }];
  const html = await finderReport({ ...found, points: broken, stopped: "the loss is NaN" }, "");
  const svg = html.slice(html.indexOf("<svg"), html.indexOf("</svg>"));
  assert.doesNotMatch(svg, /NaN|undefined/);
});
