import assert from "node:assert/strict";
import fc from "fast-check";
import type { EncodedExample } from "./batches.ts";
import { buffersOf, encodedSetOf, exampleAt, lengthsOf } from "./encoded_set.ts";

const examples: fc.Arbitrary<EncodedExample[]> = fc.array(
  fc.array(fc.tuple(fc.nat(30_000), fc.nat(1)), { minLength: 1, maxLength: 9 }).chain((tokens) =>
    fc.record({
      ids: fc.constant(Int32Array.from(tokens, ([id]) => id)),
      typeIds: fc.constant(Uint8Array.from(tokens, ([, type]) => type)),
      label: fc.integer({ min: -1, max: 3 }),
    }, { noNullPrototype: true })
  ),
);

Deno.test("encodedSetOf keeps targets, in float32", () => {
  const list = [0.5, -2.25].map((target) => ({
    ids: Int32Array.of(1, 2),
    typeIds: Uint8Array.of(0, 0),
    label: -1,
    target,
  }));
  const made = encodedSetOf(list);
  const set = structuredClone(made, { transfer: buffersOf(made) });
  assert.deepEqual([exampleAt(set, 0), exampleAt(set, 1)], list);
  assert.equal(made.targets!.length, 0, "handed over, not copied");
});

Deno.test("encodedSetOf keeps every example, also on the way to another thread", () => {
  fc.assert(fc.property(examples, (list) => {
    const made = encodedSetOf(list);
    const set = structuredClone(made, { transfer: buffersOf(made) });
    assert.deepEqual(Array.from(list, (_, index) => exampleAt(set, index)), list);
    assert.deepEqual([...lengthsOf(set)], list.map(({ ids }) => ids.length));
    assert.equal(made.ids.length, 0, "handed over, not copied");
  }));
});
