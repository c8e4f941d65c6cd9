/** Held-out examples. */
import assert from "node:assert/strict";
import { InputError } from "../../core/errors.ts";
import { metaValidationBatch, splitMetaValidation } from "./validation.ts";

Deno.test("splitMetaValidation holds out a fraction by the seed, and each example is in one part", () => {
  const { training, validation } = splitMetaValidation(1000, 0.05, 7);
  assert.equal(validation.length, 50);
  assert.deepEqual(
    [...training, ...validation].sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
  );
  assert.deepEqual(validation, validation.toSorted());
  assert.deepEqual(splitMetaValidation(1000, 0.05, 7).validation, validation);
  assert.notDeepEqual(splitMetaValidation(1000, 0.05, 8).validation, validation);
  assert.equal(splitMetaValidation(3, 0.05, 1).validation.length, 1);
  assert.throws(() => splitMetaValidation(1, 0.05, 1), InputError);
});

Deno.test("metaValidationBatch goes through all held-out examples before any comes again", () => {
  const validation = Int32Array.from([3, 5, 8, 13, 21, 34, 55]);
  const taken: number[] = [];
  for (let update = 0; update < 7; update++) {
    const batch = metaValidationBatch(validation, 3, update, 1);
    assert.equal(batch.length, 3);
    taken.push(...batch);
  }
  for (let round = 0; round < 3; round++) {
    const once = taken.slice(7 * round, 7 * round + 7).sort((a, b) => a - b);
    assert.deepEqual(once, [...validation], `round ${round}`);
  }
  assert.deepEqual(metaValidationBatch(validation, 100, 2, 1).sort((a, b) => a - b), [...validation]);
});
