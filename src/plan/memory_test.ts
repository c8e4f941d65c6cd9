import assert from "node:assert/strict";
import fc from "fast-check";
import { alignUp, layoutBuffers } from "./memory.ts";

const lifetime = fc.record({
  bytes: fc.integer({ min: 1, max: 5000 }),
  firstPhase: fc.integer({ min: 0, max: 30 }),
  length: fc.integer({ min: 0, max: 10 }),
}).map(({ bytes, firstPhase, length }) => ({ bytes, firstPhase, lastPhase: firstPhase + length }));

Deno.test("layoutBuffers never overlaps buffers that live at the same time, and aligns all of them", () => {
  fc.assert(fc.property(fc.array(lifetime, { maxLength: 60 }), (buffers) => {
    const { offsets, totalBytes } = layoutBuffers(buffers);
    buffers.forEach((a, i) => {
      assert.equal(offsets[i] % 64, 0);
      assert.ok(offsets[i] + a.bytes <= totalBytes);
      buffers.slice(0, i).forEach((b, j) => {
        const together = a.firstPhase <= b.lastPhase && b.firstPhase <= a.lastPhase;
        const apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
        assert.ok(!together || apart, `buffers ${i} and ${j} overlap`);
      });
    });
  }));
});

Deno.test("layoutBuffers reuses memory: a chain of equal buffers needs two of them", () => {
  const chain = Array.from({ length: 20 }, (_, i) => ({ bytes: 1000, firstPhase: i, lastPhase: i + 1 }));
  assert.equal(layoutBuffers(chain).totalBytes, 2 * alignUp(1000));
});

Deno.test("layoutBuffers takes less than twice the most that is alive at once", () => {
  fc.assert(
    fc.property(fc.array(lifetime, { minLength: 1, maxLength: 60 }), (buffers) => {
      let peak = 0;
      for (let phase = 0; phase <= 40; phase++) {
        const alive = buffers.filter((b) => b.firstPhase <= phase && phase <= b.lastPhase);
        peak = Math.max(peak, alive.reduce((sum, b) => sum + alignUp(b.bytes), 0));
      }
      assert.ok(layoutBuffers(buffers).totalBytes < 2 * peak);
    }),
    { seed: 7, numRuns: 200 },
  );
});
