/** Names, modules and expressions, and what they do not mean. */
import assert from "node:assert/strict";
import { nameMatcher } from "./name_pattern.ts";

const names = [
  "bert.embeddings.LayerNorm.weight",
  "bert.encoder.layer.1.attention.self.query.weight",
  "bert.encoder.layer.1.attention.self.query.bias",
  "bert.encoder.layer.10.output.dense.weight",
];

Deno.test("nameMatcher takes a name, a module with all below it, or what an expression begins", () => {
  const wanted: Readonly<Record<string, readonly number[]>> = {
    "bert.encoder.layer.1.attention.self.query.bias": [2],
    "bert.encoder.layer.1.attention.self.query": [1, 2],
    "bert.encoder.layer.1": [1, 2],
    "bert": [0, 1, 2, 3],
    "encoder": [],
    "bert.encoder.layer.1.attention.self.query.weight.": [],
    "": [],
    "re:bert\\.encoder\\.layer\\.1": [1, 2, 3],
    "re:.*query$": [1, 2],
    "re:.*\\.bias$": [2],
    "re:query": [],
    "re:query|bert\\.embeddings": [0],
  };
  for (const [pattern, indices] of Object.entries(wanted)) {
    assert.deepEqual(names.filter(nameMatcher(pattern, "--freeze")), indices.map((i) => names[i]), pattern);
  }
});

Deno.test("nameMatcher refuses what is no expression, and says what it was for", () => {
  assert.throws(
    () => nameMatcher("re:(", "--freeze"),
    /^InputError: --freeze re:\( is no regular expression: .*[Uu]nterminated group/,
  );
});
