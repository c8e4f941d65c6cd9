import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { randomKey } from "../core/random.ts";
import { guessCount, maskingRule, maskSequence, maximumGuesses } from "./masking.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { wordPieceFiles, wordPieceSpecialTokens } from "./wordpiece.ts";

const rule = { maskId: 4, vocabularySize: 1000, before: 1, after: 1 };

const sequenceOf = (length: number) => Int32Array.from({ length }, (_, index) => 100 + index);

Deno.test("maskSequence leaves all but the places alone, and the frame always", () => {
  fc.assert(fc.property(fc.integer({ min: 2, max: 130 }), fc.nat(), (length, seed) => {
    const ids = sequenceOf(length);
    const { ids: masked, places } = maskSequence(ids, rule, randomKey(seed));
    assert.deepEqual(ids, sequenceOf(length), "the original stays");
    assert.equal(places.length, guessCount(length - 2));
    assert.deepEqual([...places], [...new Set(places)].sort((a, b) => a - b));
    assert.ok(places.every((place) => place >= 1 && place < length - 1));
    ids.forEach((id, place) => places.includes(place) || assert.equal(masked[place], id));
    assert.deepEqual(maskSequence(ids, rule, randomKey(seed)), { ids: masked, places });
  }));
});

Deno.test("maskSequence guesses 15 %: 80 % of them masked, 10 % replaced, 10 % left", () => {
  let [guesses, hidden, left] = [0, 0, 0];
  for (let seed = 0; seed < 400; seed++) {
    const ids = sequenceOf(102);
    const { ids: masked, places } = maskSequence(ids, rule, randomKey(seed));
    guesses += places.length;
    hidden += places.filter((place) => masked[place] === rule.maskId).length;
    left += places.filter((place) => masked[place] === ids[place]).length;
  }
  assert.equal(guesses, 400 * 15);
  // Four standard deviations of a binomial: 4 √(6000 · 0.8 · 0.2) = 124.
  assert.ok(Math.abs(hidden - 0.8 * guesses) < 124, `${hidden}`);
  assert.ok(Math.abs(left - 0.1 * guesses) < 93, `${left}`);
});

Deno.test("maximumGuesses is room enough for any batch", () => {
  assert.deepEqual([0, 1, 2, 9, 10, 126].map(guessCount), [0, 1, 1, 1, 2, 19]);
  fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (tokens) => {
    const columns = tokens.reduce((sum, count) => sum + count + 2, 0);
    const guesses = tokens.reduce((sum, count) => sum + guessCount(count), 0);
    assert.ok(guesses <= maximumGuesses({ columns, sequences: tokens.length }));
  }));
});

Deno.test("maskingRule wants a mask token", () => {
  const tokenizer = loadTokenizer(wordPieceFiles([...wordPieceSpecialTokens, "film"]));
  assert.deepEqual(maskingRule(tokenizer), {
    maskId: tokenizer.tokenId("[MASK]"),
    vocabularySize: wordPieceSpecialTokens.length + 1,
    before: 1,
    after: 1,
  });
  assert.throws(() => maskingRule({ ...tokenizer, maskId: undefined }), InputError);
});
