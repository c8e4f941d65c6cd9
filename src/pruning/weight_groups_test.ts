/** N:M by magnitude and by signed scores: the groups on the way and at the end. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../core/errors.ts";
import { hasBit, popcount, setBit } from "./bitset.ts";
import { magnitude } from "./magnitude.ts";
import { type PrunableMatrix, pruneMasks, type PruningRequest } from "./method.ts";
import { highestSparsity, type Pattern, weightGroup } from "./pattern.ts";
import { gatheredScores } from "./scores.ts";

/** Few distinct values make ties; a matrix has whole groups of 12, which 2, 3, 4 and 6 divide. */
const value = fc.oneof(fc.constantFrom(-1, -0, 0, 1, 2, -2, Infinity), fc.float({ noNaN: true }));
const matrices: fc.Arbitrary<PrunableMatrix[]> = fc.array(
  fc.record({ rows: fc.integer({ min: 1, max: 5 }), groups: fc.integer({ min: 1, max: 4 }) })
    .chain(({ rows, groups }) =>
      fc.array(value, { minLength: 12 * rows * groups, maxLength: 12 * rows * groups })
        .map((values) => ({ name: "", rows, columns: 12 * groups, values: Float32Array.from(values) }))
    ),
  { minLength: 1, maxLength: 3 },
).map((list) => list.map((each, index) => ({ ...each, name: `w${index}` })));
const pattern = fc.constantFrom<Pattern>("2:4", "1:4", "1:2", "2:3", "5:6", "1:12");
const scope = fc.constantFrom("layer" as const, "global" as const);
const share = fc.oneof(fc.constantFrom(0, 0.5, 1), fc.double({ min: 0, max: 1, noNaN: true }));

/** Pruned weights of every group, row by row. */
function prunedOfGroups({ rows, columns }: PrunableMatrix, mask: Uint32Array, size: number): number[] {
  return Array.from({ length: rows * columns / size }, (_, group) => {
    let pruned = 0;
    for (let index = group * size; index < (group + 1) * size; index++) pruned += hasBit(mask, index) ? 0 : 1;
    return pruned;
  });
}

Deno.test("N:M prunes exactly M − N of every group in the end, whatever the scope", () => {
  fc.assert(fc.property(matrices, pattern, scope, (list, pattern, scope) => {
    const { kept, size } = weightGroup(pattern)!;
    for (const off of [-0.01, 0, 0.01]) {
      const sparsity = highestSparsity(pattern) + off;
      const masks = pruneMasks(list, { method: magnitude, pattern, scope, sparsity });
      for (const each of list) {
        for (const pruned of prunedOfGroups(each, masks.get(each.name)!, size)) {
          assert.equal(pruned, size - kept);
        }
      }
    }
  }));
});

/** Prunes one weight after the other: the least of those whose group may lose another. What a mask must equal. */
function naiveMask({ rows, columns, values }: PrunableMatrix, count: number, kept: number, size: number) {
  const mask = new Uint32Array(Math.ceil(rows * columns / 32));
  for (let index = 0; index < rows * columns; index++) setBit(mask, index);
  const lost = new Uint8Array(rows * columns / size);
  for (let pruned = 0; pruned < count; pruned++) {
    let least = -1;
    for (let index = 0; index < values.length; index++) {
      if (!hasBit(mask, index) || lost[Math.floor(index / size)] === size - kept) continue;
      if (least < 0 || Math.abs(values[index]) < Math.abs(values[least])) least = index;
    }
    mask[least >>> 5] &= ~(1 << (least & 31));
    lost[Math.floor(least / size)]++;
  }
  return mask;
}

Deno.test("on the way N:M prunes the exact share of least magnitude that the groups allow, ties by lowest index", () => {
  fc.assert(fc.property(matrices, pattern, share, ([matrix], pattern, share) => {
    const { kept, size } = weightGroup(pattern)!;
    const sparsity = share * (highestSparsity(pattern) - 0.02);
    const count = Math.round(sparsity * matrix.values.length);
    const mask = pruneMasks([matrix], { method: magnitude, pattern, scope: "layer", sparsity }).get("w0")!;
    const most = matrix.values.length / size * (size - kept);
    assert.deepEqual(mask, naiveMask(matrix, Math.min(count, most), kept, size));
  }));
});

Deno.test("N:M masks grow only, end exact, and are the same when chosen again", () => {
  fc.assert(fc.property(matrices, pattern, scope, share, (list, pattern, scope, share) => {
    const { kept, size } = weightGroup(pattern)!;
    const request = { method: magnitude, pattern, scope };
    const highest = highestSparsity(pattern);
    const before = pruneMasks(list, { ...request, sparsity: share * highest });
    const reversed = list.map((each) => ({ ...each, values: each.values.toReversed() }));
    const after = pruneMasks(reversed, { ...request, sparsity: highest, previous: before });
    for (const each of list) {
      const mask = after.get(each.name)!;
      mask.forEach((word, index) => assert.equal(word & ~before.get(each.name)![index], 0));
      assert.ok(prunedOfGroups(each, mask, size).every((pruned) => pruned === size - kept));
    }
    assert.deepEqual(pruneMasks(reversed, { ...request, sparsity: highest, previous: after }), after);
  }));
});

Deno.test("a mask of another pattern that prunes more of a group than N:M stays", () => {
  const list = [{ name: "w", rows: 1, columns: 8, values: Float32Array.of(9, 9, 9, 9, 1, 2, 3, 4) }];
  const previous = new Map([["w", Uint32Array.of(0b11110001)]]);
  const request = { method: magnitude, pattern: "2:4", scope: "layer", sparsity: 0.5, previous } as const;
  assert.deepEqual([...pruneMasks(list, request).get("w")!], [0b11000001]);
});

Deno.test("signed scores let the most negative weights go, and weights may return", () => {
  const list = [{ name: "w", rows: 1, columns: 8, values: new Float32Array(8) }];
  let scores = Float32Array.of(-3, -1, 0, 2, 4, -5, 6, -7);
  const request: PruningRequest = {
    method: gatheredScores(() => scores, "weight"),
    pattern: "2:4",
    scope: "layer",
    sparsity: 0.5,
  };
  assert.deepEqual([...pruneMasks(list, request).get("w")!], [0b01011100]);
  scores = scores.map((score) => -score);
  assert.deepEqual([...pruneMasks(list, request).get("w")!], [0b10100011]);
});

Deno.test("a short last group keeps N of what it has", () => {
  const list = [{ name: "w", rows: 2, columns: 5, values: Float32Array.of(1, 2, 3, 4, 5, 5, 4, 3, 2, 1) }];
  const request = { method: magnitude, pattern: "1:4", scope: "layer", sparsity: 0.75 } as const;
  const mask = pruneMasks(list, request).get("w")!;
  assert.deepEqual([...mask], [0b10001_11000]);
  assert.equal(popcount(mask), 4);
});

Deno.test("N:M refuses a sparsity above its own, and weights that are NaN", () => {
  const list = [{ name: "w", rows: 1, columns: 4, values: Float32Array.of(1, NaN, 1, 1) }];
  const request = { method: magnitude, pattern: "2:4", scope: "layer" } as const;
  assert.throws(
    () => pruneMasks(list, { ...request, sparsity: 0.6 }),
    new InputError("Cannot prune to sparsity 0.6 in the pattern 2:4: wanted at most 0.5"),
  );
  assert.throws(() => pruneMasks(list, { ...request, sparsity: 0.5 }), InputError);
});
