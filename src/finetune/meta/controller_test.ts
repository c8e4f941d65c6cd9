/** The controller's gradient against central differences, its start, and what it writes down. */
import assert from "node:assert/strict";
import { InputError } from "../../core/errors.ts";
import { randomKey, RandomStream } from "../../core/random.ts";
import { type Factors, MetaController } from "./controller.ts";
import type { GroupTensor } from "./features.ts";
import { metaOptions, metaTerms } from "./options.ts";

const names = ["a", "b", "c"];

/** Statistics of three groups with two tensors each, of scales far apart. */
function groups(seed = 0): GroupTensor[][] {
  const random = new RandomStream(randomKey(seed, "statistics"));
  return names.map((_, g) =>
    [0, 1].map((i) => ({
      statistics: {
        count: 10 ** (g + 1),
        gradientSquares: random.uniform() * 10 ** -g,
        firstMomentSquares: random.uniform() * 10 ** -g,
        secondMomentSquares: random.uniform() * 100 ** -g,
        weightSquares: random.uniform(),
        dot: 0.1 * random.normal() * 10 ** -g,
        zeroGradients: i,
        zeroMoments: 0,
      },
      isBias: i === 0,
      depth: g / 2,
    }))
  );
}

function normals(length: number, name: string): Float64Array {
  const stream = new RandomStream(randomKey(5, name));
  return Float64Array.from({ length }, () => stream.normal());
}

const upstream: Factors = {
  alpha: normals(3, "alpha"),
  beta: normals(3, "beta"),
  lambda1: normals(3, "lambda1"),
  lambda2: normals(3, "lambda2"),
};

const cases = [
  ["paper", metaOptions("paper", { alphaRange: 0.6, feedForward: 6 })],
  [
    "paper, gated and enhanced",
    metaOptions("paper", { gating: true, features: "norm_enhanced", layers: 1, feedForward: 4 }),
  ],
  ["sound, off its start", metaOptions("sound", { gating: true, normPenalty: 1e-3, feedForward: 6 })],
] as const;

for (const [name, options] of cases) {
  Deno.test(`MetaController's gradient is that of central differences: ${name}`, () => {
    const controller = new MetaController(names, options, 4);
    const { parameters } = controller;
    normals(parameters.length, "shift").forEach((value, i) => parameters[i] += 0.1 * value);
    const gates = options.gating ? controller.parameters.length : 0;
    const loss = () => {
      const found = controller.factors(groups(), 0.3);
      let sum = 0;
      for (const key of Object.keys(upstream) as (keyof Factors)[]) {
        found[key].forEach((value, g) => sum += value * upstream[key][g]);
      }
      for (const tensor of controller.encoder.tensors) {
        if (tensor.name === "output.bias") continue;
        const { offset, length } = tensor;
        sum += options.normPenalty * Math.hypot(...parameters.subarray(offset, offset + length));
      }
      if (gates > 0) {
        const first = controller.encoder.parameterCount;
        const columns = options.features === "log" ? 6 : 14;
        for (const gate of parameters.subarray(first, first + columns)) {
          sum += options.gatePenalty * Math.abs(gate);
        }
      }
      return sum;
    };
    controller.factors(groups(), 0.3);
    const gradient = controller.gradient(upstream, [1, 2, 3]);
    const last = parameters.length - metaTerms.length;
    assert.deepEqual([...gradient.subarray(last)], [1, 2, 3]);
    for (let i = 0; i < last; i++) {
      const value = parameters[i];
      parameters[i] = value + 1e-5;
      const above = loss();
      parameters[i] = value - 1e-5;
      const below = loss();
      parameters[i] = value;
      const wanted = (above - below) / 2e-5;
      assert.ok(
        Math.abs(gradient[i] - wanted) <= 1e-7 * (1 + Math.abs(wanted)),
        `parameter ${i}: ${gradient[i]}, ${wanted} by central differences`,
      );
    }
  });
}

