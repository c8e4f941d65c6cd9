/** The shaders of all rules against their references: awkward sizes, masks, NaN and ∞. */
import assert from "node:assert/strict";
import type { BufferRange } from "../shader.ts";
import { runCalls, type TestGpu, testGpu } from "../shader_conformance.ts";
import { poison } from "../run_operation.ts";
import { optimizerDefaults, updateRule } from "./optimizers.ts";
import { buildUpdate, type BuiltUpdate, checkUpdate, claimsOf, rangesOf, rules } from "./update_cases.ts";
import { updateCalls } from "./wgsl.ts";

/** Bytes from the beginning of a test's buffers to their contents. */
const margin = 256;

/** Weights and states after the step. Ranges are parts of the same buffers, as in training. */
async function runShaders(
  gpu: TestGpu,
  { rule, masked, parts, gradients, scalars, norm, mask }: BuiltUpdate,
): Promise<Float32Array[]> {
  const operands = [...parts, gradients, norm, mask, ...scalars];
  const place = (buffer: number, from: number, to: number): BufferRange => ({
    buffer,
    byteOffset: margin + 4 * from,
    byteLength: 4 * (to - from),
  });
  const gradientsAt = parts.length;
  const [normAt, maskAt, scalarsAt] = [1, 2, 3].map((distance) => gradientsAt + distance);
  const calls = updateCalls({
    rule,
    ranges: rangesOf(gradients.length).map(({ from, to, group }) => {
      const [weights, ...states] = parts.map((_, buffer) => place(buffer, from, to));
      return {
        ...{ weights, states, count: to - from },
        gradients: place(gradientsAt, from, to),
        mask: masked ? place(maskAt, from / 32, Math.ceil(to / 32)) : undefined,
        scalars: place(scalarsAt + group, 0, rule.scalars.length),
      };
    }),
    clip: place(normAt, 0, 2),
    target: gpu.target,
  });
  const words = await runCalls(
    gpu,
    calls,
    operands.map(({ byteLength }) => byteLength),
    new Map(operands.map((array, buffer) => [buffer, new Uint32Array(array.buffer, 0, array.length)])),
    parts.map((part, buffer) => place(buffer, 0, part.length)),
    poison,
  );
  return words.map(({ buffer }) => new Float32Array(buffer));
}

for (const rule of rules) {
  for (const [claim, cases] of claimsOf(rule)) {
    Deno.test(`the shader of ${rule.key} ${claim}`, async () => {
      const gpu = await testGpu();
      if (!gpu) return;
      for (const each of cases) {
        const built = buildUpdate(rule, each);
        checkUpdate(built, await runShaders(gpu, built), gpu.executor.adapter.name);
      }
    });
  }
}

Deno.test("a range without the states of the rule gets no call", () => {
  const rule = updateRule(optimizerDefaults("adamw"));
  const range = { buffer: 0, byteOffset: 0, byteLength: 4 };
  const target = { maxWorkgroupsPerDimension: 65535 } as TestGpu["target"];
  assert.throws(
    () =>
      updateCalls({
        rule,
        ranges: [{ weights: range, gradients: range, states: [range], scalars: range, count: 1 }],
        clip: range,
        target,
      }),
    new RangeError("Cannot update with adamw: a range has 1 states, wanted 2 firstMoment secondMoment"),
  );
});
