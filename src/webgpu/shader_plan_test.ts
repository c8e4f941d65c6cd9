import assert from "node:assert/strict";
import fc from "fast-check";
import { UnsupportedError } from "../core/errors.ts";
import { Graph, rows, tiled, type Value } from "../graph/graph.ts";
import { gelu } from "../kernels/gelu/operation.ts";
import type { ShaderLowering, ShaderOperand, ShaderTarget } from "../kernels/shader.ts";
import { checkCall, operandAt } from "./operands.ts";
import { mix, mixShaders, playCalls, playGraph, Terms } from "./plan_simulator.ts";
import { ownBuffer, planShaders, relocate } from "./shader_plan.ts";

const target: ShaderTarget = {
  isSoftware: true,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxWorkgroupsPerDimension: 65535,
  maxBindingBytes: 2 ** 27,
  f16: false,
  columnGrain: 32,
};
const lowerings = new Map([[mix.name, mixShaders as ShaderLowering]]);

/** A node: which values it reads (counted from the last), the sizes of its results, and whether the first is read at the end. */
const nodes = fc.array(
  fc.record({
    reads: fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 3 }),
    features: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 2 }),
    place: fc.constantFrom("own", "own", "own", "kept", "bound"),
  }),
  { minLength: 1, maxLength: 40 },
);

function mixGraph(recipe: typeof nodes extends fc.Arbitrary<infer T> ? T : never, columns: number) {
  const graph = new Graph();
  const bindings = new Map<Value, ShaderOperand>();
  const bind = (value: Value) =>
    bindings.set(value, operandAt(value.name, value.type, { buffer: bindings.size }, target));
  const values = [graph.input("x", tiled(3, columns)), graph.parameter("w", tiled(8, columns))];
  values.forEach(bind);
  recipe.forEach(({ reads, features, place }, seed) => {
    const inputs = [...new Set(reads)].map((back) => values.at(-1 - back) ?? values[0]);
    const results = graph.apply(mix, { seed, features }, [...new Set(inputs)]);
    values.push(...results);
    if (place === "kept") graph.output(`kept ${seed}`, results[0]);
    if (place === "bound") bind(results[0]);
  });
  graph.output("last", values.at(-1)!);
  return { graph, bindings };
}

Deno.test("planShaders: every call reads what the graph means, and outputs are there at the end", () => {
  fc.assert(fc.property(nodes, (recipe) => {
    const { graph, bindings } = mixGraph(recipe, 32);
    const plan = planShaders(graph, { target, bindings, lowerings });
    const terms = new Terms();
    const given = new Map([...graph.inputs.values(), ...graph.parameters.values()].map((value) => [
      value,
      terms.of(value.name),
    ]));
    const wanted = playGraph(graph, given, terms);

    const ids = plan.buffers.map((_, index) => 1000 + 7 * index);
    const { calls, outputs } = relocate(plan, ids);
    const contents = new Map(
      Array.from(given, ([value, term]) => [bindings.get(value)!.parts[0].buffer, term]),
    );
    // Twice: a replay finds the leavings of the run before.
    for (let run = 0; run < 2; run++) {
      playCalls(calls, contents, terms);
      for (const [name, { parts: [{ buffer }] }] of outputs) {
        assert.equal(contents.get(buffer), wanted.get(graph.outputs.get(name)!.id), name);
      }
    }
  }));
});

Deno.test("planShaders: a smaller batch runs on the buffers of a larger one, in the same places", () => {
  fc.assert(fc.property(nodes, (recipe) => {
    const large = mixGraph(recipe, 96);
    const small = mixGraph(recipe, 32);
    const plan = planShaders(large.graph, { target, bindings: large.bindings, lowerings });
    const reused = planShaders(small.graph, { target, bindings: small.bindings, lowerings, reuse: plan });
    assert.deepEqual(reused.buffers, plan.buffers);
    assert.deepEqual(reused.assignment, plan.assignment);
    const buffersOf = ({ calls }: typeof plan) =>
      calls.map(({ ranges }) => ranges.map(({ buffer }) => buffer));
    assert.deepEqual(buffersOf(reused), buffersOf(plan));
  }));
});

