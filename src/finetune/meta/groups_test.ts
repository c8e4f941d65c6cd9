/** Grouping parameters by the names of this project's own models. */
import assert from "node:assert/strict";
import { presetConfig } from "../../../models/presets.ts";
import { parameterLayoutOf } from "../parameters.ts";
import { classifier } from "../tasks/classification.ts";
import { metaGroups } from "./groups.ts";

const config = presetConfig("bert-base", { vocabularySize: 100, maximumPositions: 16, labels: ["a", "b"] });
const { slots } = parameterLayoutOf(classifier(config));

Deno.test("metaGroups makes 17 fine-grained groups of BERT-base, each parameter in one", () => {
  const groups = metaGroups(slots, "fine_grained");
  assert.deepEqual(groups.map(({ name }) => name).sort(), [
    "attention.0.bias",
    "attention.0.weight",
    "attention.1.bias",
    "attention.1.weight",
    "attention.2.bias",
    "attention.2.weight",
    "embedding.1.bias",
    "embedding.1.weight",
    "layernorm.0.bias",
    "layernorm.1.bias",
    "layernorm.2.bias",
    "linear.0.bias",
    "linear.0.weight",
    "linear.1.bias",
    "linear.1.weight",
    "linear.2.bias",
    "linear.2.weight",
  ]);
  const members = groups.flatMap((group) => group.slots).sort((a, b) => a - b);
  assert.deepEqual(members, slots.map((_, index) => index));
  const namesOf = (name: string) =>
    groups.find((group) => group.name === name)!.slots.map((slot) => slots[slot].name);
  // A LayerNorm inside of attention goes by the attention, and the head is of middle depth.
  assert.ok(namesOf("attention.0.bias").includes("bert.encoder.layer.3.attention.output.LayerNorm.weight"));
  assert.ok(namesOf("layernorm.2.bias").includes("bert.encoder.layer.8.output.LayerNorm.weight"));
  assert.ok(namesOf("linear.1.weight").includes("classifier.weight"));
  assert.ok(namesOf("linear.1.bias").includes("bert.encoder.layer.7.intermediate.dense.bias"));
});

Deno.test("metaGroups takes the trainer's two groups, or all as one, and leaves out what is not trained", () => {
  const original = metaGroups(slots, "original");
  assert.deepEqual(original.map(({ name }) => name), ["decayed", "not decayed"]);
  assert.ok(original[1].slots.every((slot) => slots[slot].shape.length === 1));
  const single = metaGroups(slots, "single", ({ name }) => name.startsWith("classifier"));
  assert.deepEqual(single.map((group) => group.slots.map((slot) => slots[slot].name)), [
    ["classifier.weight", "classifier.bias"],
  ]);
});

Deno.test("metaGroups takes types in their order, matrices without another type as linear, and the last as other", () => {
  const shapes = [
    { name: "h.0.mlp.norm.weight", shape: [4] },
    { name: "h.1.gate.weight", shape: [4, 4] },
    { name: "h.2.gate.bias", shape: [4] },
    { name: "predictions.bias", shape: [9] },
    { name: "h.2.gate.weight", shape: [4, 4] },
  ];
  const groups = metaGroups(shapes, "fine_grained").map(({ name }) => name);
  assert.deepEqual(groups, [
    "ffn.0.bias",
    "linear.1.weight",
    "linear.2.bias",
    "other.1.bias",
    "linear.2.weight",
  ]);
});
