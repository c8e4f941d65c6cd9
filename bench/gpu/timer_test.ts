/** What times a GPU, where there is one: software too, whose times mean nothing but must be there. */
import assert from "node:assert/strict";
import { geluShaders } from "../../src/kernels/gelu/wgsl.ts";
import type { ShaderOperand } from "../../src/kernels/shader.ts";
import { testGpu } from "../../src/kernels/shader_conformance.ts";
import { chooseAdapter, findAdapter, openGpu } from "../../src/webgpu/adapter.ts";
import { loadDawn } from "../../src/webgpu/dawn_provider.ts";
import { squareProduct, sweepMatmul } from "./matmul_sweep.ts";
import { measurePeaks } from "./peaks.ts";
import { GpuTimer } from "./timer.ts";
import { TimingGpuExecutor } from "./timing_executor.ts";

const adapter = await testGpu() && await findAdapter();
const gpu = adapter ? await openGpu(adapter) : undefined;
const ignore = gpu === undefined;

Deno.test({
  name: "measurePeaks: a rate for each, from shaders whose answers are right",
  ignore,
  async fn() {
    const peaks = await measurePeaks(new GpuTimer(gpu!, { seconds: 0.001 }), {
      workgroups: 2,
      turns: 2,
      copyBytes: 2 ** 16,
    });
    for (const [name, rate] of Object.entries(peaks)) {
      assert.ok(rate > 0 && rate < Infinity, `${name} ${rate}`);
    }
    assert.equal(peaks.copy_bytes, 2 ** 16);
    assert.equal(peaks.fp16_tflops !== undefined, gpu!.target.f16);
  },
});

Deno.test({
  name: "a timer refuses what WebGPU refuses",
  ignore,
  async fn() {
    const timer = new GpuTimer(gpu!, { seconds: 0.001 });
    const buffer = timer.buffer(256);
    const copy = (encoder: GPUCommandEncoder) => encoder.copyBufferToBuffer(buffer, 0, buffer, 0, 512);
    await assert.rejects(timer.measure(copy), (error: Error) => /^[^\n]+$/.test(error.message));
    buffer.destroy();
  },
});

Deno.test({
  name: "sweepMatmul tells of what it did not get to",
  ignore,
  async fn() {
    const { rows, failures } = await sweepMatmul(new GpuTimer(gpu!, { seconds: 0.001 }), {
      products: [squareProduct(8)],
      peakTflops: 1,
      limitSeconds: 0,
    });
    assert.deepEqual(rows, []);
    assert.ok(failures.length > 0 && failures.every(({ message }) => message === "not timed: 0 s are over"));
  },
});

Deno.test({
  name: "TimingGpuExecutor runs programs, and tells what each operation took",
  ignore,
  async fn() {
    const choice = await chooseAdapter({ allowSoftware: true });
    if ("reason" in choice) throw new Error(choice.reason);
    const executor = new TimingGpuExecutor(await openGpu(choice.adapter));
    const count = 64;
    const [input, middle, output] = await executor.createBuffers([4 * count, 4 * count, 4 * count]);
    const operand = (buffer: number): ShaderOperand => ({
      type: { dtype: "f32", layout: "rows", shape: [count] },
      parts: [{ buffer, byteOffset: 0, byteLength: 4 * count }],
      rowsPerPart: count,
    });
    const gelu = (from: number, to: number) =>
      geluShaders.lower({
        attributes: {},
        inputs: [operand(from)],
        outputs: [operand(to)],
        scratch: [],
        target: executor.target,
      });
    const calls = [...gelu(input, middle), ...gelu(middle, output)];
    const program = await executor.load({ name: "two gelus", calls });
    executor.write(input, 0, new Float32Array(count).fill(2));
    await executor.submit(program);
    executor.byOperation = true;
    await executor.submit(program, [{ from: operand(output).parts[0], to: operand(input).parts[0] }]);
    const [copied] = await executor.read([operand(input).parts[0]]);
    const [value] = new Float32Array(copied);
    assert.ok(Math.abs(value - 1.9052) < 1e-3, `gelu(gelu(2)) is ${value}`);
    assert.equal(executor.runs.length, 2);
    for (const { gpuMs, encodeMs } of executor.runs) assert.ok(gpuMs > 0 && encodeMs > 0);
    const [{ operation, calls: called }, ...others] = executor.times();
    assert.deepEqual([operation, called, others.length], ["gelu", calls.length, 0]);
    executor.reset();
    assert.deepEqual([executor.runs, executor.times()], [[], []]);
    await executor.dispose();
  },
});

Deno.test("TimingGpuExecutor takes the shared memory of a trainer on Dawn, which takes none", async () => {
  const choice = await chooseAdapter({ allowSoftware: true, provider: "dawn" }, await loadDawn("null"));
  if ("reason" in choice) throw new Error(choice.reason);
  const executor = new TimingGpuExecutor(await openGpu(choice.adapter));
  const [buffer] = await executor.createBuffers([16]);
  executor.write(buffer, 0, new Float32Array(new SharedArrayBuffer(16)));
  await executor.dispose();
});
