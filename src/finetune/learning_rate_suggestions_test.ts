import assert from "node:assert/strict";
import { type FinderPoint, suggestLearningRates } from "./learning_rate_suggestions.ts";

/** A curve of 100 points from 1e-7 to 10. `progress` is from 0 to 1. */
function curve(loss: (progress: number, index: number) => number, steps = 100): FinderPoint[] {
  return Array.from({ length: steps }, (_, index) => {
    const smoothed = loss(index / steps, index);
    return { learningRate: 1e-7 * 1e8 ** (index / steps), loss: NaN, smoothed };
  });
}

const indexOf = (points: readonly FinderPoint[], rate: number | undefined) =>
  points.findIndex(({ learningRate }) => learningRate === rate);

Deno.test("suggestions are those of fastai's functions on a noisy curve that falls and shoots up", () => {
  const points = curve((x, i) =>
    0.7 - 0.4 / (1 + Math.exp(-(x - 0.55) * 25)) + (3 * Math.max(0, x - 0.8)) ** 3 + 0.01 * Math.sin(1.7 * i)
  );
  const found = suggestLearningRates(points, 100)!;
  assert.equal(indexOf(points, found.valley), 64);
  assert.equal(indexOf(points, found.steep), 53);
  assert.equal(found.minimum, points[84].learningRate / 10);
  assert.equal(indexOf(points, found.slide), 72);
});

Deno.test("suggestions leave out the first tenth and the last five points", () => {
  // Falls all along, but for two cliffs where nobody is to look.
  const points = curve((x, i) => (i === 5 || i === 97 ? -10 : 1 - x));
  const found = suggestLearningRates(points, 100)!;
  assert.equal(indexOf(points, 10 * found.minimum), 94);
  // 85 points that end at 84: start −1, a third of 85 is 28, and half of that 14.
  assert.equal(indexOf(points, found.valley), 10 + 41);
});

Deno.test("suggestions cut the curve at the first loss that is no number", () => {
  const points = curve((x, i) => (i >= 50 ? NaN : 1 - x));
  assert.equal(indexOf(points, 10 * suggestLearningRates(points, 100)!.minimum), 49);
});

Deno.test("the valley is the longest fall, whatever noise is in it", () => {
  // 10 to 39 rises, 40 to 69 falls with every fifth point out of line, the rest rises again.
  const points = curve((_, i) => (i < 40 ? i / 100 : i < 70 ? 1 - i / 100 + (i % 5 === 0 ? 5 : 0) : i / 10));
  const index = indexOf(points, suggestLearningRates(points, 100)!.valley);
  assert.ok(index > 45 && index < 65, `${index}`);
});

Deno.test("a curve that only rises suggests its first rate", () => {
  const points = curve((x) => x);
  const found = suggestLearningRates(points, 100)!;
  assert.equal(indexOf(points, found.valley), 10);
  assert.equal(found.minimum, points[10].learningRate / 10);
});

Deno.test("a straight line has no slope that changes, so that nothing slides", () => {
  const points = curve((x) => 1 - x);
  assert.equal(indexOf(points, suggestLearningRates(points, 100)!.slide), 94 - 15);
});

Deno.test("short curves have no slide, and what is shorter still no suggestion", () => {
  const points = curve((x) => 1 - x);
  assert.equal(suggestLearningRates(points.slice(0, 30), 100)!.slide, undefined);
  assert.equal(suggestLearningRates(points.slice(0, 31), 100)!.slide, points[10].learningRate);
  assert.ok(suggestLearningRates(points.slice(0, 17), 100));
  for (const length of [0, 5, 11, 16]) {
    assert.equal(suggestLearningRates(points.slice(0, length), 100), undefined);
  }
});
