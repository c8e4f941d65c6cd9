import assert from "node:assert/strict";
import fc from "fast-check";
import { InputError } from "../src/core/errors.ts";
import { bertConfigJson, bertTensorShapes, defaultLabels, isRegression, parseBertConfig } from "./config.ts";
import { isMaskedLm, maskedLmConfigJson, maskedLmTensorShapes } from "./masked_lm_config.ts";
import { presetConfig, presetNames } from "./presets.ts";

const tiny = bertConfigJson(presetConfig("bert-tiny"));

Deno.test("parseBertConfig reads back what bertConfigJson writes, for every preset", () => {
  for (const name of presetNames) {
    const config = presetConfig(name, { labels: ["bad", "good", "odd"], classifierDropout: 0.25 });
    const json = JSON.parse(JSON.stringify(bertConfigJson(config, { problem_type: "x" })));
    assert.deepEqual(parseBertConfig(json, "config.json"), config);
    assert.equal(json.problem_type, "x");
    assert.deepEqual(json.label2id, { bad: 0, good: 1, odd: 2 });
  }
});

Deno.test("one label is a score, as with Hugging Face's num_labels 1", () => {
  const config = presetConfig("bert-tiny", { labels: ["likeness"] });
  const json = bertConfigJson(config);
  assert.equal(json.problem_type, "regression");
  assert.deepEqual(parseBertConfig(json, "config.json"), config);
  assert.ok(isRegression(parseBertConfig({ ...tiny, id2label: undefined, num_labels: 1 }, "c")));
  assert.ok(!isRegression(parseBertConfig(tiny, "c")));
  assert.ok(!("problem_type" in tiny));
});

Deno.test("a masked language model's config has its architecture and no labels, its tensors no pooler", () => {
  const config = presetConfig("bert-tiny");
  const json = maskedLmConfigJson(config, { problem_type: "x", tool: 1 });
  assert.ok(isMaskedLm(json) && !isMaskedLm(tiny));
  assert.deepEqual([json.id2label, json.label2id, json.problem_type, json.tool], [
    undefined,
    undefined,
    undefined,
    1,
  ]);
  assert.deepEqual(parseBertConfig(json, "config.json"), config);
  const shapes = maskedLmTensorShapes(config);
  const added = [...shapes.keys()].filter((name) => !bertTensorShapes(config).has(name));
  assert.deepEqual(added, [
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.bias",
  ]);
  assert.deepEqual(shapes.get("cls.predictions.bias"), [30522]);
  assert.ok(![...shapes.keys()].some((name) => name.includes("pooler") || name.startsWith("classifier")));
});

Deno.test("parseBertConfig fills in what the first BERT releases leave out", () => {
  const config = parseBertConfig({
    model_type: "bert",
    vocab_size: 30522,
    hidden_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    intermediate_size: 512,
    max_position_embeddings: 512,
  }, "config.json");
  assert.deepEqual(config, presetConfig("bert-tiny"));
  assert.deepEqual(
    parseBertConfig({ ...tiny, id2label: undefined, num_labels: 3 }, "c").labels,
    defaultLabels(3),
  );
  assert.equal(
    parseBertConfig({ ...tiny, classifier_dropout: null, hidden_dropout_prob: 0.3 }, "c").classifierDropout,
    0.3,
  );
});

Deno.test("parseBertConfig says in one line what it found and what it wanted", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ model_type: "roberta" }, 'model_type is "roberta", wanted "bert"'],
    [{ model_type: undefined, architectures: [] }, 'model_type is missing, wanted "bert"'],
    [{ hidden_act: "relu" }, 'hidden_act is "relu", wanted "gelu"'],
    [
      { position_embedding_type: "relative_key" },
      'position_embedding_type is "relative_key", wanted "absolute"',
    ],
    [{ is_decoder: true }, "is_decoder is true, wanted false"],
    [{ hidden_size: undefined }, "hidden_size is missing, wanted a number"],
    [{ hidden_size: NaN }, "hidden_size is NaN, wanted a number"],
    [{ hidden_size: "128" }, 'hidden_size is "128", wanted a number'],
    [{ hidden_size: 127 }, "hidden_size is 127, wanted a multiple of num_attention_heads, which is 2"],
    [{ num_hidden_layers: -1 }, "num_hidden_layers is -1, wanted a number > 0"],
    [{ num_hidden_layers: 1.5 }, "num_hidden_layers is 1.5, wanted a whole number"],
    [{ vocab_size: 1e300 }, "vocab_size is 1e+300, wanted a number ≤ 9007199254740991"],
    [{ layer_norm_eps: 0 }, "layer_norm_eps is 0, wanted a number > 0"],
    [{ hidden_dropout_prob: 1 }, "hidden_dropout_prob is 1, wanted a number < 1"],
    [{ pad_token_id: 30522 }, "pad_token_id is 30522, wanted less than vocab_size, which is 30522"],
    [{ id2label: { 1: "a" } }, 'id2label has the keys ["1"], wanted "0" to "0"'],
    [{ id2label: { 0: 7 } }, "id2label.0 is 7, wanted a string"],
    [{ problem_type: "regression" }, 'problem_type is "regression" with 2 labels, wanted one'],
    [{ id2label: {} }, "id2label is empty, wanted a name for each class"],
  ];
  for (const [change, problem] of cases) {
    assert.throws(
      () => parseBertConfig({ ...tiny, ...change }, "a/config.json"),
      new InputError(`a/config.json: ${problem}`),
    );
  }
  const scores = { ...tiny, problem_type: "regression" };
  assert.equal(parseBertConfig(scores, "c", { newHead: true }).labels.length, 2, "its head does not count");
  assert.throws(
    () => parseBertConfig({ ...tiny, architectures: ["BertLMHeadModel"] }, "c"),
    /^InputError: c: architectures has "BertLMHeadModel", wanted one of BertModel, /,
  );
});

Deno.test("parseBertConfig returns a config or throws an InputError of one line, whatever it is given", () => {
  const anything = fc.oneof(
    fc.anything(),
    fc.dictionary(fc.constantFrom(...Object.keys(tiny)), fc.anything()).map((change) => ({
      ...tiny,
      ...change,
    })),
  );
  fc.assert(fc.property(anything, (json) => {
    try {
      const config = parseBertConfig(json, "c");
      assert.equal(config.hiddenSize % config.heads, 0);
    } catch (error) {
      assert.ok(error instanceof InputError, String(error));
      assert.doesNotMatch(error.message, /\n/);
    }
  }));
});

Deno.test("bertTensorShapes has the parameter counts of the published models", () => {
  const count = (name: string) => {
    let sum = 0;
    for (const [tensor, shape] of bertTensorShapes(presetConfig(name))) {
      if (!tensor.startsWith("classifier.")) sum += shape.reduce((a, b) => a * b, 1);
    }
    return sum;
  };
  // Model cards of bert-base-uncased (110 M) and all-MiniLM-L6-v2 (22.7 M); the digits from PyTorch.
  assert.equal(count("bert-base"), 109_482_240);
  assert.equal(count("minilm-l6"), 22_713_216);
});

Deno.test("presetConfig names the presets when there is no such one", () => {
  assert.throws(
    () => presetConfig("bert-huge"),
    /^InputError: There is no preset "bert-huge", wanted one of bert-tiny, /,
  );
  assert.throws(() => presetConfig("toString"), InputError);
});