/** gelu(gelu(… x)). */
function chain(length: number) {
  const graph = new Graph();
  const x = graph.input("x", tiled(4, 32));
  let last = x;
  for (let i = 0; i < length; i++) last = graph.apply(gelu, {}, [last])[0];
  graph.output("last", last);
  return { graph, x, bindings: new Map([[x, operandAt("x", x.type, { buffer: 0 }, target)]]) };
}

Deno.test("planShaders puts the prologue before and the epilogue behind, and leaves dead nodes out", () => {
  const { graph, x, bindings } = chain(3);
  graph.apply(gelu, {}, [x]);
  const shader = { key: "clear", code: "", bindings: ["write"] as const };
  const clear = (buffer: number) => ({
    shader,
    ranges: [{ buffer, byteOffset: 0, byteLength: 4 }],
    workgroups: [1, 1, 1] as const,
  });
  const plan = planShaders(graph, { target, bindings, prologue: [clear(8)], epilogue: [clear(9)] });
  assert.deepEqual(plan.calls.map(({ shader }) => shader.key), [
    "clear",
    "gelu_f32",
    "gelu_f32",
    "gelu_f32",
    "clear",
  ]);
  assert.deepEqual([plan.calls[0], plan.calls[4]], [clear(8), clear(9)]);
});

Deno.test("planShaders needs two buffers for a chain", () => {
  const { graph, bindings } = chain(10);
  const plan = planShaders(graph, { target, bindings });
  assert.deepEqual(plan.buffers, [512, 512]);
  assert.equal(plan.calls.length, 10);
});

Deno.test("planShaders keeps float16 to itself, and scales one result before it is rounded", () => {
  const { graph, bindings } = chain(4);
  const [, second] = graph.nodes;
  const factor = { buffer: 7, byteOffset: 256, byteLength: 4 };
  const plan = planShaders(graph, {
    target: { ...target, f16: true, activations: "f16" },
    bindings,
    scaled: { value: second.outputs[0], factor },
  });
  const calls = plan.calls.map(({ shader, ranges }) => [
    shader.key,
    ...ranges.map(({ buffer, byteLength }) => `${buffer}: ${byteLength}`),
  ]);
  // Inputs and outputs are float32, and so is what is to be scaled; sizes are those of 4 × 32 elements.
  assert.deepEqual(calls, [
    ["gelu_f32_f16at1", "0: 512", "-2: 256"],
    ["gelu_f32_f16at0", "-2: 256", "-1: 512"],
    ["scale_f32_f16at2", "-1: 512", "7: 4", "-3: 256"],
    ["gelu_f32_f16at0_1", "-3: 256", "-2: 256"],
    ["gelu_f32_f16at0", "-2: 256", "-1: 512"],
  ]);
  assert.deepEqual(plan.buffers, [512, 256, 256]);
  assert.equal(plan.outputs.get("last")!.element, undefined);
});

Deno.test("planShaders names what it lacks", () => {
  const { graph, bindings } = chain(1);
  assert.throws(
    () => planShaders(graph, { target, bindings: new Map() }),
    /^Error: Cannot plan: input x has no place$/,
  );
  assert.throws(
    () => planShaders(graph, { target, bindings, lowerings }),
    (error) => error instanceof UnsupportedError && /no shaders for gelu$/.test(error.message),
  );
  assert.throws(
    () => planShaders(graph, { target: { ...target, maxBindingBytes: 256 }, bindings }),
    (error) =>
      error instanceof UnsupportedError &&
      error.message === "gelu.0, f32 tiled [4, 32], has 512 bytes: a shader of this GPU sees 256 at most",
  );
});

