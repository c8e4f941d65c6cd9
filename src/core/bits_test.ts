import assert from "node:assert/strict";
import fc from "fast-check";
import { countBits, rowWords } from "./bits.ts";

Deno.test("countBits counts as counting one by one does", () => {
  fc.assert(fc.property(fc.integer(), (word) => {
    const ones = Array.from((word >>> 0).toString(2)).filter((digit) => digit === "1").length;
    assert.equal(countBits(word), ones);
  }));
  assert.deepEqual([0, -1, 1 << 31].map(countBits), [0, 32, 1]);
});

Deno.test("rowWords has the bits of the bytes, wherever the rows begin", () => {
  const sizes = fc.record({
    rows: fc.integer({ min: 0, max: 9 }),
    columns: fc.integer({ min: 1, max: 140 }),
    skew: fc.integer({ min: 0, max: 4 }),
    seed: fc.infiniteStream(fc.nat(255)),
  });
  fc.assert(fc.property(sizes, ({ rows, columns, skew, seed }) => {
    const rowBytes = Math.ceil(columns / 8);
    const bitmask = new Uint8Array(skew + rows * rowBytes).subarray(skew);
    for (let i = 0; i < bitmask.length; i++) bitmask[i] = seed.next().value;
    const { words, stride } = rowWords(bitmask, rows, columns);
    assert.equal(words.length, rows * stride);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const expected = bitmask[row * rowBytes + (column >> 3)] >> (column & 7) & 1;
        assert.equal(words[row * stride + (column >> 5)] >>> (column & 31) & 1, expected);
      }
    }
  }));
  assert.throws(() => rowWords(new Uint8Array(3), 2, 9), RangeError);
});
