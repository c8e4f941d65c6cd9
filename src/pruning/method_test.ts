import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { hasBit, popcount } from "./bitset.ts";
import { magnitude } from "./magnitude.ts";
import { type PrunableMatrix, pruneMasks, type PruningMethod, zeroPruned } from "./method.ts";
import { blockGrid, blockShape, collapseToBlocks, expandBlockMask, type Pattern } from "./pattern.ts";

const matrix: fc.Arbitrary<Omit<PrunableMatrix, "name">> = fc.record({
  rows: fc.integer({ min: 1, max: 11 }),
  columns: fc.integer({ min: 1, max: 40 }),
}).chain(({ rows, columns }) =>
  fc.record({
    rows: fc.constant(rows),
    columns: fc.constant(columns),
    values: fc.float32Array({ minLength: rows * columns, maxLength: rows * columns, noNaN: true }),
  })
);
const matrices: fc.Arbitrary<PrunableMatrix[]> = fc.array(matrix, { maxLength: 4 })
  .map((list) => list.map((each, index) => ({ ...each, name: `w${index}` })));
/** Patterns of blocks; those of groups are in weight_groups_test.ts. */
const pattern = fc.constantFrom<Pattern>("unstructured", "4x1", "1x4", "[2,3]", "[8,1]");
const scope = fc.constantFrom("layer" as const, "global" as const);
const sparsity = fc.oneof(fc.constantFrom(0, 0.5, 0.9, 1), fc.double({ min: 0, max: 1, noNaN: true }));

const blocksOf = (each: PrunableMatrix, name: Pattern) => {
  const grid = blockGrid(name, each);
  return grid.rows * grid.columns;
};

Deno.test("pruneMasks prunes exactly round(sparsity · blocks), of each matrix or of all", () => {
  fc.assert(fc.property(matrices, pattern, scope, sparsity, (list, pattern, scope, sparsity) => {
    const masks = pruneMasks(list, { method: magnitude, pattern, scope, sparsity });
    assert.deepEqual([...masks.keys()], list.map(({ name }) => name));
    const kept = list.map((each) => popcount(collapseToBlocks(masks.get(each.name)!, pattern, each)));
    const blocks = list.map((each) => blocksOf(each, pattern));
    const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
    if (scope === "global") assert.equal(sum(blocks) - sum(kept), Math.round(sparsity * sum(blocks)));
    else assert.deepEqual(kept, blocks.map((count) => count - Math.round(sparsity * count)));
  }));
});

Deno.test("the weights of a block are kept or pruned together, also in a short last block", () => {
  fc.assert(fc.property(matrices, pattern, scope, sparsity, (list, pattern, scope, sparsity) => {
    const masks = pruneMasks(list, { method: magnitude, pattern, scope, sparsity });
    const block = blockShape(pattern);
    for (const { name, rows, columns } of list) {
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const first = (row - row % block.rows) * columns + column - column % block.columns;
          assert.equal(hasBit(masks.get(name)!, row * columns + column), hasBit(masks.get(name)!, first));
        }
      }
    }
  }));
});

Deno.test("every kept block has a mean magnitude no smaller than any pruned block of its ranking", () => {
  fc.assert(fc.property(matrices, pattern, scope, sparsity, (list, pattern, scope, sparsity) => {
    const masks = pruneMasks(list, { method: magnitude, pattern, scope, sparsity });
    const block = blockShape(pattern);
    const scored = list.map(({ name, rows, columns, values }) =>
      Array.from(values, (_, index) => {
        const [row, column] = [Math.floor(index / columns), index % columns];
        const [top, left] = [row - row % block.rows, column - column % block.columns];
        const members = [];
        for (let y = top; y < Math.min(rows, top + block.rows); y++) {
          for (let x = left; x < Math.min(columns, left + block.columns); x++) {
            members.push(Math.abs(values[y * columns + x]));
          }
        }
        const mean = Math.fround(members.reduce((a, b) => a + b) / members.length);
        return { mean, kept: hasBit(masks.get(name)!, index) };
      })
    );
    for (const ranking of scope === "global" ? [scored.flat()] : scored) {
      const smallestKept = Math.min(...ranking.filter(({ kept }) => kept).map(({ mean }) => mean));
      const largestPruned = Math.max(...ranking.filter(({ kept }) => !kept).map(({ mean }) => mean));
      assert.ok(!(largestPruned > smallestKept), `${largestPruned} pruned, ${smallestKept} kept`);
    }
  }));
});

