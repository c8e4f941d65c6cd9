/** Which device trains, and what is said of it. */
import assert from "node:assert/strict";
import { InputError, UnsupportedError } from "../core/errors.ts";
import { selectMachine } from "../machines/mod.ts";
import { arithmeticOf, chooseDevice, describeDevice, tileOf } from "./device.ts";
import type { GpuOptions } from "../webgpu/adapter.ts";
import { modifiersOf } from "./run_modifiers.ts";
import { TinyFolder } from "./tiny_run.ts";

const request = { modifiers: [], hasGpuFactory: true };
const real = () => Promise.resolve({ adapter: {} as GPUAdapter });
const none = () => Promise.resolve({ reason: "WebGPU finds no adapter" });
const unasked = () => assert.fail("nobody is to look for a GPU");

Deno.test("chooseDevice takes a GPU where there is one, and else the CPU, and says why", async () => {
  assert.deepEqual(await chooseDevice("auto", request, real), { name: "webgpu", reason: "auto" });
  assert.deepEqual(await chooseDevice("webgpu", request, real), { name: "webgpu", reason: "as asked" });
  assert.deepEqual(await chooseDevice("dawn", request, real), { name: "dawn", reason: "as asked" });
  assert.deepEqual(await chooseDevice("cpu", request, unasked), { name: "cpu", reason: "as asked" });
  assert.deepEqual(await chooseDevice("auto", request, none), {
    name: "cpu",
    reason: "auto: WebGPU finds no adapter",
  });
});

Deno.test("chooseDevice lets a CPU play a GPU only when one is asked for, and looks at Dawn's only for dawn", async () => {
  const asked: GpuOptions[] = [];
  const spy = (options: GpuOptions) => {
    asked.push(options);
    return real();
  };
  for (const name of ["auto", "webgpu", "dawn"]) await chooseDevice(name, request, spy);
  assert.deepEqual(asked, [
    { provider: "system", allowSoftware: false },
    { provider: "system", allowSoftware: true },
    { provider: "dawn", allowSoftware: true },
  ]);
});

Deno.test("chooseDevice refuses, in one line, a GPU that there is not or that cannot do it, and unknown names", async () => {
  await using folder = await TinyFolder.create();
  const modifiers = await modifiersOf(folder.settings({ pruningMethod: "movement" }));
  const refuses = (wanted: string, changes: Partial<typeof request>, message: string, look = unasked) =>
    assert.rejects(
      chooseDevice(wanted, { ...request, ...changes }, look),
      (error) => {
        assert.ok(error instanceof (wanted === "tpu" ? InputError : UnsupportedError));
        assert.equal(error.message, message);
        return true;
      },
    );
  await refuses("tpu", {}, "--device is tpu: wanted auto, cpu, webgpu or dawn");
  const cannot = "--device webgpu cannot train this run:";
  await refuses("webgpu", {}, `${cannot} WebGPU finds no adapter`, none as never);
  await refuses("dawn", {}, "--device dawn cannot train this run: WebGPU finds no adapter", none as never);
  await refuses("webgpu", { hasGpuFactory: false }, `${cannot} the caller can open no GPU`);
  const moves = "movement pruning trains its scores on the CPU";
  await refuses("webgpu", { modifiers } as never, `${cannot} ${moves}`);
  assert.deepEqual(await chooseDevice("auto", { ...request, modifiers }, unasked), {
    name: "cpu",
    reason: `auto: ${moves}`,
  });
});

Deno.test("float16 is for a GPU that has it: another device is refused, in one line, and none is taken instead", async () => {
  const half = { ...request, precision: "fp16" } as const;
  const adapterWith = (...features: string[]) => () => {
    const info = { description: "a GPU of 2010", isFallbackAdapter: false };
    return Promise.resolve({ adapter: { features: new Set(features), info } as unknown as GPUAdapter });
  };
  const chosen = await chooseDevice("auto", half, adapterWith("shader-f16"));
  assert.deepEqual(chosen, { name: "webgpu", reason: "auto", precision: "fp16" });
  const refuses = (wanted: string, message: string, look: typeof none) =>
    assert.rejects(
      chooseDevice(wanted, half, look),
      (error) => error instanceof InputError && (assert.equal(error.message, message), true),
    );
  const cannot = "--precision is fp16: wanted fp32 on";
  const old = `${cannot} a GPU of 2010, which has no shader-f16`;
  for (const wanted of ["auto", "webgpu"]) await refuses(wanted, old, adapterWith() as never);
  const onCpu = (reason: string) => `${cannot} the CPU (${reason}), which has no arithmetic for it`;
  await refuses("cpu", onCpu("as asked"), unasked as never);
  await refuses("auto", onCpu("auto: WebGPU finds no adapter"), none);
  assert.deepEqual(
    await chooseDevice("webgpu", { ...half, precision: "fp32" }, adapterWith()),
    { name: "webgpu", reason: "as asked" },
  );
});

Deno.test("describeDevice names the adapter, and a CPU that plays one", () => {
  const gpu = { name: "H100", vendor: "NVIDIA", driver: "570.1", isSoftware: false };
  const device = { name: "webgpu", reason: "auto" } as const;
  assert.equal(describeDevice(device, gpu), "device: webgpu (auto), H100, 570.1");
  const half = { ...device, precision: "fp16" } as const;
  assert.equal(describeDevice(half, gpu), "device: webgpu (auto) in fp16, H100, 570.1");
  assert.equal(
    describeDevice(device, { ...gpu, name: "llvmpipe", driver: "", isSoftware: true }),
    "device: webgpu (auto), llvmpipe, a CPU that plays a GPU",
  );
  const dawn = { name: "dawn", reason: "as asked" } as const;
  assert.equal(
    describeDevice(dawn, { ...gpu, matrices: "subgroup matrices of 16×16×16" }),
    "device: dawn (as asked), H100, 570.1, subgroup matrices of 16×16×16",
  );
  assert.equal(describeDevice({ name: "cpu", reason: "as asked" }, undefined), "device: cpu (as asked)");
});

Deno.test("tiles and arithmetic are the device's", () => {
  const machine = selectMachine();
  const [cpu, gpu] = [{ name: "cpu", reason: "" }, { name: "webgpu", reason: "" }] as const;
  assert.deepEqual([tileOf(gpu, machine), arithmeticOf(gpu, machine)], [1, "webgpu"]);
  assert.equal(arithmeticOf({ ...gpu, precision: "fp16" }, machine), "webgpu in fp16");
  const dawn = { name: "dawn", reason: "" } as const;
  assert.deepEqual([tileOf(dawn, machine), arithmeticOf(dawn, machine)], [1, "dawn"]);
  assert.equal(arithmeticOf(cpu, machine), machine.isa);
  assert.ok(tileOf(cpu, machine) > 1);
});
