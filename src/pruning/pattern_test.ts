import assert from "node:assert/strict";
import { InputError } from "../core/errors.ts";
import {
  blockGrid,
  blockShape,
  checkFinalSparsity,
  checkPattern,
  highestSparsity,
  parsePattern,
  weightGroup,
} from "./pattern.ts";

Deno.test("parsePattern gives each pattern its one name", () => {
  const names = {
    "unstructured": "unstructured",
    "4x1": "4x1",
    "[4,1]": "4x1",
    "1x4": "1x4",
    "block4": "1x4",
    "[1, 4]": "1x4",
    "[1,1]": "unstructured",
    "2:4": "2:4",
    "tensorrt": "2:4",
    "1:32": "1:32",
    "[ 16 , 8 ]": "[16,8]",
  };
  for (const [name, canonical] of Object.entries(names)) {
    assert.equal(parsePattern(name), canonical);
    assert.equal(parsePattern(parsePattern(name)), canonical);
  }
});

Deno.test("parsePattern refuses what is no pattern, in one line", () => {
  const bad = ["", "toString", "4:2", "4:4", "0:4", "2:", "2:33", "1:4:8", "3x3", "[0,4]", "[4]", "[2,-1]"];
  for (const name of [...bad, "[1.5,2]", "[99999999999,99999999999]", "2:4 ", "02:4", "Unstructured"]) {
    assert.throws(() => parsePattern(name), (error: Error) => {
      assert.ok(error instanceof InputError);
      assert.ok(error.message.startsWith(`Unknown pruning pattern ${name}: wanted unstructured, 4x1, `));
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  }
});

Deno.test("a pattern is blocks of a shape, or groups of single weights", () => {
  assert.deepEqual(blockShape("unstructured"), { rows: 1, columns: 1 });
  assert.deepEqual(blockShape("4x1"), { rows: 4, columns: 1 });
  assert.deepEqual(blockShape("1x4"), { rows: 1, columns: 4 });
  assert.deepEqual(blockShape("[12,3]"), { rows: 12, columns: 3 });
  assert.deepEqual(blockShape("2:4"), { rows: 1, columns: 1 });
  assert.deepEqual(weightGroup("2:4"), { kept: 2, size: 4 });
  assert.equal(weightGroup("[2,4]"), undefined);
  assert.deepEqual(["2:4", "1:4", "[2,4]"].map(parsePattern).map(highestSparsity), [0.5, 0.75, 1]);
  assert.deepEqual(blockGrid("[2,4]", { rows: 5, columns: 8 }), { rows: 3, columns: 2 });
});

Deno.test("checkPattern names the matrix that a pattern does not divide", () => {
  const matrices = [{ name: "a", rows: 12, columns: 8 }, { name: "b", rows: 6, columns: 10 }];
  for (const pattern of ["unstructured", "[6,2]", "1:2", "[3,1]"] as const) checkPattern(pattern, matrices);
  const refused = {
    "4x1": "Cannot prune b [6, 10] in the pattern 4x1: wanted outputs in multiples of 4",
    "1x4": "Cannot prune b [6, 10] in the pattern 1x4: wanted inputs in multiples of 4",
    "2:4": "Cannot prune b [6, 10] in the pattern 2:4: wanted inputs in multiples of 4",
    "[8,4]": "Cannot prune a [12, 8] in the pattern [8,4]: wanted outputs in multiples of 8",
  };
  for (const [pattern, message] of Object.entries(refused)) {
    assert.throws(() => checkPattern(parsePattern(pattern), matrices), new InputError(message));
  }
});

Deno.test("checkFinalSparsity holds N:M to within 0.01 of 1 − N/M, and other patterns to nothing", () => {
  for (const sparsity of [0.49, 0.5, 0.51]) checkFinalSparsity("2:4", sparsity);
  checkFinalSparsity("2:3", 0.33);
  checkFinalSparsity("4x1", 0.9);
  assert.throws(
    () => checkFinalSparsity("2:3", 0.9),
    new InputError("Cannot prune to sparsity 0.9 in the pattern 2:3: wanted 0.3333"),
  );
  assert.throws(() => checkFinalSparsity("2:4", 0.48), InputError);
});
