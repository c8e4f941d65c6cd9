import assert from "node:assert/strict";
import { InputError } from "../../src/core/errors.ts";
import { timedPrecisions } from "./adapter.ts";
import { parseOptions } from "./options.ts";

Deno.test("parseOptions: defaults, flags, and parts in the order in which they run", () => {
  assert.deepEqual(parseOptions([]), {
    quick: false,
    json: "runs/gpu_check.json",
    allowSoftware: false,
    parts: ["kernels", "parity", "peaks", "matmul", "train"],
    help: false,
  });
  const given = parseOptions([
    "--quick",
    "--json",
    "a.json",
    "--allow-software",
    "--parts",
    "train, kernels",
  ]);
  assert.deepEqual(given, {
    quick: true,
    json: "a.json",
    allowSoftware: true,
    parts: ["kernels", "peaks", "train"],
    help: false,
  });
  assert.deepEqual(parseOptions(["--parts", "parity"]).parts, ["parity"]);
  assert.equal(parseOptions(["--provider", "dawn"]).provider, "dawn");
  assert.equal(parseOptions(["--precision", "fp16"]).precision, "fp16");
});

Deno.test("timedPrecisions: all that the GPU has, or what was asked for, or why not", () => {
  const [whole, half] = [[], ["shader-f16"]].map((features) => ({ name: "A GPU", features }));
  assert.deepEqual(timedPrecisions(undefined, whole), ["fp32"]);
  assert.deepEqual(timedPrecisions(undefined, half), ["fp32", "fp16"]);
  for (const precision of ["fp32", "fp16"]) assert.deepEqual(timedPrecisions(precision, half), [precision]);
  assert.throws(() => timedPrecisions("fp16", whole), {
    name: "InputError",
    message: "--precision is fp16: wanted fp32 on A GPU, which has no shader-f16",
  });
  assert.throws(() => timedPrecisions("bf16", half), {
    name: "InputError",
    message: "--precision is bf16: wanted fp32 or fp16",
  });
});

Deno.test("parseOptions refuses strangers in one line", () => {
  for (
    const args of [["--part", "train"], ["--parts", "trains"], ["--json"], ["train"], ["--parts", ""], [
      "--provider",
      "wgpu",
    ]]
  ) {
    assert.throws(() => parseOptions(args), (error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, /^[^\n]+$/);
      return true;
    });
  }
});
