/** The shaders of the global norm against its reference. */
import assert from "node:assert/strict";
import { randomKey, RandomStream } from "../../core/random.ts";
import { poison } from "../run_operation.ts";
import type { BufferRange } from "../shader.ts";
import { runCalls, type TestGpu, testGpu } from "../shader_conformance.ts";
import { chunkElements } from "./kernel.ts";
import { globalNormReference } from "./reference.ts";
import { globalNormCalls, globalNormPartialBytes } from "./wgsl.ts";

/** A range of gradients; with a mask, what it leaves out does not count. */
interface Range {
  readonly gradients: Float32Array;
  readonly mask?: Uint32Array;
}

/** Words of a mask that another range's words precede: masks need not begin where bindings can. */
const wordsBefore = 6;

/** [norm, clip], the same from memory that held other things. */
async function runShaders(
  gpu: TestGpu,
  ranges: readonly Range[],
  maximumNorm: number,
  scaledBy?: number,
): Promise<Float32Array> {
  const sizes: number[] = [];
  const contents = new Map<number, Uint32Array>();
  const place = (byteLength: number, words?: Uint32Array): BufferRange => {
    const buffer = sizes.push(byteLength) - 1;
    if (words) contents.set(buffer, words);
    return { buffer, byteOffset: 256, byteLength };
  };
  const gradients = ranges.map(({ gradients, mask }) => {
    const range = place(gradients.byteLength, new Uint32Array(gradients.buffer));
    if (!mask) return { range, count: gradients.length };
    const whole = place(
      4 * (wordsBefore + mask.length),
      Uint32Array.of(...Array(wordsBefore).fill(0), ...mask),
    );
    const placed = { ...whole, byteOffset: 256 + 4 * wordsBefore, byteLength: mask.byteLength };
    return { range, count: gradients.length, mask: placed };
  });
  const partials = place(globalNormPartialBytes(gradients));
  const result = place(8);
  const scale = scaledBy === undefined
    ? undefined
    : place(4, new Uint32Array(Float32Array.of(scaledBy).buffer));
  const calls = globalNormCalls({ gradients, partials, result, maximumNorm, scale, target: gpu.target });
  const run = async (fill: number) => (await runCalls(gpu, calls, sizes, contents, [result, partials], fill));
  const [first, second] = [await run(poison), await run(0x7f7f7f7f)];
  assert.deepEqual(first, second);
  return new Float32Array(first[0].buffer);
}

function normals(seed: number, count: number): Float32Array {
  const random = new RandomStream(randomKey(seed, "gradients"));
  return Float32Array.from({ length: count }, () => 1e-3 * random.normal());
}

async function check(ranges: readonly Range[], maximumNorm: number): Promise<void> {
  const gpu = await testGpu();
  if (!gpu) return;
  const kept = ranges.map(({ gradients, mask }) =>
    gradients.map((value, i) => !mask || mask[i >> 5] >>> (i & 31) & 1 ? value : 0)
  );
  const { norm, clip } = globalNormReference(kept, maximumNorm);
  const found = await runShaders(gpu, ranges, maximumNorm);
  const where = `${
    ranges.map(({ gradients }) => gradients.length)
  } elements: [${found}], wanted ${norm}, ${clip}`;
  [norm, clip].forEach((wanted, i) => {
    const close = Number.isFinite(wanted)
      ? Math.abs(found[i] - wanted) <= 5e-7 * Math.abs(wanted)
      : Object.is(found[i], wanted);
    assert.ok(close, where);
  });
}

Deno.test("the shaders' global norm is the reference's", async () => {
  const awkward = [1, 3, 4, 1023, chunkElements, chunkElements + 1, 3 * chunkElements + 37];
  for (const count of awkward) await check([{ gradients: normals(count, count) }], 0.01);
  const several = [5, 2 * chunkElements + 9, 1, 64].map((count) => ({ gradients: normals(count, count) }));
  for (const maximumNorm of [0, -1, 0.01, 1e6]) await check(several, maximumNorm);
  await check([{ gradients: new Float32Array(100) }], 1);
});

Deno.test("more partials than a workgroup has invocations are summed", async () => {
  await check([{ gradients: normals(1, 300 * chunkElements) }], 1);
});

Deno.test("the shaders' norm is not finite where a gradient or its square is not", async () => {
  for (const [value, maximumNorm] of [[NaN, 1], [NaN, 0], [-Infinity, 1]]) {
    const gradients = normals(3, chunkElements + 5);
    gradients[chunkElements + 4] = value;
    await check([{ gradients: normals(2, 8) }, { gradients }], maximumNorm);
  }
  const gpu = await testGpu();
  // In f64 the reference has no overflow there.
  if (gpu) {
    assert.deepEqual([...await runShaders(gpu, [{ gradients: Float32Array.of(1, 1e20, 1) }], 1)], [
      Infinity,
      NaN,
    ]);
  }
});

Deno.test("the shaders' norm leaves out what is pruned, even NaN", async () => {
  for (const count of [31, 64, 480, 4 * chunkElements + 96]) {
    const random = new RandomStream(randomKey(count, "mask"));
    const gradients = normals(count, count);
    const mask = Uint32Array.from({ length: Math.ceil(count / 32) }, () => random.below(2 ** 32));
    mask[0] |= 1;
    for (let i = 1; i < count; i++) {
      if (!(mask[i >> 5] >>> (i & 31) & 1) && random.uniform() < 0.1) gradients[i] = NaN;
    }
    await check([{ gradients, mask }, { gradients: normals(1, 70) }], 0.01);
  }
});

Deno.test("gradients that are scaled have the norm of those that are not, and are clipped to it", async () => {
  const gpu = await testGpu();
  if (!gpu) return;
  const gradients = normals(9, 5000);
  const scaled = gradients.map((value) => 4096 * value);
  for (const maximumNorm of [0, 0.01, 10]) {
    const [norm, clip] = await runShaders(gpu, [{ gradients }], maximumNorm);
    const found = await runShaders(gpu, [{ gradients: scaled }], maximumNorm, 4096);
    assert.deepEqual([...found], [norm, clip / 4096], `maximum norm ${maximumNorm}`);
  }
  const infinite = Float32Array.of(Infinity, 1, 1, 1);
  const [norm, clip] = await runShaders(gpu, [{ gradients: infinite }], 1, 4096);
  assert.deepEqual([norm, clip], [Infinity, NaN]);
});
