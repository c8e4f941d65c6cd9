import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "./errors.ts";
import { findJsonFault, parseJson, showValue } from "./json.ts";

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

Deno.test("findJsonFault accepts exactly what JSON.parse accepts", () => {
  const almostJson = fc.tuple(
    fc.json(),
    fc.nat(),
    fc.constantFrom("", ",", '"', "}", "]", ":", "0", "\\", "\n", "é"),
  )
    .map(([text, at, piece]) => {
      const cut = at % (text.length + 1);
      return text.slice(0, cut) + piece + text.slice(cut + 1);
    });
  const texts = fc.oneof(fc.json(), almostJson, fc.string({ unit: "grapheme" }));
  fc.assert(
    fc.property(texts, (text) => assert.equal(findJsonFault(text, false) === undefined, isJson(text))),
    { numRuns: 3000 },
  );
});

Deno.test("parseJson names source, line and column", () => {
  const cases: [string, string][] = [
    ["", "a.json is not valid JSON: line 1, column 1: found the end, wanted a value"],
    [
      '{\n  "a": 1,\n  b: 2}',
      'a.json is not valid JSON: line 3, column 3: found "b", wanted a key in double quotes',
    ],
    ['{"a": NaN}', 'a.json is not valid JSON: line 1, column 7: found "N", wanted a value'],
    ["[1, 2", 'a.json is not valid JSON: line 1, column 6: found the end, wanted "," or "]"'],
    ["[1] 2", 'a.json is not valid JSON: line 1, column 5: found "2", wanted the end of the text'],
    ['{"a" 1}', 'a.json is not valid JSON: line 1, column 6: found "1", wanted ":"'],
    ['["abc]', "a.json is not valid JSON: line 1, column 2: a string has no closing quote"],
    ['["\\x"]', "a.json is not valid JSON: line 1, column 3: a backslash starts no known escape"],
  ];
  for (const [text, message] of cases) {
    assert.throws(() => parseJson(text, "a.json"), new InputError(message));
  }
});

Deno.test("parseJson refuses repeated keys of one object only where asked to", () => {
  const text = '{"a": {"b": 1}, "b": 2, "\\u0061": 3}';
  assert.deepEqual(parseJson(text, "a.json"), { a: 3, b: 2 });
  assert.throws(
    () => parseJson(text, "a.json", { uniqueKeys: true }),
    new InputError('a.json is not valid JSON: line 1, column 25: the key "a" appears twice'),
  );
});

Deno.test("findJsonFault survives deep nesting", () => {
  const depth = 200_000;
  assert.equal(findJsonFault("[".repeat(depth) + "]".repeat(depth), true), undefined);
  assert.equal(findJsonFault("[".repeat(depth), true)?.position, depth);
});

Deno.test("showValue keeps messages short and on one line", () => {
  assert.equal(showValue(NaN), "NaN");
  assert.equal(showValue(undefined), "undefined");
  assert.equal(showValue("a\nb"), '"a\\nb"');
  assert.equal(showValue("x".repeat(1000)).length, 80);
});
