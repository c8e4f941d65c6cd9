import assert from "node:assert/strict";
import { bertGolden, goldenParameters, parameterChecksum } from "./mod.ts";

const golden = bertGolden();
const { float64, float32, config, batch } = golden;
const tokens = batch.lengths.reduce((sum, length) => sum + length, 0);

/** Largest |a − b|. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  return Array.from(a, (value, index) => Math.abs(value - b[index])).reduce((x, y) => Math.max(x, y), 0);
}

Deno.test("goldenParameters gives, bit for bit, the weights the outside script started from", () => {
  const parameters = goldenParameters(config);
  assert.deepEqual([...parameters.keys()], golden.parameters.map(({ name }) => name));
  for (const { name, shape, first, checksum } of golden.parameters) {
    const { data, shape: ourShape } = parameters.get(name)!;
    assert.deepEqual(ourShape, shape, name);
    assert.deepEqual([...data.subarray(0, 3)], first, name);
    assert.equal(parameterChecksum(data), checksum, name);
  }
});

Deno.test("the golden batch is packed: its lists agree in length and its ids are in range", () => {
  assert.deepEqual(batch.positions, batch.lengths.flatMap((length) => [...Array(length).keys()]));
  assert.equal(batch.tokenIds.length, tokens);
  assert.equal(batch.typeIds.length, tokens);
  assert.equal(batch.labels.length, batch.lengths.length);
  assert.ok(batch.tokenIds.every((id) => id > 0 && id < config.vocab_size));
  assert.deepEqual([...new Set(batch.typeIds)].sort(), [0, 1]);
});

for (const [name, run] of Object.entries({ float64, float32 })) {
  Deno.test(`the ${name} run has every tensor in its declared shape`, () => {
    const sequences = batch.lengths.length;
    assert.deepEqual(run.logits.shape, [sequences, config.num_labels]);
    assert.deepEqual(run.training.finalLogits.shape, run.logits.shape);
    assert.deepEqual(run.pooled.shape, [sequences, config.hidden_size]);
    assert.equal(run.hiddenStates.length, config.num_hidden_layers + 1);
    for (const states of run.hiddenStates) assert.deepEqual(states.shape, [tokens, config.hidden_size]);
    for (const table of [run.gradients, run.training.finalParameters]) {
      assert.deepEqual([...table.keys()], golden.parameters.map((parameter) => parameter.name));
      for (const { name, shape } of golden.parameters) {
        assert.deepEqual(table.get(name)!.shape, shape);
        assert.equal(table.get(name)!.data.length, shape.reduce((a, b) => a * b));
      }
    }
    assert.equal(run.training.losses.length, golden.training.steps);
  });

  Deno.test(`the loss and the gradient norm of the ${name} run follow from its logits and gradients`, () => {
    const labels = config.num_labels;
    const losses = batch.labels.map((label, sequence) => {
      const row = Array.from(run.logits.data.subarray(sequence * labels, (sequence + 1) * labels));
      return Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[label];
    });
    const loss = losses.reduce((a, b) => a + b) / losses.length;
    const tolerance = name === "float64" ? 1e-12 : 1e-6;
    assert.ok(Math.abs(loss - run.loss) < tolerance);
    assert.equal(run.training.losses[0], run.loss);

    let squares = 0;
    for (const { data } of run.gradients.values()) {
      for (const value of data) squares += value * value;
    }
    assert.ok(Math.abs(Math.sqrt(squares) - run.training.gradientNorms[0]) < 2 * tolerance);
    assert.ok(run.training.gradientNorms[0] > golden.training.maxGradientNorm, "clipping must be exercised");
  });
}

Deno.test("float32 stays near float64, and only key biases drift in training", () => {
  assert.ok(distance(float64.logits.data, float32.logits.data) < 1e-6);
  assert.ok(distance(float64.training.losses, float32.training.losses) < 1e-6);
  for (const { name } of golden.parameters) {
    assert.ok(distance(float64.gradients.get(name)!.data, float32.gradients.get(name)!.data) < 2e-7, name);
    const drift = distance(
      float64.training.finalParameters.get(name)!.data,
      float32.training.finalParameters.get(name)!.data,
    );
    if (!name.endsWith("key.bias")) assert.ok(drift < 1e-6, `${name}: ${drift}`);
  }
});
