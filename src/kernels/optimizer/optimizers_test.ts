import assert from "node:assert/strict";
import { InputError } from "../../core/errors.ts";
import { optimizerDefaults, type OptimizerName, optimizerNames, updateRule } from "./optimizers.ts";
import type { OptimizerSettings } from "./rule.ts";

const group = { learningRate: 0.1, weightDecay: 0.5 };

Deno.test("every optimiser has PyTorch's defaults, and a rule", () => {
  const states = {
    adamw: ["firstMoment", "secondMoment"],
    adam: ["firstMoment", "secondMoment"],
    sgd: [],
    rmsprop: ["squareAverage"],
  };
  for (const name of optimizerNames) {
    const rule = updateRule(optimizerDefaults(name));
    assert.equal(rule.key, name);
    assert.deepEqual(rule.states, states[name]);
    assert.equal(rule.scalarsOf(group, 1).length, rule.scalars.length);
    assert.equal(rule.lazy, name === "adamw");
  }
  assert.deepEqual(optimizerDefaults("adam"), {
    name: "adam",
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    amsgrad: false,
  });
  assert.deepEqual(optimizerDefaults("rmsprop"), {
    name: "rmsprop",
    alpha: 0.99,
    epsilon: 1e-8,
    momentum: 0,
    centered: false,
  });
});

Deno.test("AdamW remembers the largest second moment with AMSGrad, and is then not lazy", () => {
  const rule = updateRule({ ...optimizerDefaults("adamw"), amsgrad: true } as OptimizerSettings);
  assert.equal(rule.key, "adamw_amsgrad");
  assert.deepEqual(rule.states, ["firstMoment", "secondMoment", "largestSecondMoment"]);
  assert.equal(rule.lazy, false);
});

Deno.test("wrong constants are refused in one line", () => {
  const cases: [OptimizerName, Record<string, unknown>, string][] = [
    ["adamw", { beta1: 1 }, "beta1 is 1: wanted a number in [0, 1)"],
    ["adam", { beta2: -0.1 }, "beta2 is -0.1: wanted a number in [0, 1)"],
    ["adamw", { beta2: undefined }, "beta2 is undefined: wanted a number in [0, 1)"],
    ["adamw", { epsilon: 0 }, "epsilon is 0: wanted a number above 0"],
    ["adam", { epsilon: 1e-60 }, "epsilon is 1e-60: wanted a number above 0"],
    ["rmsprop", { epsilon: Infinity }, "epsilon is Infinity: wanted a number above 0"],
    ["rmsprop", { alpha: NaN }, "alpha is NaN: wanted a number in [0, 1)"],
    ["rmsprop", { momentum: 1 }, "momentum is 1: wanted a number in [0, 1)"],
    ["sgd", { momentum: -1 }, "momentum is -1: wanted a number in [0, 1)"],
    ["sgd", { dampening: 2 }, "dampening is 2: wanted a number in [0, 1]"],
    ["sgd", { nesterov: true }, "momentum is 0: wanted a number above 0 with nesterov"],
    ["sgd", { nesterov: true, momentum: 0.9, dampening: 0.1 }, "dampening is 0.1: wanted 0 with nesterov"],
    ["sgd", { name: "lamb" }, "optimizer is lamb: wanted one of adamw, adam, sgd, rmsprop"],
  ];
  for (const [name, wrong, message] of cases) {
    const settings = { ...optimizerDefaults(name), ...wrong } as OptimizerSettings;
    assert.throws(() => updateRule(settings), new InputError(message));
  }
  assert.throws(
    () => optimizerDefaults("lamb" as OptimizerName),
    new InputError("optimizer is lamb: wanted one of adamw, adam, sgd, rmsprop"),
  );
});

Deno.test("a cycled momentum stands for β₁ or the momentum, and is refused where there is none", () => {
  for (const name of optimizerNames) {
    const cold = updateRule(optimizerDefaults(name));
    const own = name === "sgd" || name === "rmsprop" ? { momentum: 0.9 } : { beta1: 0.9 };
    const cycled = { momentum: 0.85 }, other = { beta1: 0.85 };
    const rule = updateRule({ ...optimizerDefaults(name), ...own } as OptimizerSettings);
    const wanted = updateRule(
      { ...optimizerDefaults(name), ...("momentum" in own ? cycled : other) } as OptimizerSettings,
    );
    assert.ok(rule.takesMomentum);
    assert.deepEqual(rule.scalarsOf({ ...group, ...cycled }, 3), wanted.scalarsOf(group, 3));
    assert.notDeepEqual(rule.scalarsOf({ ...group, ...cycled }, 3), rule.scalarsOf(group, 3));
    for (const momentum of [1, -0.1, NaN]) {
      assert.throws(
        () => rule.scalarsOf({ ...group, momentum }, 1),
        new InputError(`momentum is ${momentum}: wanted a number in [0, 1)`),
      );
    }
    if (cold.takesMomentum) continue;
    assert.throws(
      () => cold.scalarsOf({ ...group, ...cycled }, 1),
      new InputError(`momentum is 0.85: wanted none, ${name} was made with a momentum of 0`),
    );
  }
});

Deno.test("RMSprop's variance is zero where rounding takes it below", () => {
  const rule = updateRule({ ...optimizerDefaults("rmsprop"), centered: true } as OptimizerSettings);
  const weights = Float32Array.of(1);
  const states = [Float32Array.of(0.01), Float32Array.of(0.1000001)];
  rule.reference({ weights, states }, [0.1], { learningRate: 1e-9, weightDecay: 0 }, 1);
  assert.ok(weights[0] < 1 && Number.isFinite(weights[0]), `w is ${weights[0]}`);
});
