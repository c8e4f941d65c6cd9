import assert from "node:assert/strict";
import { errorMessage, UnsupportedError } from "../src/core/errors.ts";
import { testGpu } from "../src/kernels/shader_conformance.ts";
import { chooseAdapter } from "../src/webgpu/adapter.ts";
import { executorCases, floatBuffers, readFloats, scaleCall } from "../src/webgpu/executor_cases.ts";
import { createGpuExecutor } from "./gpu.ts";

const choice = await chooseAdapter({ allowSoftware: true });
const skip = "reason" in choice ? choice.reason : undefined;
if (skip) await testGpu(); // Says so, or throws where a GPU is required.

executorCases("a GPU worker", () => createGpuExecutor({ allowSoftware: true }), skip);

Deno.test({
  name: "a GPU worker leaves the event loop free while it waits",
  ignore: skip !== undefined,
  async fn() {
    const executor = await createGpuExecutor({ allowSoftware: true });
    const [a, b] = await floatBuffers(executor, 2);
    // Mesa's software rasteriser leaves a loop after 65,535 rounds.
    const calls = new Array(30).fill(scaleCall(a, b, 1, 1, 65535));
    const program = await executor.load({ name: "slow", calls });
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 2);
    const begin = performance.now();
    await executor.submit(program);
    assert.deepEqual((await readFloats(executor, b))[0].slice(0, 2), [65535, 65535]);
    const duration = performance.now() - begin;
    clearInterval(timer);
    await executor.dispose();
    assert.ok(longest < duration / 2, `the loop stood still for ${longest} of ${duration} ms`);
  },
});

Deno.test("a GPU worker says why there is no GPU, as an UnsupportedError", async () => {
  const real = await chooseAdapter({ allowSoftware: false });
  if (!("reason" in real)) return;
  await assert.rejects(createGpuExecutor({ allowSoftware: false }), (error) => {
    assert.ok(error instanceof UnsupportedError);
    assert.equal(error.message, `Cannot use a GPU: ${real.reason}`);
    return true;
  });
});

Deno.test("a GPU worker whose thread dies says so and does not hang", async () => {
  // Answers the first call, opening; hears the second, what `lost` waits for; and dies of the third.
  const code = `
    let calls = 0;
    onmessage = ({ data: { id } }) => {
      calls++;
      if (calls === 1) postMessage({ id, type: "RAW", value: { adapter: {}, target: {} } });
      if (calls === 3) throw new Error("no memory left");
    };`;
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(_: string | URL, options?: WorkerOptions) {
      super(`data:text/javascript,${encodeURIComponent(code)}`, options);
    }
  };
  const opened = createGpuExecutor({ allowSoftware: true });
  globalThis.Worker = Worker;
  const executor = await opened;
  const message = (error: unknown) =>
    /^Cannot use the GPU: its thread died: .*no memory left/.test(errorMessage(error));
  await assert.rejects(executor.read([]), message);
  assert.match(await executor.lost, /^its thread died: .*no memory left/);
  await assert.rejects(executor.submit(0), message);
  executor.write(0, 0, new Uint8Array(4));
  await executor.dispose();
  await assert.rejects(executor.createBuffers([]), message);
});
