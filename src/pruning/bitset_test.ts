import assert from "node:assert/strict";
import fc from "fast-check";
import { forEachRun, hasBit, popcount, setBit } from "./bitset.ts";

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

Deno.test("forEachRun visits every element once, in runs as long as they can be", () => {
  const runs = fc.array(fc.record({ isOne: fc.boolean(), length: fc.nat({ max: 150 }) }), { maxLength: 8 });
  fc.assert(fc.property(runs, (lengths) => {
    const kept = lengths.flatMap(({ isOne, length }) => Array<boolean>(length).fill(isOne));
    const starts = kept.flatMap((isOne, i) => i === 0 || isOne !== kept[i - 1] ? [i] : []);
    const wanted = starts.map((begin, i) => [kept[begin], begin, starts[i + 1] ?? kept.length]);
    const seen: unknown[] = [];
    const told = (isOne: boolean) => (begin: number, end: number) => seen.push([isOne, begin, end]);
    forEachRun(bitsetOf(kept), kept.length, told(true), told(false));
    assert.deepEqual(seen, wanted);

    seen.length = 0;
    forEachRun(undefined, kept.length, told(true), told(false));
    assert.deepEqual(seen, kept.length > 0 ? [[true, 0, kept.length]] : []);
  }));
});
