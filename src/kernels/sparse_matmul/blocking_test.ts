import assert from "node:assert/strict";
import fc from "fast-check";
import { chooseBlocking } from "./blocking.ts";

const avx512 = { lanes: 16, tile: 64, workers: 2, levelOneBytes: 48 << 10 };

Deno.test("chooseBlocking fits panels of single weights to the cache, in equal parts", () => {
  const panel = (depth: number, target = avx512) =>
    chooseBlocking({ pattern: "unstructured", rows: 768, depth }, target).panelInputs;
  assert.deepEqual([100, 384, 768, 1000, 3072].map((depth) => panel(depth)), [100, 192, 192, 167, 192]);
  assert.equal(panel(768, { ...avx512, levelOneBytes: 32 << 10 }), 128);
  assert.equal(panel(768, { ...avx512, lanes: 4, tile: 32 }), 768);
});

Deno.test("chooseBlocking leaves blocks of four rows their long panels", () => {
  const matrix = { pattern: "4x1", rows: 768, depth: 3072 } as const;
  assert.equal(chooseBlocking(matrix, avx512).panelInputs, 768);
});

Deno.test("chooseBlocking gives every worker rows, and blocks that can be packed", () => {
  const matrices = fc.record({
    pattern: fc.constantFrom("unstructured" as const, "4x1" as const),
    rows: fc.integer({ min: 1, max: 5000 }),
    depth: fc.integer({ min: 1, max: 9000 }),
    workers: fc.integer({ min: 1, max: 70 }),
  });
  fc.assert(fc.property(matrices, ({ workers, ...matrix }) => {
    const { panelInputs, blockRows } = chooseBlocking(matrix, { ...avx512, workers });
    assert.ok(Number.isInteger(panelInputs) && panelInputs >= 1 && panelInputs <= 768);
    assert.ok(blockRows >= 4 && blockRows % 4 === 0);
    const blocksOfBusiest = Math.ceil(Math.ceil(matrix.rows / blockRows) / workers);
    assert.ok(blocksOfBusiest * blockRows <= matrix.rows / workers + 4 * blocksOfBusiest);
  }));
  assert.equal(
    chooseBlocking({ pattern: "4x1", rows: 768, depth: 768 }, avx512).blockRows,
    192,
  );
});
