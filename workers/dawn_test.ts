/** Dawn on a real driver: the same executor, where Dawn finds an adapter. */
import assert from "node:assert/strict";
import { UnsupportedError } from "../src/core/errors.ts";
import { createGpuExecutor } from "./gpu.ts";
import { chooseAdapter, type GpuOptions } from "../src/webgpu/adapter.ts";
import { openDeviceExecutor } from "../src/webgpu/device_executor.ts";
import { executorCases } from "../src/webgpu/executor_cases.ts";

const options: GpuOptions = { provider: "dawn", allowSoftware: true };
const choice = await chooseAdapter(options);
const skip = "reason" in choice ? choice.reason : undefined;
if (skip) console.log(`WebGPU of Dawn is not tested: ${skip} (Debian's chromium-common has a software one)`);

executorCases("Dawn in this thread", () => openDeviceExecutor(options), skip);
executorCases("Dawn in a GPU worker", () => createGpuExecutor(options), skip);

Deno.test("a GPU worker says why there is no Dawn, as an UnsupportedError", { ignore: !skip }, async () => {
  await assert.rejects(createGpuExecutor(options), (error) => {
    assert.ok(error instanceof UnsupportedError);
    assert.equal(error.message, `Cannot use a GPU: ${skip}`);
    return true;
  });
});
