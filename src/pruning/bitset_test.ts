import assert from "node:assert/strict";
import fc from "fast-check";
import { hasBit, popcount, setBit } from "./bitset.ts";

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
