/** What becomes of a shader's text. What it computes then, `conform` checks for every operation. */
import assert from "node:assert/strict";
import type { BufferRange, ShaderCall } from "./shader.ts";
import { callInHalves, shaderInHalves } from "./wgsl_halves.ts";
import { writeShader } from "./wgsl_shader.ts";

const shader = writeShader({
  key: "example",
  reads: { x: "array<vec4f>", list: "array<i32>" },
  writes: { y: "array<vec4f>", sums: "array<f32>" },
  sizes: { count: "u32" },
  main: `
  var v = x[u32(list[lane])] * sums[u32(x[0].x)];
  y[lane] = v.x == 0.0 ? x[1] : v;
  sums[lane] += x[lane].y;
  if (sums[lane] == 1.0) { return; }`,
});

Deno.test("elements in float16 are converted where they are read and written, and nothing else changes", () => {
  const { key, code, bindings } = shaderInHalves(shader, [true, false, true, false]);
  assert.equal(key, "example_f16at0_2");
  assert.deepEqual(bindings, shader.bindings);
  assert.ok(code.startsWith("enable f16;\n"));
  for (
    const line of [
      "var<storage, read> x: array<vec4h>;",
      "var<storage, read> list: array<i32>;",
      "var<storage, read_write> y: array<vec4h>;",
      "var<storage, read_write> sums: array<f32>;",
      "var v = vec4f(x[u32(list[lane])]) * sums[u32(vec4f(x[0]).x)];",
      "y[lane] = vec4h(v.x == 0.0 ? vec4f(x[1]) : v);",
      "sums[lane] += vec4f(x[lane]).y;",
      "if (sums[lane] == 1.0) { return; }",
    ]
  ) assert.ok(code.includes(line), `${line}\nis not in\n${code}`);
  const sums = shaderInHalves(shader, [false, false, false, true]);
  assert.notEqual(sums.key, key);
  assert.ok(sums.code.includes("sums[lane] = f16(f32(sums[lane]) + (x[lane].y));"), sums.code);
  assert.ok(sums.code.includes("if (f32(sums[lane]) == 1.0) { return; }"));
});

Deno.test("only ranges that are told are in float16, and lists never", () => {
  const ranges: BufferRange[] = [0, 1, 2, 3].map((buffer) => ({ buffer, byteOffset: 0, byteLength: 256 }));
  const call: ShaderCall = { shader, ranges, uniforms: [1, 1, 1], workgroups: [1, 1, 1] };
  assert.equal(callInHalves(call, new Set()), call);
  assert.equal(callInHalves(call, new Set([{ ...ranges[0] }])), call);
  assert.equal(callInHalves(call, new Set([ranges[0]])).shader.key, "example_f16at0");
  assert.throws(() => callInHalves(call, new Set([ranges[1]])), /bindings 1 of shader example/);
});
