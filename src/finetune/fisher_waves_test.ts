import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import { planWaves } from "./fisher_waves.ts";

Deno.test("waves fill arenas in order, and each matrix is in one of them", () => {
  const request = { bytesOf: (bytes: number) => bytes, nameOf: String, budget: 25, arenaBytes: 10 };
  assert.deepEqual(planWaves({ ...request, matrices: [6, 6, 4, 5, 9, 1] }), [
    [[6, 4], [6], [5]],
    [[9, 1]],
  ]);
  assert.deepEqual(planWaves({ ...request, matrices: [] }), []);
  assert.throws(() => planWaves({ ...request, matrices: [11] }), InputError);
  assert.throws(() => planWaves({ ...request, matrices: [1], budget: 0 }), InputError);
});