Deno.test("masks are monotone while the weights change, and idempotent once applied", () => {
  fc.assert(
    fc.property(matrices, pattern, scope, sparsity, sparsity, (list, pattern, scope, one, other) => {
      const request = { method: magnitude, pattern, scope };
      const before = pruneMasks(list, { ...request, sparsity: Math.min(one, other) });
      const reversed = list.map((each) => ({ ...each, values: each.values.toReversed() }));
      const sparsity = Math.max(one, other);
      const after = pruneMasks(reversed, { ...request, sparsity, previous: before });
      for (const [name, mask] of after) {
        mask.forEach((word, index) => assert.equal(word & ~before.get(name)![index], 0));
      }
      const again = pruneMasks(reversed, { ...request, sparsity, previous: after });
      assert.deepEqual(again, after);
    }),
  );
});

Deno.test("a lower sparsity than the masks so far keeps those masks", () => {
  const values = Float32Array.from({ length: 64 }, (_, index) => index - 32);
  const list = [{ name: "w", rows: 8, columns: 8, values }];
  const request = { method: magnitude, pattern: "unstructured", scope: "layer" } as const;
  const previous = pruneMasks(list, { ...request, sparsity: 0.75 });
  assert.deepEqual(pruneMasks(list, { ...request, sparsity: 0.25, previous }), previous);
});

Deno.test("going from unstructured to 4x1 never brings a weight back", () => {
  const values = Float32Array.from({ length: 64 }, (_, index) => Math.sin(index * index));
  const list = [{ name: "w", rows: 8, columns: 8, values }];
  const request = { method: magnitude, scope: "layer" } as const;
  const previous = pruneMasks(list, { ...request, pattern: "unstructured", sparsity: 0.5 });
  const mask = pruneMasks(list, { ...request, pattern: "4x1", sparsity: 0.5, previous }).get("w")!;
  mask.forEach((word, index) => assert.equal(word & ~previous.get("w")![index], 0));
  assert.ok(popcount(mask) > 0);
});

Deno.test("layer scope prunes each matrix alike, global scope the matrix of small weights", () => {
  const list = [
    { name: "small", rows: 4, columns: 4, values: new Float32Array(16).fill(0.01) },
    { name: "large", rows: 4, columns: 4, values: new Float32Array(16).fill(1) },
  ];
  const kept = (scope: "layer" | "global") =>
    [...pruneMasks(list, { method: magnitude, pattern: "4x1", scope, sparsity: 0.5 }).values()].map(popcount);
  assert.deepEqual(kept("layer"), [8, 8]);
  assert.deepEqual(kept("global"), [0, 16]);
});

Deno.test("pruneMasks takes signed scores from any method", () => {
  const preferColumnTwo: PruningMethod = {
    name: "column two",
    score: ({ values, columns }) => ({ values: values.map((_, index) => index % columns === 2 ? 1 : -1) }),
  };
  const list = [{ name: "w", rows: 2, columns: 4, values: new Float32Array(8) }];
  const request = {
    method: preferColumnTwo,
    pattern: "unstructured",
    scope: "layer",
    sparsity: 0.75,
  } as const;
  assert.deepEqual([...pruneMasks(list, request).get("w")!], [0b01000100]);
});

Deno.test("expandBlockMask undoes collapseToBlocks on masks of whole blocks", () => {
  fc.assert(fc.property(matrix, pattern, sparsity, (each, pattern, sparsity) => {
    const list = [{ ...each, name: "w" }];
    const mask = pruneMasks(list, { method: magnitude, pattern, scope: "layer", sparsity }).get("w")!;
    assert.deepEqual(expandBlockMask(collapseToBlocks(mask, pattern, each), pattern, each), mask);
  }));
});

Deno.test("zeroPruned zeroes what is pruned and leaves the rest", () => {
  const values = Float32Array.of(1, -2, 3, -4);
  zeroPruned(Uint32Array.of(0b0110), [values]);
  assert.deepEqual([...values], [0, -2, 3, 0]);
});

Deno.test("pruneMasks refuses weights that are NaN, sparsities out of range and sizes that disagree", () => {
  const list = [{ name: "w", rows: 4, columns: 1, values: Float32Array.of(1, NaN, 1, 1) }];
  for (const pattern of ["unstructured", "4x1"] as const) {
    const request = { method: magnitude, pattern, scope: "layer", sparsity: 0.5 } as const;
    assert.throws(() => pruneMasks(list, request), InputError);
  }
  const request = { method: magnitude, pattern: "unstructured", scope: "layer", sparsity: 0.5 } as const;
  for (const sparsity of [-0.1, 1.1, NaN]) {
    assert.throws(() => pruneMasks(list, { ...request, sparsity }), InputError);
  }
  assert.throws(() => pruneMasks([{ ...list[0], rows: 5 }], request), RangeError);
  assert.throws(
    () => pruneMasks(list, { ...request, previous: new Map([["w", new Uint32Array(2)]]) }),
    RangeError,
  );
});
