import assert from "node:assert/strict";
import fc from "fast-check";
import { shareBuffers } from "./shared_buffers.ts";

const lifetime = fc.record({
  bytes: fc.integer({ min: 0, max: 5000 }),
  firstPhase: fc.integer({ min: 0, max: 30 }),
  length: fc.integer({ min: 0, max: 10 }),
}).map(({ bytes, firstPhase, length }) => ({ bytes, firstPhase, lastPhase: firstPhase + length }));

type Lifetimes = Parameters<typeof shareBuffers>[0];

function checkSharing(values: Lifetimes, { byteLengths, assignment }: ReturnType<typeof shareBuffers>): void {
  values.forEach((a, i) => {
    assert.ok(byteLengths[assignment[i]] >= a.bytes, `value ${i} is longer than its buffer`);
    values.slice(0, i).forEach((b, j) => {
      const together = a.firstPhase <= b.lastPhase && b.firstPhase <= a.lastPhase;
      assert.ok(!together || assignment[i] !== assignment[j], `values ${i} and ${j} share a buffer`);
    });
  });
}

Deno.test("shareBuffers never gives a buffer to two values that live at the same time", () => {
  fc.assert(fc.property(fc.array(lifetime, { maxLength: 60 }), (values) => {
    const sharing = shareBuffers(values);
    checkSharing(values, sharing);
    for (const bytes of sharing.byteLengths) assert.ok(bytes > 0 && bytes % 256 === 0);
  }));
});

Deno.test("shareBuffers takes turns: a chain of equal values needs two buffers", () => {
  const chain = Array.from({ length: 20 }, (_, i) => ({ bytes: 1000, firstPhase: i, lastPhase: i + 1 }));
  assert.deepEqual(shareBuffers(chain).byteLengths, [1024, 1024]);
});

Deno.test("shareBuffers puts a value where the least is wasted", () => {
  const at = (bytes: number, phase: number) => ({ bytes, firstPhase: phase, lastPhase: phase });
  const { byteLengths, assignment } = shareBuffers([at(4096, 0), at(1024, 0), at(1000, 1), at(2000, 1)]);
  assert.deepEqual(byteLengths, [4096, 1024]);
  assert.deepEqual(assignment, [0, 1, 1, 0]);
});

Deno.test("shareBuffers on the buffers of a larger batch gives the same assignment and no buffer more", () => {
  const shrinking = fc.array(fc.tuple(lifetime, fc.double({ min: 0, max: 1, noNaN: true })), {
    maxLength: 60,
  });
  fc.assert(fc.property(shrinking, (pairs) => {
    const large = shareBuffers(pairs.map(([value]) => value));
    const small = pairs.map(([value, share]) => ({ ...value, bytes: Math.floor(value.bytes * share) }));
    assert.deepEqual(shareBuffers(small, large), large);
  }));
});

Deno.test("shareBuffers on buffers of something else adds only what does not fit", () => {
  fc.assert(fc.property(fc.array(lifetime), fc.array(lifetime), (some, others) => {
    const before = shareBuffers(some);
    const after = shareBuffers(others, before);
    checkSharing(others, after);
    assert.deepEqual(after.byteLengths.slice(0, before.byteLengths.length), before.byteLengths);
  }));
  const one = { bytes: 1000, firstPhase: 0, lastPhase: 0 };
  const before = shareBuffers([one, one]);
  assert.deepEqual(shareBuffers([one, { ...one, bytes: 2000 }], before), {
    byteLengths: [1024, 1024, 2048],
    assignment: [0, 2],
  });
});
