/** The kernels of all rules against their references: awkward sizes, masks, NaN and ∞, one or several workers. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { indices, rows, type ValueType } from "../../graph/graph.ts";
import type { NumberArray, Operation } from "../../graph/operation.ts";
import { availableMachines } from "../../machines/mod.ts";
import { runOperation } from "../conformance.ts";
import { firstBitDifference } from "../run_operation.ts";
import { optimizerDefaults, updateRule } from "./optimizers.ts";
import type { UpdateRule } from "./rule.ts";
import { updateSteps } from "./steps.ts";
import { buildUpdate, type BuiltUpdate, checkUpdate, claimsOf, rangesOf, rules } from "./update_cases.ts";

/** Elements between weights and states, which must stay what they are. */
const gap = 64;

interface Attributes {
  readonly rule: UpdateRule;
  readonly masked: boolean;
}

/**
 * The step dressed as an operation, so that `runOperation` guards the memory. Its state, weights and the rule's states
 * with gaps between them, is operand and result in one buffer; the other operands are gradients, the scalars of two
 * groups, norm and mask. The first elements are a range of their own: `rangesOf`.
 */
const update: Operation<Attributes> = {
  name: "update",
  infer: ([state]) => [state!],
  reference: () => {
    throw new Error("The reference is UpdateRule.reference");
  },
  lower(
    { attributes: { rule, masked }, inputs: [, gradients, scalars, norm, mask], outputs: [state], target },
  ) {
    const stride = state.type.shape[1];
    const count = stride - gap;
    const ranges = rangesOf(count).map(({ from, to, group }) => ({
      weights: state.address + 4 * from,
      states: rule.states.map((_, index) => state.address + 4 * (stride * (index + 1) + from)),
      gradients: gradients!.address + 4 * from,
      scalars: scalars!.address + 4 * group * rule.scalars.length,
      mask: masked ? mask!.address + from / 8 : undefined,
      count: to - from,
    }));
    return updateSteps({ rule, ranges, clip: norm!.address + 4, workers: target.workers });
  },
};

function checkCase(built: BuiltUpdate): void {
  const { rule, masked, parts, gradients, norm, mask, where } = built;
  const [{ length: count }] = parts;
  const stride = count + gap;
  const state = new Float32Array(stride * parts.length).fill(-77);
  parts.forEach((part, index) => state.set(part, index * stride));
  const scalars = Float32Array.from(built.scalars.flatMap((block) => [...block]));
  const inputs: NumberArray[] = [state, gradients, scalars, norm, new Int32Array(mask.buffer)];
  const inputTypes: ValueType[] = [
    rows(parts.length, stride),
    rows(count),
    rows(scalars.length),
    rows(2),
    indices(mask.length),
  ];
  for (const machine of availableMachines()) {
    const run = (workers: number) => {
      const options = { machine, tile: machine.lanes, workers, shared: [0, 0] as const };
      return runOperation(update, { rule, masked }, inputs, inputTypes, options)[0] as Float32Array;
    };
    const found = run(1);
    for (const workers of [2, 3]) {
      assert.equal(
        firstBitDifference(run(workers), found),
        -1,
        `${where}, on ${machine.isa}: ${workers} workers differ from one`,
      );
    }
    const begins = parts.map((_, index) => index * stride);
    checkUpdate(built, begins.map((begin) => found.subarray(begin, begin + count)), machine.isa);
    for (const begin of begins) {
      const after = found.subarray(begin + count, begin + stride);
      assert.ok(after.every((value) => value === -77), `${where}, on ${machine.isa}: a gap changed`);
    }
  }
}

for (const rule of rules) {
  for (const [claim, cases] of claimsOf(rule)) {
    Deno.test(`the kernel of ${rule.key} ${claim}`, () => {
      for (const each of cases) checkCase(buildUpdate(rule, each));
    });
  }
}

Deno.test("a step is split between workers at whole words of the mask, and no element is left out or done twice", () => {
  const rule = updateRule(optimizerDefaults("adamw"));
  const counts = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 8 });
  fc.assert(fc.property(counts, fc.integer({ min: 1, max: 9 }), (counts, workers) => {
    const place = (index: number) => (index + 1) << 20;
    const ranges = counts.map((count, index) => ({
      weights: place(index),
      states: [0, 0],
      gradients: 0,
      mask: place(index) + 2 ** 16,
      scalars: 64,
      count,
    }));
    const [{ calls }] = updateSteps({ rule, ranges, clip: 4, workers });
    assert.equal(calls.length, workers);
    const next = counts.map(() => 0);
    for (const { kernel, words } of calls.flat()) {
      const value = (name: string) => words[Object.keys(kernel.arguments).indexOf(name)];
      const index = (value("weights") >> 20) - 1;
      const from = (value("weights") - place(index)) / 4;
      assert.equal(from, next[index]);
      assert.equal(from % 64, 0);
      assert.equal(value("mask"), place(index) + 2 ** 16 + from / 8);
      next[index] += value("count");
    }
    assert.deepEqual(next, counts);
  }));
});

Deno.test("a range without the states of the rule is refused", () => {
  const rule = updateRule(optimizerDefaults("adamw"));
  const range = { weights: 0, gradients: 0, states: [0], scalars: 0, count: 1 };
  assert.throws(
    () => updateSteps({ rule, ranges: [range], clip: 0, workers: 1 }),
    new RangeError("Cannot update with adamw: a range has 1 states, wanted 2 firstMoment secondMoment"),
  );
});
