/** Flat arrays that are larger than what a binding may span. */
import assert from "node:assert/strict";
import { selectMachine } from "../machines/mod.ts";
import { openDeviceExecutor } from "../webgpu/device_executor.ts";
import type { GpuExecutor } from "../webgpu/executor.ts";
import { flatRange, piecesOf, segmentsOf } from "./gpu_arrays.ts";
import { type ParameterLayout, parameterLayoutOf, slotEnd } from "./parameters.ts";
import { stretchesOf } from "./stretches.ts";
import { parameterGroups } from "./groups.ts";
import { classifier } from "./tasks/classification.ts";
import { gpuTest } from "./tiny_gpu.ts";
import { tinyClassifierConfig, tinyExamples, tinyTrainer } from "./tiny_trainer.ts";

/** The word table has 128 KB, all else together 20 KB. */
const model = classifier({ ...tinyClassifierConfig(2), vocabularySize: 2000 });
const layout: ParameterLayout = parameterLayoutOf(model);
const narrow = { maxBindingBytes: 16 << 10 };

Deno.test("segmentsOf cuts between parameters, and leaves one alone that is larger than a binding", () => {
  const target = narrow as Parameters<typeof segmentsOf>[1];
  const segments = segmentsOf(layout, target);
  assert.ok(segments.length > 2);
  assert.equal(segments[0].begin, 0);
  assert.equal(segments.at(-1)!.end, layout.length);
  segments.slice(1).forEach(({ begin }, index) => assert.equal(begin, segments[index].end));
  for (const { begin, end } of segments) {
    const slots = layout.slots.filter(({ offset }) => offset >= begin && offset < end);
    assert.equal(slotEnd(slots.at(-1)!), end);
    assert.ok(slots.length === 1 || 4 * (end - begin) <= narrow.maxBindingBytes);
  }
});

Deno.test("piecesOf has every element of a stretch once, in ranges that can be bound", () => {
  const target = narrow as Parameters<typeof segmentsOf>[1];
  const arrays = { segments: segmentsOf(layout, target) };
  const buffers = arrays.segments.map((_, index) => 100 + index);
  for (const stretch of stretchesOf(layout, parameterGroups(layout))) {
    const pieces = piecesOf(arrays, stretch, target);
    let end = stretch.begin;
    for (const piece of pieces) {
      assert.equal(piece.begin, end);
      assert.deepEqual([piece.group, piece.masked], [stretch.group, stretch.masked]);
      const { byteOffset, byteLength } = flatRange(arrays, buffers, piece);
      assert.ok(byteOffset % 256 === 0 && byteLength <= narrow.maxBindingBytes);
      end += piece.count;
    }
    assert.equal(end, stretch.begin + stretch.count);
  }
  assert.throws(() => flatRange(arrays, buffers, { begin: 0, count: layout.length }), /in one buffer$/);
});

gpuTest("a GPU whose bindings are narrower than the word table takes the same steps", async () => {
  const narrowGpu = async (): Promise<GpuExecutor> => {
    const gpu = await openDeviceExecutor({ allowSoftware: true });
    const target = { ...gpu.target, ...narrow };
    return new Proxy(gpu, {
      get(_, name: keyof GpuExecutor) {
        if (name === "target") return target;
        const value = gpu[name];
        return typeof value === "function" ? value.bind(gpu) : value;
      },
    });
  };
  const machine = selectMachine();
  const options = { machine, maximumNorm: 0.5 };
  const gpu = await tinyTrainer(model, { ...options, gpu: await narrowGpu() });
  const cpu = await tinyTrainer(model, options);
  const batch = tinyExamples(8).map((example, index) => ({
    ...example,
    ids: example.ids.map((id) => (id * 37 + 211 * index) % 2000),
  }));
  for (let step = 1; step <= 4; step++) {
    const told = { learningRate: 1e-3, weightDecay: 0.01 };
    const found = await gpu.step([batch], step, told);
    const wanted = await cpu.step([batch], step, told);
    assert.ok(Math.abs(found.loss - wanted.loss) < 1e-5, `loss ${found.loss}, wanted ${wanted.loss}`);
    assert.ok(Math.abs(found.gradientNorm / wanted.gradientNorm - 1) < 1e-4);
  }
  for (const trainer of [gpu, cpu]) await trainer.settle();
  const table = layout.slot("bert.embeddings.word_embeddings.weight");
  const wanted = cpu.parameter(table);
  gpu.parameter(table).forEach((value, index) =>
    assert.ok(
      Math.abs(value - wanted[index]) < 1e-5,
      `word table [${index}] is ${value}, wanted ${wanted[index]}`,
    )
  );
  await gpu.dispose();
  await cpu.dispose();
});
