import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { hasBit, popcount, setBit } from "./bitset.ts";
import { type ScoreList, selectMasks } from "./select.ts";

const selectMask = (list: ScoreList, prunedCount: number) => selectMasks([list], prunedCount)[0];

/** Sorts everything: what `selectMasks` must equal. */
function naiveSelect(lists: readonly ScoreList[], prunedCount: number): Uint32Array[] {
  const units = lists.flatMap((list, at) =>
    [...list.values].map((value, index) => ({
      at,
      index,
      prunedBefore: list.previous ? !hasBit(list.previous, index) : false,
      score: list.absolute ? Math.abs(value) : value,
    }))
  );
  const already = units.filter((unit) => unit.prunedBefore).length;
  // Array.prototype.sort is stable, so ties stay in index order. (Infinity − Infinity is NaN, hence the comparisons.)
  const order = (a: number, b: number) => (a < b ? -1 : a > b ? 1 : 0);
  units.sort((a, b) => order(+b.prunedBefore, +a.prunedBefore) || order(a.score, b.score));
  const masks = lists.map(({ values }) => new Uint32Array(Math.ceil(values.length / 32)));
  for (const { at, index } of units.slice(Math.max(prunedCount, already))) setBit(masks[at], index);
  return masks;
}

/** Few distinct values make ties; the others cover every bit pattern but NaN. */
const score = fc.oneof(
  fc.constantFrom(-1, -0, 0, 1, 1 + 2 ** -23, 2, -2, Infinity, -Infinity, 2 ** -149, -(2 ** -149)),
  fc.float({ noNaN: true }),
);

const scoreList: fc.Arbitrary<ScoreList> = fc.array(fc.record({ value: score, kept: fc.boolean() }), {
  maxLength: 150,
}).chain((units) =>
  fc.record({ absolute: fc.boolean(), masked: fc.boolean() }).map(({ absolute, masked }) => {
    const previous = new Uint32Array(Math.ceil(units.length / 32));
    units.forEach(({ kept }, index) => kept && setBit(previous, index));
    const values = Float32Array.from(units, ({ value }) => value);
    return { name: "w", values, absolute, previous: masked ? previous : undefined };
  })
);

const share = fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true }));

const unitsOf = (lists: readonly ScoreList[]) => lists.reduce((sum, { values }) => sum + values.length, 0);
const keptOf = (masks: readonly Uint32Array[]) => masks.reduce((sum, mask) => sum + popcount(mask), 0);

Deno.test("selectMasks equals a stable sort, bit for bit, over several lists", () => {
  fc.assert(
    fc.property(fc.array(scoreList, { maxLength: 4 }), share, (lists, part) => {
      const count = Math.round(part * unitsOf(lists));
      assert.deepEqual(selectMasks(lists, count), naiveSelect(lists, count));
    }),
    { numRuns: 500 },
  );
});

Deno.test("selectMasks prunes the exact count, whatever the ties", () => {
  fc.assert(fc.property(fc.nat(5000), share, fc.integer({ min: 1, max: 3 }), (length, part, distinct) => {
    const values = Float32Array.from({ length }, (_, index) => (index * 7) % distinct);
    const count = Math.round(part * length);
    assert.equal(popcount(selectMask({ name: "w", values }, count)), length - count);
  }));
});

Deno.test("selectMasks prunes the lowest indices of equal scores first, across its internal chunks", () => {
  const values = new Float32Array(5000).fill(0.5);
  const mask = selectMask({ name: "w", values }, 4321);
  assert.equal(popcount(mask), 5000 - 4321);
  assert.deepEqual([hasBit(mask, 4320), hasBit(mask, 4321)], [false, true]);
});

Deno.test("selectMasks carries ties from one list to the next", () => {
  const list = { name: "w", values: Float32Array.of(1, 1, 1) };
  assert.deepEqual(selectMasks([list, list], 4).map(([word]) => word), [0b000, 0b110]);
});

Deno.test("a unit once pruned stays pruned as the count rises, though its score is the largest", () => {
  fc.assert(fc.property(scoreList, share, share, (list, first, second) => {
    const counts = [first, second].map((part) => Math.round(part * list.values.length)).sort((a, b) => a - b);
    const before = selectMask(list, counts[0]);
    // Scores turn round in between, as if training had made the pruned units large.
    const changed = { ...list, values: list.values.map((value) => -value), previous: before };
    const after = selectMask(changed, counts[1]);
    before.forEach((word, index) => assert.equal(after[index] & ~word, 0));
    assert.equal(popcount(after), Math.min(popcount(before), list.values.length - counts[1]));
  }));
});

Deno.test("selecting the same count again changes nothing", () => {
  fc.assert(fc.property(fc.array(scoreList, { maxLength: 3 }), share, (lists, part) => {
    const count = Math.round(part * unitsOf(lists));
    const once = selectMasks(lists, count);
    const twice = selectMasks(lists.map((list, at) => ({ ...list, previous: once[at] })), count);
    assert.deepEqual(twice, once);
    assert.equal(keptOf(twice), keptOf(once));
  }));
});

Deno.test("spared units are kept, and the rest is selected as if there were no others", () => {
  fc.assert(fc.property(scoreList, fc.infiniteStream(fc.boolean()), share, (list, spares, part) => {
    const isSpared = Array.from(list.values, (_, index) => {
      const prunedBefore = list.previous && !hasBit(list.previous, index);
      return spares.next().value! && !prunedBefore;
    });
    const spared = new Uint32Array(Math.ceil(list.values.length / 32));
    isSpared.forEach((each, index) => each && setBit(spared, index));
    const rest = isSpared.flatMap((each, index) => each ? [] : [index]);
    const previous = list.previous && new Uint32Array(spared.length);
    rest.forEach((index, at) => previous && hasBit(list.previous!, index) && setBit(previous, at));
    const values = Float32Array.from(rest, (index) => list.values[index]);
    const count = Math.round(part * rest.length);
    const among = selectMask({ ...list, values, previous }, count);
    const mask = selectMask({ ...list, spared }, count);
    isSpared.forEach((each, index) => each && assert.ok(hasBit(mask, index), `${index}`));
    rest.forEach((index, at) => assert.equal(hasBit(mask, index), hasBit(among, at), `${index}`));
    assert.throws(() => selectMask({ ...list, spared }, rest.length + 1), RangeError);
  }));
});

Deno.test("a NaN of either sign is an error that says where", () => {
  for (const bits of [0x7fc00000, 0xffc00000, 0x7f800001]) {
    for (const absolute of [false, true]) {
      const values = new Float32Array(3000);
      new Uint32Array(values.buffer)[2500] = bits;
      assert.throws(
        () => selectMask({ name: "query", values, absolute }, 1),
        new InputError("Cannot prune query: score 2500 is NaN, wanted a number"),
      );
    }
  }
});

Deno.test("a count that cannot be pruned is refused", () => {
  for (const count of [-1, 4, 0.5, NaN]) {
    assert.throws(() => selectMask({ name: "w", values: new Float32Array(3) }, count), RangeError);
  }
});