Deno.test("MetaController starts as AdamW when sound, and anywhere in its range as the paper has it", () => {
  const sound = new MetaController(names, metaOptions("sound"), 1).factors(groups(), 0);
  for (const key of Object.keys(sound) as (keyof Factors)[]) {
    assert.deepEqual([...sound[key]], new Array(3).fill(key.startsWith("lambda") ? 0.5 : 1), key);
  }
  const paper = new MetaController(names, metaOptions("paper"), 1).factors(groups(), 0);
  for (const factor of [...paper.alpha, ...paper.beta]) {
    assert.ok(factor > 0.5 && factor < 1.5 && Math.abs(factor - 1) > 1e-3, `${factor}`);
  }
  const fixed = metaOptions("sound", { fixed: { alpha: 0.75, beta: 1.5 } });
  const constant = new MetaController(names, fixed, 1).factors(groups(), 0);
  assert.deepEqual([[...constant.alpha], [...constant.beta]], [[0.75, 0.75, 0.75], [1.5, 1.5, 1.5]]);
});

Deno.test("MetaController learns what makes a loss smaller, with either optimiser", () => {
  for (const optimizer of ["sgd", "adam"] as const) {
    const options = metaOptions("sound", { optimizer, learningRate: optimizer === "sgd" ? 0.05 : 1e-2 });
    const controller = new MetaController(names, options, 2);
    // The loss is −α of the first group and α of the others; β and λ have no part in it.
    const none = new Float64Array(3);
    const gradient = { alpha: Float64Array.of(-1, 1, 1), beta: none, lambda1: none, lambda2: none };
    for (let i = 0; i < 200; i++) {
      controller.factors(groups(), 0.1);
      assert.ok(controller.learn(gradient, [0, 0, 0]));
    }
    const { alpha } = controller.factors(groups(), 0.1);
    assert.ok(alpha[0] > 1.3 && alpha[1] < 0.7 && alpha[2] < 0.7, `${optimizer}: ${alpha}`);
  }
});

Deno.test("MetaController holds bounded uncertainties in their bounds, and learns nothing from NaN", () => {
  const controller = new MetaController(names, metaOptions("sound", { learningRate: 10 }), 2);
  controller.factors(groups(), 0);
  const before = controller.state();
  assert.equal(controller.learn({ ...upstream, alpha: Float64Array.of(0, NaN, 0) }, [0, 0, 0]), false);
  assert.deepEqual(controller.state(), before);
  assert.ok(controller.learn(upstream, [1, -1, 0]));
  assert.deepEqual([...controller.uncertainties], [-3, 3, 0]);
  assert.equal(controller.updates, 1);
  const frozen = new MetaController(names, metaOptions("frozen"), 2);
  frozen.factors(groups(), 0);
  assert.throws(() => frozen.learn(upstream, [0, 0, 0]), /is a control/);
});

Deno.test("MetaController goes on from JSON to the same numbers", () => {
  const options = metaOptions("sound", { features: "enhanced", gating: true, objective: "combined" });
  const learn = (controller: MetaController, steps: readonly number[]) =>
    steps.map((step) => {
      controller.factors(groups(step), step / 10);
      controller.learn(upstream, [0.1, -0.2, step]);
      return controller.factors(groups(step), step / 10);
    });
  const whole = new MetaController(names, options, 3);
  const wanted = learn(whole, [1, 2, 3, 4]);
  const first = new MetaController(names, options, 3);
  learn(first, [1, 2]);
  const second = new MetaController(names, options, 99);
  second.restore(JSON.parse(JSON.stringify(first.state())));
  assert.deepEqual(learn(second, [3, 4]), wanted.slice(2));
  assert.deepEqual(second.state(), whole.state());
});

Deno.test("MetaController refuses a state of other groups, sizes, or with holes", () => {
  const controller = new MetaController(names, metaOptions("sound"), 3);
  const state = controller.state();
  const refuses = (changes: Partial<typeof state>, wanted: RegExp) =>
    assert.throws(
      () => controller.restore({ ...state, ...changes }),
      (error) => error instanceof InputError && wanted.test(error.message) && !error.message.includes("\n"),
    );
  refuses({ groups: ["a", "b"] }, /groups are a, b: wanted a, b, c/);
  refuses({ parameters: [1, 2] }, /parameters are 2 numbers: wanted \d+ finite ones/);
  refuses({ firstMoment: state.firstMoment.map(() => NaN) }, /firstMoment are \d+ numbers/);
  assert.deepEqual(controller.state(), state, "a refused state changes nothing");
});
