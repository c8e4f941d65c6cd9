import assert from "node:assert/strict";
import { testGpu } from "../kernels/shader_conformance.ts";
import { chooseAdapter, openGpu } from "./adapter.ts";
import { DeviceExecutor, openDeviceExecutor } from "./device_executor.ts";
import { executorCases, floatBuffers, readFloats, scaleCall } from "./executor_cases.ts";

const choice = await chooseAdapter({ allowSoftware: true });
const skip = "reason" in choice ? choice.reason : undefined;
if (skip) await testGpu(); // Says so, or throws where a GPU is required.

executorCases("a device executor", () => openDeviceExecutor({ allowSoftware: true }), skip);

async function open(unfinishedLimit?: number) {
  if ("reason" in choice) throw new Error(choice.reason);
  const adapter = await chooseAdapter({ allowSoftware: true });
  if ("reason" in adapter) throw new Error(adapter.reason);
  const gpu = await openGpu(adapter.adapter);
  return { gpu, executor: new DeviceExecutor(gpu, { unfinishedLimit }) };
}

Deno.test({
  name: "a device executor waits for the GPU at every so many submits, and not before",
  ignore: skip !== undefined,
  async fn() {
    const { gpu: { device: { queue } }, executor } = await open(3);
    const original = queue.onSubmittedWorkDone.bind(queue);
    let waits = 0;
    queue.onSubmittedWorkDone = () => {
      waits++;
      return original();
    };
    const [a, b] = await floatBuffers(executor, 2);
    const program = await executor.load({ name: "step", calls: [scaleCall(a, b, 1, 1)] });
    const after: number[] = [];
    for (let i = 0; i < 7; i++) {
      await executor.submit(program);
      after.push(waits);
    }
    assert.deepEqual(after, [0, 0, 1, 1, 1, 2, 2]);
    await readFloats(executor, b); // Whoever has read knows that all before is done.
    await executor.submit(program);
    await executor.submit(program);
    assert.equal(waits, 2);
    await executor.submit(program);
    assert.equal(waits, 3);
    await executor.dispose();
  },
});

Deno.test({
  name: "a device executor rejects all calls with one line when the device is lost",
  ignore: skip !== undefined,
  async fn() {
    const { gpu: { device }, executor } = await open();
    const [a, b] = await floatBuffers(executor, 2);
    const program = await executor.load({ name: "step", calls: [scaleCall(a, b, 1, 1)] });
    device.destroy();
    const wanted = /^Error: Cannot use the GPU: the GPU .+ was lost: [^\n]+$/;
    await assert.rejects(readFloats(executor, b), wanted);
    assert.match(await executor.lost, /^the GPU .+ was lost: [^\n]+$/);
    await assert.rejects(executor.submit(program), wanted);
    await assert.rejects(floatBuffers(executor, 1), wanted);
    await assert.rejects(executor.load({ name: "step", calls: [] }), wanted);
    executor.write(a, 0, new Float32Array(1));
    await executor.dispose();
  },
});

Deno.test({
  name: "a device executor rejects with an error that no call was waiting for",
  ignore: skip !== undefined,
  async fn() {
    const { gpu: { device }, executor } = await open();
    device.createBuffer({ label: "stray", size: 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
    await new Promise((resolve) => setTimeout(resolve));
    await assert.rejects(executor.createBuffers([4]), /^Error: Cannot use the GPU: [^\n]*[Uu]sage[^\n]*$/);
    await executor.dispose();
  },
});
