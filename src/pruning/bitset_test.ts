import assert from "node:assert/strict";
import fc from "fast-check";
import { fullBitset, hasBit, packBytes, popcount, setBit, unpackBytes } from "./bitset.ts";

const sizes = fc.record({ rows: fc.integer({ min: 1, max: 9 }), columns: fc.integer({ min: 1, max: 70 }) });
const masks = sizes.chain(({ rows, columns }) =>
  fc.record({
    rows: fc.constant(rows),
    columns: fc.constant(columns),
    kept: fc.array(fc.boolean(), { minLength: rows * columns, maxLength: rows * columns }),
  })
);

function bitsetOf(kept: readonly boolean[]): Uint32Array {
  const bits = new Uint32Array(Math.ceil(kept.length / 32));
  kept.forEach((keep, index) => keep && setBit(bits, index));
  return bits;
}

Deno.test("setBit and hasBit agree, and popcount counts what was set", () => {
  fc.assert(fc.property(fc.array(fc.boolean(), { maxLength: 200 }), (kept) => {
    const bits = bitsetOf(kept);
    assert.deepEqual(kept.map((_, index) => hasBit(bits, index)), kept);
    assert.equal(popcount(bits), kept.filter(Boolean).length);
  }));
});

Deno.test("fullBitset sets every bit and none past the end", () => {
  for (const count of [0, 1, 31, 32, 33, 64, 100]) {
    const bits = fullBitset(count);
    assert.equal(popcount(bits), count);
    assert.deepEqual([...Array(count).keys()].filter((index) => !hasBit(bits, index)), []);
  }
});

Deno.test("packBytes starts at the lowest bit and pads each row to whole bytes, as numpy.packbits does", () => {
  // numpy.packbits([[1,0,1,0,0,0,0,0,0,1],[0,1,1,1,1,1,1,1,1,0]], axis=-1, bitorder="little")
  const kept = [..."1010000001" + "0111111110"].map((bit) => bit === "1");
  assert.deepEqual([...packBytes(bitsetOf(kept), 2, 10)], [5, 2, 254, 1]);
});

Deno.test("unpackBytes undoes packBytes and ignores the padding bits", () => {
  fc.assert(fc.property(masks, ({ rows, columns, kept }) => {
    const bits = bitsetOf(kept);
    const bytes = packBytes(bits, rows, columns);
    assert.deepEqual(unpackBytes(bytes, rows, columns), bits);
    const rowBytes = bytes.length / rows;
    if (columns % 8) bytes.forEach((_, at) => at % rowBytes === rowBytes - 1 && (bytes[at] |= 0x80));
    if (columns % 8) assert.deepEqual(unpackBytes(bytes, rows, columns), bits);
  }));
});

Deno.test("unpackBytes refuses a bitmask of another size", () => {
  assert.throws(
    () => unpackBytes(new Uint8Array(3), 2, 10),
    new RangeError("Cannot unpack a [2, 10] bitmask: it has 3 bytes, wanted 4"),
  );
});
