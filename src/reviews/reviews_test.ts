import assert from "node:assert/strict";
import type { Example } from "../data/table.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { randomKey, RandomStream } from "../core/random.ts";
import { clauseRules, frameRules, makeReview, parseReview, reviewWords } from "./grammar.ts";
import { makeReviews, reviewTokenizerFiles } from "./reviews.ts";
import { opinions } from "./vocabulary.ts";

const reviews = makeReviews({ seed: 42 });
const all = [...reviews.train, ...reviews.evaluation];
const polarityOf = ({ label }: Example) => label === "positive" ? 1 : -1;
const words = (text: string) => text.toLowerCase().match(/[a-z]+/g)!;

Deno.test("makeReviews depends on the seed only", () => {
  assert.deepEqual(makeReviews({ seed: 42 }), reviews);
  assert.notDeepEqual(makeReviews({ seed: 43 }).train[0], reviews.train[0]);
});

Deno.test("makeReviews gives balanced sets of the sizes asked for, shuffled", () => {
  assert.deepEqual([reviews.train.length, reviews.evaluation.length], [8000, 1000]);
  for (const set of [reviews.train, reviews.evaluation]) {
    assert.equal(set.filter(({ label }) => label === "positive").length * 2, set.length);
    assert.ok(new Set(set.slice(0, 32).map(({ label }) => label)).size === 2);
  }
  const odd = makeReviews({ seed: 1, train: 101, evaluation: 0 });
  assert.deepEqual([odd.train.length, odd.evaluation.length], [101, 0]);
});

Deno.test("makeReviews repeats no sentence, within a set or across", () => {
  assert.equal(new Set(all.map(({ text }) => text.toLowerCase())).size, all.length);
});

Deno.test("reviews have 6 to 30 words, a capital first and a full stop last", () => {
  for (const { text } of all) {
    const { length } = text.split(" ");
    assert.ok(length >= reviewWords.minimum && length <= reviewWords.maximum, text);
    assert.match(text, /^[A-Z][A-Za-z, ]+\.$/);
  }
});

Deno.test("the grammar reads every review in one way, and as its label says", () => {
  for (const example of all) {
    assert.equal(parseReview(example.text).polarity, polarityOf(example), example.text);
  }
});

Deno.test("every frame and clause rule occurs with both labels", () => {
  const met = new Set(all.flatMap(({ text }) => {
    const { frame, clause, polarity } = parseReview(text);
    return [`${frame} ${polarity}`, `${clause} ${polarity}`];
  }));
  for (const { name } of [...frameRules, ...clauseRules]) {
    assert.ok(met.has(`${name} 1`) && met.has(`${name} -1`), name);
  }
});

Deno.test("parseReview reads each construction as its rule says", () => {
  const readings: [text: string, polarity: number, frame: string, clause: string][] = [
    ["For me, the plot was superb.", 1, "plain", "statement"],
    ["For me, I hated the plot.", -1, "plain", "statement"],
    ["For me, the plot was a bit dull.", -1, "plain", "degree"],
    ["The plot was not dull at all.", 1, "plain", "negation"],
    ["There was nothing superb about the plot.", -1, "plain", "negation"],
    ["For me, the plot was never less than superb.", 1, "plain", "double negation"],
    ["The plot was less dull than the book.", 1, "plain", "comparison"],
    ["I expected the plot to be superb, and I was wrong.", -1, "plain", "expectation"],
    ["It runs for two hours, and the plot was superb.", 1, "irrelevant fact", "statement"],
    ["Although the acting was superb, the plot was not superb.", -1, "concession", "negation"],
    ["The plot was dull, even though the acting was superb.", -1, "concession", "statement"],
    ["The acting was dull, but I did not hate the plot.", 1, "contrast", "negation"],
    ["I expected the acting to be dull, yet the plot was superb.", 1, "hedge", "statement"],
  ];
  for (const [text, polarity, frame, clause] of readings) {
    assert.deepEqual(parseReview(text), { polarity, frame, clause }, text);
  }
});

Deno.test("parseReview refuses what is not of the grammar", () => {
  for (const text of ["", "Hello there.", "The plot was purple.", "Although the plot was dull."]) {
    assert.throws(() => parseReview(text), RangeError, text);
  }
});

Deno.test("reviews outside the default seed are read right too", () => {
  const random = new RandomStream(randomKey(7, "grammar"));
  for (let i = 0; i < 2000; i++) {
    const polarity = i % 2 === 0 ? 1 : -1;
    const text = makeReview(random, polarity);
    assert.equal(parseReview(text).polarity, polarity, text);
  }
});

Deno.test("no word of opinion is both positive and negative", () => {
  const lists = Object.values(opinions);
  const positive = new Set<string>(lists.flatMap((list) => list.positive));
  const negative = lists.flatMap((list): string[] => [...list.negative]);
  assert.deepEqual(negative.filter((word) => positive.has(word)), []);
});

Deno.test("a bag of words cannot tell the sentiment: naive Bayes stays far below 90 %", () => {
  const log = Math.log;
  const counts = new Map<string, { positive: number; negative: number }>();
  for (const { text, label } of reviews.train) {
    for (const word of new Set(words(text))) {
      const count = counts.get(word) ?? { positive: 1, negative: 1 }; // add-one smoothing
      count[label as "positive" | "negative"]++;
      counts.set(word, count);
    }
  }
  const score = (text: string) =>
    words(text).reduce((sum, word) => {
      const { positive, negative } = counts.get(word) ?? { positive: 1, negative: 1 };
      return sum + log(positive / negative);
    }, 0);
  const right = reviews.evaluation.filter((example) => score(example.text) * polarityOf(example) > 0).length;
  const accuracy = right / reviews.evaluation.length;
  assert.ok(accuracy > 0.4 && accuracy < 0.8, `${accuracy}`);
});

Deno.test("the reviews' tokenizer has a token for every word, and pieces for any other text", () => {
  const tokenizer = loadTokenizer(reviewTokenizerFiles());
  const unknown = tokenizer.tokenId("[UNK]")!;
  for (const { text } of all) {
    const { ids, truncated } = tokenizer.encode(text, undefined, 64);
    assert.ok(!ids.includes(unknown) && !truncated, text);
    // One token a word, comma or full stop, beside [CLS] and [SEP].
    assert.equal(ids.length, text.match(/[A-Za-z]+|[,.]/g)!.length + 2, text);
  }
  const { ids } = tokenizer.encode("Überraschend gut: 10/10 {würde} wieder~ kaufen!?", undefined, 128);
  assert.ok(!ids.includes(unknown));
  assert.ok(tokenizer.encode("😀", undefined, 8).ids.includes(unknown));
  assert.equal(tokenizer.padId, 0);
});
