/** The scale of the loss on the GPU against its reference. */
import assert from "node:assert/strict";
import { checkShaders, openDawn } from "../../webgpu/dawn.ts";
import { globalNormCalls } from "../global_norm/wgsl.ts";
import { poison } from "../run_operation.ts";
import type { BufferRange } from "../shader.ts";
import { runCalls, testGpu } from "../shader_conformance.ts";
import { callInHalves } from "../wgsl_halves.ts";
import { largestLossScale, type LossScale, nextLossScale, stepsToGrow } from "./reference.ts";
import { lossScaleBytes, lossScaleOf, lossScaleWords, nextLossScaleCall, scaleCall } from "./wgsl.ts";

const place = (buffer: number, byteLength: number): BufferRange => ({ buffer, byteOffset: 256, byteLength });

Deno.test("the scale halves at an overflow down to 1, and doubles after 2000 good steps", () => {
  assert.deepEqual(nextLossScale({ scale: 1024, goodSteps: 7 }, false), { scale: 512, goodSteps: 0 });
  assert.deepEqual(nextLossScale({ scale: 1, goodSteps: 7 }, false), { scale: 1, goodSteps: 0 });
  assert.deepEqual(nextLossScale({ scale: 8, goodSteps: 1998 }, true), { scale: 8, goodSteps: 1999 });
  assert.deepEqual(nextLossScale({ scale: 8, goodSteps: 1999 }, true), { scale: 16, goodSteps: 0 });
});

Deno.test("the device makes the next scale as the reference does", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const [norm, state] = [place(0, 4), place(1, lossScaleBytes)];
  const states: LossScale[] = [
    { scale: 65536, goodSteps: 0 },
    { scale: 1, goodSteps: 5 },
    { scale: 512, goodSteps: stepsToGrow - 1 },
    { scale: largestLossScale, goodSteps: stepsToGrow - 1 },
  ];
  for (const before of states) {
    for (const found of [0, 1e-30, 3e38, Infinity, NaN]) {
      const contents = new Map([
        [0, new Uint32Array(Float32Array.of(found).buffer)],
        [1, lossScaleWords(before)],
      ]);
      const calls = [nextLossScaleCall({ norm, state, target: gpu.target })];
      const [words] = await runCalls(gpu, calls, [4, lossScaleBytes], contents, [state], poison);
      assert.deepEqual(lossScaleOf(words), nextLossScale(before, Number.isFinite(found)), `norm ${found}`);
    }
  }
});

Deno.test("all that a scale adds to a step passes the checks of Dawn", async () => {
  const dawn = await openDawn();
  const { target } = dawn;
  const [values, factor, result, state] = [place(0, 64), place(1, 4), place(2, 64), place(3, lossScaleBytes)];
  const scaling = scaleCall({ values, factor, result, count: 16, target });
  const clipping = globalNormCalls({
    gradients: [{ range: values, count: 16 }],
    partials: result,
    result: state,
    maximumNorm: 1,
    scale: factor,
    target,
  });
  const calls = [
    scaling,
    callInHalves(scaling, new Set([result])),
    nextLossScaleCall({ norm: factor, state, target }),
    ...clipping,
  ];
  await checkShaders(dawn, calls.map(({ shader }) => shader));
  dawn.device.destroy();
});

Deno.test("what is scaled beyond float16 becomes infinite, and what is within is rounded to the nearest", async () => {
  const gpu = await testGpu();
  if (!gpu?.target.f16) return;
  const values = Float32Array.of(1, -1.0002441, 3e-9, 1.5, -1.5, 65504 / 65536, 0, NaN);
  const [from, factor, result] = [place(0, 32), place(1, 4), place(2, 16)];
  const request = { values: from, factor, result, count: 8, target: gpu.target };
  const contents = new Map([
    [0, new Uint32Array(values.buffer)],
    [1, new Uint32Array(Float32Array.of(65536).buffer)],
  ]);
  const calls = [callInHalves(scaleCall(request), new Set([result]))];
  const [words] = await runCalls(gpu, calls, [32, 4, 16], contents, [result], poison);
  const wanted = values.map((value) => Math.f16round(65536 * value));
  assert.deepEqual(Float32Array.from(new Float16Array(words.buffer)), wanted);
  assert.equal(wanted[3], Infinity);
});
