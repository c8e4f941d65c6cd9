/** The shaders of accumulate against its definition. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { poison } from "../run_operation.ts";
import { runCalls, testGpu } from "../shader_conformance.ts";
import { accumulateCalls } from "./wgsl.ts";

Deno.test("the shaders of accumulate add scaled gradients to their sums, or begin with them", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const random = new RandomStream(randomKey(3, "accumulate"));
  const scale = Math.fround(0.3);
  for (const begins of [false, true]) {
    for (const count of [1, 67, 128, 64 + 1500]) {
      const gradients = Float32Array.from({ length: count }, () => random.normal());
      const sums = Float32Array.from({ length: count }, () => begins ? NaN : random.normal());
      gradients[0] = Infinity;
      const cut = Math.min(64, count);
      const place = (buffer: number, from: number, to: number) => ({
        ...{ buffer, byteOffset: 256 + 4 * from, byteLength: 4 * (to - from) },
      });
      const calls = accumulateCalls({
        ranges: [[0, cut], [cut, count]].filter(([from, to]) => from < to).map(([from, to]) => (
          { gradients: place(0, from, to), sums: place(1, from, to), count: to - from }
        )),
        scale: place(2, 0, 1),
        begins,
        target: gpu.target,
      });
      const operands = [gradients, sums, Float32Array.of(scale)];
      const contents = operands.map((array, buffer) => [buffer, new Uint32Array(array.buffer)] as const);
      const sizes = operands.map(({ byteLength }) => byteLength);
      const [words] = await runCalls(gpu, calls, sizes, new Map(contents), [place(1, 0, count)], poison);
      new Float32Array(words.buffer).forEach((found, i) => {
        const wanted = (begins ? 0 : sums[i]) + scale * gradients[i];
        const close = Object.is(found, wanted) || Math.abs(found - wanted) <= 1e-6 * (1 + Math.abs(wanted));
        assert.ok(close, `${count} elements: sum ${i} is ${found}, wanted ${wanted}`);
      });
    }
  }
});