Deno.test("planShaders refuses operands that would be read and written in one buffer", () => {
  const { graph, bindings } = chain(1);
  const last = graph.outputs.get("last")!;
  const beside = operandAt("last", last.type, { buffer: 0, byteOffset: 512 }, target);
  assert.throws(
    () => planShaders(graph, { target, bindings: new Map([...bindings, [last, beside]]) }),
    /^RangeError: Cannot call shader gelu_f32: ranges 0 and 1 read and write buffer 0$/,
  );
});

Deno.test("relocate moves the plan's own buffers and no others", () => {
  const { graph, bindings } = chain(2);
  const plan = planShaders(graph, { target, bindings });
  assert.deepEqual(plan.calls[0].ranges.map(({ buffer }) => buffer), [0, ownBuffer(plan.assignment[0])]);
  const { calls, outputs } = relocate(plan, [5, 6]);
  const at = (index: number) => 5 + plan.assignment[index];
  assert.deepEqual(calls.map(({ ranges }) => ranges.map(({ buffer }) => buffer)), [[0, at(0)], [
    at(0),
    at(1),
  ]]);
  assert.equal(outputs.get("last")!.parts[0].buffer, at(1));
  assert.throws(
    () => relocate(plan, [5]),
    /^RangeError: Cannot relocate the plan: it owns more than 1 buffers$/,
  );
});

Deno.test("operandAt splits rows that are larger than a binding between rows, at multiples of 256 bytes", () => {
  const small = { ...target, maxBindingBytes: 1000 };
  const { parts, rowsPerPart } = operandAt("table", rows(50, 12), { buffer: 3, byteOffset: 512 }, small);
  assert.equal(rowsPerPart, 16);
  assert.deepEqual(parts, [
    { buffer: 3, byteOffset: 512, byteLength: 768 },
    { buffer: 3, byteOffset: 1280, byteLength: 768 },
    { buffer: 3, byteOffset: 2048, byteLength: 768 },
    { buffer: 3, byteOffset: 2816, byteLength: 96 },
  ]);
  assert.throws(() => operandAt("table", rows(2, 300), { buffer: 0 }, small), UnsupportedError);
  assert.deepEqual(operandAt("loss", rows(), { buffer: 1 }, small), {
    type: rows(),
    parts: [{ buffer: 1, byteOffset: 0, byteLength: 4 }],
    rowsPerPart: 1,
  });
});

Deno.test("checkCall names the shader and what is wrong with its call", () => {
  const shader = { key: "copy", code: "", bindings: ["read", "write", "write"] as const };
  const range = { buffer: 0, byteOffset: 0, byteLength: 512 };
  const ranges = [range, { ...range, buffer: 1 }, { ...range, buffer: 1, byteOffset: 512 }];
  const call = { shader, ranges, workgroups: [1, 1, 1] as const };
  checkCall(call, target);
  const wrong: [Partial<typeof call> & { uniforms?: number[] }, RegExp][] = [
    [{ ranges: ranges.slice(1) }, /it has 2 ranges, wanted 3$/],
    [{ ranges: [range, ranges[1], ranges[1]] }, /ranges 2 and 1 write the same bytes of buffer 1$/],
    [{ ranges: [ranges[1], range, ranges[2]] }, /ranges 0 and 2 read and write buffer 1$/],
    [
      { ranges: [{ ...range, byteOffset: 4 }, ...ranges.slice(1)] },
      /range 0 begins at 4, no multiple of 256$/,
    ],
    [{ ranges: [{ ...range, byteLength: 0 }, ...ranges.slice(1)] }, /range 0 has 0 bytes, no whole words$/],
    [{ workgroups: [65536, 1, 1] as never }, /its grid is 65536 × 1 × 1, wanted 1 to 65535 each$/],
    [{ uniforms: [1] }, /it has uniforms, which its bindings lack$/],
  ];
  for (const [change, message] of wrong) {
    assert.throws(() => checkCall({ ...call, ...change }, target), message);
  }
});
